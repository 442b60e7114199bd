use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use seawall_core::{Code, Error, Result, ResultExt, Ulid, shell_escaped};
use seawall_pgdata::PgMajor;
use seawall_pgdata::relation_path::tablespace_version_directory;
use seawall_pgdata::tablespace_map::TablespaceMap;

use super::directory::prove_parent;
use crate::restored::{Noted, TablespaceMapping, TablespaceNote, names, resolved};

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
        if mappings.iter().filter(|other| other.old == mapping.old).count() > 1 {
            let old = mapping.old.display();
            return Err(Error::new(Code::Usage, format!("{old} is mapped twice"))
                .with_hint("Name one new place for every old one."));
        }
        map.remap(found.oid, mapping.new.as_os_str().as_bytes()).code(Code::Usage, || {
            format!("cannot restore a tablespace to {}", mapping.new.display())
        })?;
    }
    let tablespaces = map.tablespaces().iter().map(|it| Path::new(OsStr::from_bytes(&it.path)));
    prove_apart(&tablespaces.chain([into]).collect::<Vec<_>>())?;
    Ok(map)
}

/// Proves that no directory lies within another, by whatever names they are called: in one
/// directory the files of two tablespaces would overwrite each other.
fn prove_apart(places: &[&Path]) -> Result<()> {
    let real: Vec<PathBuf> = places.iter().map(|place| resolved(place)).collect();
    for (index, one) in real.iter().enumerate() {
        for (other, name) in real.iter().zip(places).skip(index + 1) {
            if one.starts_with(other) || other.starts_with(one) {
                let one = places.get(index).copied().unwrap_or(one).display();
                let what = format!("{one} and {} lie within each other", name.display());
                return Err(Error::new(Code::Usage, what).with_hint(
                    "Give every tablespace a place of its own: `--map-tablespace OLD=NEW`.",
                ));
            }
        }
    }
    Ok(())
}

/// Looks at the places of tablespaces, and writes nothing. A restore that goes on, of that id, finds
/// its own files there, beside the note that says so.
///
/// # Errors
/// [`Code::DirectoryNotEmpty`].
pub fn look(map: &TablespaceMap, major: PgMajor, resumed: Option<Ulid>) -> Result<()> {
    let own = tablespace_version_directory(major);
    for tablespace in map.tablespaces() {
        let path = Path::new(OsStr::from_bytes(&tablespace.path));
        if path.symlink_metadata().is_err() {
            prove_parent(path)?;
            continue;
        }
        if !path.is_dir() || !is_free(path, &own, resumed)? {
            return Err(Error::new(
                Code::DirectoryNotEmpty,
                format!(
                    "{}, the place of tablespace {}, is not an empty directory",
                    path.display(),
                    tablespace.oid
                ),
            )
            .with_hint(format!(
                "Restore it to another place: `--map-tablespace {}`.",
                shell_word(&mapping_from(&tablespace.path))
            )));
        }
    }
    Ok(())
}

/// Whether a directory is empty, or that restore's.
fn is_free(place: &Path, own: &str, resumed: Option<Ulid>) -> Result<bool> {
    let found = names(place)?;
    Ok(match TablespaceNote::read(place)? {
        Noted::Not => found.is_empty(),
        // The note itself is all that was written.
        Noted::Torn => found.len() == 1,
        Noted::By(note) if resumed != Some(note.restore_id) => {
            if found.len() > 1 || !note.is_over(place)? {
                return Err(note.refused(place));
            }
            true
        }
        Noted::By(_) => {
            found.iter().all(|name| *name == *own || *name == *TablespaceNote::FILE_NAME)
        }
    })
}

/// A mapping of a tablespace to a place that is to be filled in.
fn mapping_from(old: &[u8]) -> Vec<u8> {
    let mut mapping = Vec::new();
    for byte in old {
        if *byte == b'=' {
            mapping.push(b'\\');
        }
        mapping.push(*byte);
    }
    mapping.extend_from_slice(b"=/new/directory");
    mapping
}

/// What a shell takes for these bytes.
fn shell_word(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => format!("'{}'", text.replace('\'', r"'\''")),
        Err(_) => shell_escaped(bytes),
    }
}

fn no_tablespace(map: &TablespaceMap, old: &Path) -> Error {
    let known: Vec<String> = map.tablespaces().iter().map(|it| shell_word(&it.path)).collect();
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
    use std::fs;

    use super::*;

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
        let refused = |resumed| look(&map, PgMajor::V15, resumed).err().map(|error| error.code());
        let (ours, another) = (Some(Ulid(1)), Some(Ulid(2)));
        assert_eq!(refused(None), None);
        fs::create_dir_all(place.join("PG_15_202209061")).unwrap();
        let error = look(&map, PgMajor::V15, None).unwrap_err();
        assert_eq!(error.code(), Code::DirectoryNotEmpty);
        assert!(format!("{:?}", error.hint()).contains("--map-tablespace"), "{error:?}");
        // Every server's directory has that name.
        assert_eq!(refused(ours), Some(Code::DirectoryNotEmpty));
        TablespaceNote::claim(&place, Ulid(1), Path::new("/into"), 0o600).unwrap();
        assert_eq!(refused(ours), None);
        for not_ours in [None, another] {
            assert_eq!(refused(not_ours), Some(Code::DirectoryNotEmpty));
        }
        fs::write(place.join("mine"), "x").unwrap();
        assert_eq!(refused(ours), Some(Code::DirectoryNotEmpty));
    }
}
