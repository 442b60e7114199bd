use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use seawall_core::{Code, Error, Oid, Result, printable};
use seawall_repo::manifest::Database;

use crate::restored::NamedDatabase;

/// Databases that `initdb` makes have lower numbers (`FirstNormalObjectId`, transam.h). They are
/// always restored: connections and new databases begin there.
pub const FIRST_NORMAL_OID: Oid = 16_384;

/// Which databases are left out when only those `wanted` are to be restored. `known` are the
/// cluster's as the backup began.
///
/// # Errors
/// [`Code::Usage`] for a name that is not among them, or if the backup does not tell them.
pub fn databases_left_out(
    known: Option<&[Database]>,
    wanted: &[OsString],
) -> Result<Vec<NamedDatabase>> {
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let name = |database: &Database| printable(&String::from_utf8_lossy(&database.name));
    let Some(known) = known else {
        return Err(Error::new(Code::Usage, "the backup does not tell which databases it has")
            .with_hint("Leave out --database, or choose a newer backup."));
    };
    let is_wanted = |database: &Database, wanted: &OsString| *database.name == *wanted.as_bytes();
    let is_known = |wanted: &OsString| known.iter().any(|database| is_wanted(database, wanted));
    if let Some(unknown) = wanted.iter().find(|wanted| !is_known(wanted)) {
        let names: Vec<String> = known.iter().map(|database| argument(&name(database))).collect();
        return Err(Error::new(
            Code::Usage,
            format!("there was no database \"{}\" when the backup began", unknown.display()),
        )
        .with_hint(format!("There were: {}.", names.join(", "))));
    }
    let left_out = known
        .iter()
        .filter(|database| database.oid >= FIRST_NORMAL_OID)
        .filter(|database| !wanted.iter().any(|wanted| is_wanted(database, wanted)));
    Ok(left_out.map(NamedDatabase::from).collect())
}

/// A name as a shell takes it.
fn argument(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    if !name.is_empty() && name.bytes().all(plain) {
        return name.to_owned();
    }
    format!("'{}'", name.replace('\'', r"'\''"))
}

/// Numbers of databases, with something between them.
fn oids(databases: &[NamedDatabase], between: &str) -> String {
    let oids: Vec<String> = databases.iter().map(|database| database.oid.to_string()).collect();
    oids.join(between)
}

/// Databases for people: names change, numbers do not.
fn listed(databases: &[NamedDatabase]) -> String {
    let shown = |it: &NamedDatabase| format!("{} (OID {})", quoted(&it.name), it.oid);
    databases.iter().map(shown).collect::<Vec<_>>().join(", ")
}

/// A name as SQL takes it.
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// What a person should know of databases that are left out, before a server has told what they are
/// called at the target.
pub fn warnings_of(left_out: &[NamedDatabase]) -> Vec<String> {
    let Some(one) = left_out.first() else { return Vec::new() };
    vec![
        format!(
            "Left out is the content of what was called {} when the backup began. The names are still there, and nothing of these databases can be had from this copy: `FATAL: relation mapping file \"base/{}/pg_filenode.map\" contains invalid data` is what a connection to one ends with, and no damage. A database that was copied from one of them since the backup with the strategy FILE_COPY, the only one up to PostgreSQL 14, is as empty.",
            listed(left_out),
            one.oid
        ),
        format!(
            "Drop them first of all. They may have been renamed since, so drop them by their numbers, in psql: SELECT pg_catalog.format('ALTER DATABASE %I IS_TEMPLATE false', datname), pg_catalog.format('DROP DATABASE %I', datname) FROM pg_catalog.pg_database WHERE oid OPERATOR(pg_catalog.=) ANY (ARRAY[{}]::pg_catalog.oid[]) \\gexec",
            oids(left_out, ", ")
        ),
    ]
}

/// What a person should know of `ignore_invalid_pages`, for which `--start` does all that is said.
pub fn warning_of_invalid_pages(left_out: &[NamedDatabase]) -> String {
    format!(
        "Recovery runs with ignore_invalid_pages, because it meets pages of the databases left out that have no content. `--start` proves that it met no other ones. If you start PostgreSQL yourself, start it with `-c log_min_messages=warning -c lc_messages=C`; this must find nothing in its log: `grep -E 'page [0-9]+ of relation .* (is uninitialized|does not exist)' LOG | grep -vE '/({})/'`. Then run `ALTER SYSTEM RESET ignore_invalid_pages`, which counts from the next start on.",
        oids(left_out, "|")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Vec<Database> {
        [(1, "template1"), (5, "postgres"), (16_384, "shop"), (16_400, "log\"s")]
            .map(|(oid, name)| Database { oid, name: name.as_bytes().to_vec().into() })
            .into()
    }

    #[test]
    fn postgresql_s_own_databases_are_always_restored() {
        let left_out = databases_left_out(Some(&known()), &["shop".into()]).unwrap();
        assert_eq!(left_out, [NamedDatabase { oid: 16_400, name: "log\"s".to_owned() }]);
        let warnings = warnings_of(&left_out).join("\n");
        assert!(warnings.contains("called \"log\"\"s\" (OID 16400) when"), "{warnings}");
        assert!(warnings.contains("\"base/16400/pg_filenode.map\""), "{warnings}");
        assert!(warnings.ends_with("ANY (ARRAY[16400]::pg_catalog.oid[]) \\gexec"), "{warnings}");
        assert!(warning_of_invalid_pages(&left_out).contains("'/(16400)/'"));
        let all = databases_left_out(Some(&known()), &[]).unwrap();
        assert_eq!((all.len(), warnings_of(&all)), (0, Vec::new()));
        assert_eq!(databases_left_out(Some(&known()), &["postgres".into()]).unwrap().len(), 2);
    }

    #[test]
    fn a_database_that_is_not_there_is_refused_with_those_that_are() {
        let error = databases_left_out(Some(&known()), &["Shop".into()]).unwrap_err();
        assert!(format!("{:?}", error.hint()).contains("shop, 'log\"s'"), "{error:?}");
        assert!(databases_left_out(None, &["shop".into()]).is_err());
    }
}
