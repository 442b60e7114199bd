//! Which relation a file below PGDATA belongs to.

use std::fmt;

use seawall_core::Oid;

use crate::PgMajor;
use crate::decimal::positive_decimal;

/// The tablespace `pg_default`, which is `base/` (`DEFAULTTABLESPACE_OID`, pg_tablespace_d.h).
pub const DEFAULT_TABLESPACE: Oid = 1663;
/// The tablespace `pg_global`, which is `global/` (`GLOBALTABLESPACE_OID`).
pub const GLOBAL_TABLESPACE: Oid = 1664;

/// Which of a relation's files it is (`ForkNumber`, relpath.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fork {
    /// The data.
    Main,
    /// The free space map.
    Fsm,
    /// The visibility map.
    Vm,
    /// What an unlogged relation is reset to after a crash.
    Init,
}

impl Fork {
    /// What stands between the relation's number and the segment's, with its underscore.
    const fn suffix(self) -> &'static str {
        match self {
            Self::Main => "",
            Self::Fsm => "_fsm",
            Self::Vm => "_vm",
            Self::Init => "_init",
        }
    }
}

/// One segment file of a relation fork.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelationFile {
    /// [`DEFAULT_TABLESPACE`], [`GLOBAL_TABLESPACE`] or one of the user's.
    pub tablespace: Oid,
    /// The database; zero for shared relations.
    pub database: Oid,
    /// The file number (`relfilenode`), which is not always the relation's own OID.
    pub relation: Oid,
    /// Which fork.
    pub fork: Fork,
    /// Which segment of the fork, from zero.
    pub segment: u32,
}

/// What a path in a directory of relations names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelationPath {
    /// A file of a permanent or unlogged relation.
    File(RelationFile),
    /// A file of a session's temporary relation (`t3_16384`), which no backup needs.
    Temporary,
}

impl RelationPath {
    /// Reads a path relative to PGDATA, with `/` between its parts.
    ///
    /// `None` for any path that is not exactly what PostgreSQL itself would write for a relation:
    /// numbers without leading zeros, no segment `.0`, and in `pg_tblspc` the directory of this
    /// `major` only, since `pg_upgrade` leaves another major's beside it.
    #[must_use]
    pub fn parse(path: impl AsRef<[u8]>, major: PgMajor) -> Option<Self> {
        let path = std::str::from_utf8(path.as_ref()).ok()?;
        let (directory, name) = path.rsplit_once('/')?;
        let (tablespace, database) = parse_directory(directory, major)?;
        match RelationName::parse(name)? {
            RelationName::Temporary if tablespace == GLOBAL_TABLESPACE => None,
            RelationName::Temporary => Some(Self::Temporary),
            RelationName::File { relation, fork, segment } => {
                Some(Self::File(RelationFile { tablespace, database, relation, fork, segment }))
            }
        }
    }
}

impl RelationFile {
    /// The path relative to PGDATA, in the spelling [`RelationPath::parse`] reads.
    ///
    /// The major is needed because user tablespaces have it in a directory's name.
    #[must_use]
    pub const fn path(self, major: PgMajor) -> RelationFilePath {
        RelationFilePath { file: self, major }
    }
}

/// Shows a [`RelationFile`] as a path relative to PGDATA.
#[derive(Debug, Clone, Copy)]
pub struct RelationFilePath {
    file: RelationFile,
    major: PgMajor,
}

impl fmt::Display for RelationFilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RelationFile { tablespace, database, relation, fork, segment } = self.file;
        match tablespace {
            GLOBAL_TABLESPACE => write!(f, "global/")?,
            DEFAULT_TABLESPACE => write!(f, "base/{database}/")?,
            _ => {
                let version = tablespace_version_directory(self.major);
                write!(f, "pg_tblspc/{tablespace}/{version}/{database}/")?;
            }
        }
        write!(f, "{relation}{}", fork.suffix())?;
        if segment == 0 { Ok(()) } else { write!(f, ".{segment}") }
    }
}

/// The directory a major's files have in each user tablespace, `PG_15_202209061`
/// (`TABLESPACE_VERSION_DIRECTORY`, relpath.h).
#[must_use]
pub fn tablespace_version_directory(major: PgMajor) -> String {
    format!("PG_{major}_{}", major.catalog_version())
}

/// The tablespace and database whose relations lie in a directory.
fn parse_directory(directory: &str, major: PgMajor) -> Option<(Oid, Oid)> {
    if directory == "global" {
        return Some((GLOBAL_TABLESPACE, 0));
    }
    if let Some(database) = directory.strip_prefix("base/") {
        return Some((DEFAULT_TABLESPACE, positive_decimal(database)?));
    }
    let (tablespace, rest) = directory.strip_prefix("pg_tblspc/")?.split_once('/')?;
    let (version, database) = rest.split_once('/')?;
    let tablespace = positive_decimal(tablespace)
        .filter(|oid| ![DEFAULT_TABLESPACE, GLOBAL_TABLESPACE].contains(oid))?;
    (version == tablespace_version_directory(major))
        .then(|| positive_decimal(database))
        .flatten()
        .map(|database| (tablespace, database))
}

