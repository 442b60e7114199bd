use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use seawall_core::{Code, Error, Result, ResultExt};
use seawall_pgdata::PgMajor;
use seawall_pgdata::relation_path::tablespace_version_directory;
use seawall_pgdata::tablespace_map::TablespaceMap;

use super::directory::{names, prove_parent};
use crate::restore::TablespaceMapping;

/// Where the tablespaces of a backup go: its map, with other places filled in.
///
/// # Errors
/// [`Code::Usage`] for a mapping of a tablespace the backup does not have, or onto a place no
/// tablespace can have.
pub fn remap(bytes: &[u8], mappings: &[TablespaceMapping], into: &Path) -> Result<TablespaceMap> {
    let mut map = TablespaceMap::parse(bytes).code(Code::ObjectInconsistent, || {
        "the backup's tablespace_map cannot be read".to_owned()
    })?;
    let original = map.clone();
    for mapping in mappings {
        let old = mapping.old.as_os_str().as_bytes();
        let found = original.tablespaces().iter().find(|it| it.path == old);
        let Some(found) = found else { return Err(no_tablespace(&original, &mapping.old)) };
        map.remap(found.oid, mapping.new.as_os_str().as_bytes()).code(Code::Usage, || {
            format!("cannot restore a tablespace to {}", mapping.new.display())
        })?;
    }
    let places: Vec<PathBuf> = map
        .tablespaces()
        .iter()
        .map(|it| PathBuf::from(OsStr::from_bytes(&it.path)))
        .chain([into.to_owned()])
        .collect();
    for (index, one) in places.iter().enumerate() {
        for other in places.iter().skip(index + 1) {
            if one.starts_with(other) || other.starts_with(one) {
                return Err(Error::new(
                    Code::Usage,
                    format!("{} and {} lie within each other", one.display(), other.display()),
                )
                .with_hint(
                    "Give every tablespace a place of its own: `--map-tablespace OLD=NEW`.",
                ));
            }
        }
    }
    Ok(map)
}

/// Looks at the places of tablespaces, and writes nothing. A restore that goes on finds its own
/// files there.
///
/// # Errors
/// [`Code::DirectoryNotEmpty`].
pub fn look(map: &TablespaceMap, major: PgMajor, resumed: bool) -> Result<()> {
    let own = tablespace_version_directory(major);
    for tablespace in map.tablespaces() {
        let path = Path::new(OsStr::from_bytes(&tablespace.path));
        if path.symlink_metadata().is_err() {
            prove_parent(path)?;
            continue;
        }
        let ours = path.is_dir() && names(path)?.iter().all(|name| resumed && *name == *own);
        if !ours {
            return Err(Error::new(
                Code::DirectoryNotEmpty,
                format!(
                    "{}, the place of tablespace {}, is not an empty directory",
                    path.display(),
                    tablespace.oid
                ),
            )
            .with_hint(format!(
                "Restore it to another place: `--map-tablespace {}=/new/directory`.",
                path.display()
            )));
        }
    }
    Ok(())
}

fn no_tablespace(map: &TablespaceMap, old: &Path) -> Error {
    let known: Vec<String> =
        map.tablespaces().iter().map(|it| String::from_utf8_lossy(&it.path).into_owned()).collect();
    let hint = if known.is_empty() {
        "The backup has no tablespaces; leave `--map-tablespace` out.".to_owned()
    } else {
        format!("The backup has these: {}.", known.join(", "))
    };
    Error::new(Code::Usage, format!("the backup has no tablespace at {}", old.display()))
        .with_hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const MAP: &[u8] = b"16390 /srv/fast\n16391 /srv/slow\n";

    fn mapping(old: &str, new: &Path) -> TablespaceMapping {
        TablespaceMapping { old: old.into(), new: new.to_owned() }
    }

    #[test]
    fn tablespaces_are_put_where_the_user_says() {
        let into = Path::new("/into");
        let map = remap(MAP, &[mapping("/srv/fast", Path::new("/new"))], into).unwrap();
        assert_eq!(map.to_bytes(), b"16390 /new\n16391 /srv/slow\n");
        for (old, new) in [
            ("/srv/other", "/new"),
            ("/srv/fast", "new"),
            ("/srv/fast", "/srv/slow"),
            ("/srv/fast", "/into/ts"),
            ("/srv/fast", "/"),
        ] {
            let error = remap(MAP, &[mapping(old, Path::new(new))], into).expect_err(new);
            assert_eq!(error.code(), Code::Usage, "{old} to {new}");
        }
    }

    #[test]
    fn e57_a_place_with_anything_in_it_is_refused_with_the_way_out() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("ts");
        let line = format!("16390 {}\n", place.display());
        let map = TablespaceMap::parse(line.as_bytes()).unwrap();
        look(&map, PgMajor::V15, false).unwrap();
        fs::create_dir_all(place.join("PG_15_202209061")).unwrap();
        let error = look(&map, PgMajor::V15, false).unwrap_err();
        assert_eq!(error.code(), Code::DirectoryNotEmpty);
        assert!(error.hint().unwrap().contains("--map-tablespace"), "{error:?}");
        look(&map, PgMajor::V15, true).unwrap();
        fs::write(place.join("mine"), "x").unwrap();
        assert_eq!(look(&map, PgMajor::V15, true).unwrap_err().code(), Code::DirectoryNotEmpty);
    }
}