/// The last part of a relation's path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RelationName {
    File { relation: Oid, fork: Fork, segment: u32 },
    Temporary,
}

impl RelationName {
    /// Reads `16384`, `16384_vm`, `16384.3`, `t3_16384_fsm` and the like
    /// (`parse_filename_for_nontemp_relation`, `looks_like_temp_rel_name`; 17).
    pub(crate) fn parse(name: &str) -> Option<Self> {
        if let Some(temporary) = name.strip_prefix('t') {
            let (backend, rest) = temporary.split_once('_')?;
            let backend_is_number = backend == "0" || positive_decimal(backend).is_some();
            return (backend_is_number && matches!(Self::parse(rest)?, Self::File { .. }))
                .then_some(Self::Temporary);
        }
        let (name, segment) = match name.split_once('.') {
            Some((name, segment)) => (name, positive_decimal(segment)?),
            None => (name, 0),
        };
        let (relation, fork) = match name.split_once('_') {
            None => (name, Fork::Main),
            Some((relation, "fsm")) => (relation, Fork::Fsm),
            Some((relation, "vm")) => (relation, Fork::Vm),
            Some((relation, "init")) => (relation, Fork::Init),
            Some(_) => return None,
        };
        Some(Self::File { relation: positive_decimal(relation)?, fork, segment })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(path: &str) -> Option<RelationPath> {
        RelationPath::parse(path, PgMajor::V15)
    }

    fn file(tablespace: Oid, database: Oid, fork: Fork, segment: u32) -> Option<RelationPath> {
        let relation = 16_400;
        let file = RelationFile { tablespace, database, relation, fork, segment };
        Some(RelationPath::File(file))
    }

    #[test]
    fn files_are_found_in_every_kind_of_tablespace() {
        assert_eq!(parse("base/5/16400"), file(1663, 5, Fork::Main, 0));
        assert_eq!(parse("base/5/16400_fsm.2"), file(1663, 5, Fork::Fsm, 2));
        assert_eq!(parse("global/16400_vm"), file(1664, 0, Fork::Vm, 0));
        let path = "pg_tblspc/16390/PG_15_202209061/5/16400_init";
        assert_eq!(parse(path), file(16_390, 5, Fork::Init, 0));
    }

    #[test]
    fn another_majors_tablespace_directory_is_not_ours() {
        assert_eq!(parse("pg_tblspc/16390/PG_14_202107181/5/16400"), None);
    }

    #[test]
    fn temporary_relations_are_recognised() {
        for name in ["t3_16384", "t0_16384", "t12_16384_fsm", "t3_16384_vm.1"] {
            assert_eq!(parse(&format!("base/5/{name}")), Some(RelationPath::Temporary), "{name}");
        }
    }

    #[test]
    fn anything_else_is_not_a_relation() {
        for path in [
            "",
            "16384",
            "base/16384",
            "base/5/",
            "base/5/0",
            "base/5/016384",
            "base/5/4294967296",
            "base/05/16384",
            "base/5/16384.0",
            "base/5/16384.01",
            "base/5/16384.",
            "base/5/16384_",
            "base/5/16384_main",
            "base/5/16384_fsm_vm",
            "base/5/16384.1_fsm",
            "base/5/+16384",
            "base/5/16384 ",
            "base/5/6/16384",
            "base//16384",
            "/base/5/16384",
            "./base/5/16384",
            "base/5/PG_VERSION",
            "base/5/pg_filenode.map",
            "base/5/t3_",
            "base/5/t_16384",
            "base/5/t03_16384",
            "base/5/t3_t4_16384",
            "global/5/16384",
            "global/t3_16384",
            "global/pg_control",
            "pg_tblspc/1663/PG_15_202209061/5/16384",
            "pg_tblspc/16390/PG_15_202209061/16384",
        ] {
            assert_eq!(parse(path), None, "{path}");
        }
        assert_eq!(RelationPath::parse(b"base/5/\xFF", PgMajor::V15), None);
    }

    fn any_file() -> impl Strategy<Value = RelationFile> {
        let tablespace =
            prop_oneof![Just(DEFAULT_TABLESPACE), Just(GLOBAL_TABLESPACE), 16_384u32..];
        let fork = prop::sample::select(vec![Fork::Main, Fork::Fsm, Fork::Vm, Fork::Init]);
        (tablespace, 1u32.., 1u32.., fork, any::<u32>()).prop_map(
            |(tablespace, database, relation, fork, segment)| RelationFile {
                tablespace,
                database: if tablespace == GLOBAL_TABLESPACE { 0 } else { database },
                relation,
                fork,
                segment,
            },
        )
    }

    proptest! {
        #[test]
        fn paths_round_trip(
            file in any_file(), major in prop::sample::select(PgMajor::ALL.to_vec()),
        ) {
            let path = file.path(major).to_string();
            prop_assert_eq!(RelationPath::parse(&path, major), Some(RelationPath::File(file)));
        }

        #[test]
        fn only_the_written_spelling_is_read(path in "(base/|global/)?[t0-9_.fsmvinit/]{0,20}") {
            if let Some(RelationPath::File(file)) = parse(&path) {
                prop_assert_eq!(file.path(PgMajor::V15).to_string(), path);
            }
        }
    }
}
