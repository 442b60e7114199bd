//! Places that are within something a restore must not write into.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use seawall_core::{Code, Error, Result};
use seawall_pgdata::tablespace_map::TablespaceMap;

use crate::restored::resolved;

/// Proves that neither the data directory nor a tablespace goes into the repository or into a data
/// directory, by whatever names they are called: there they would be backed up, counted or removed
/// as what they are not. `repository` is its directory, if it is on this machine.
///
/// # Errors
/// [`Code::DirectoryNotEmpty`].
pub fn prove_outside(
    into: &Path,
    tablespaces: &TablespaceMap,
    repository: Option<&Path>,
) -> Result<()> {
    let tablespaces = tablespaces.tablespaces().iter();
    let places = tablespaces.map(|it| Path::new(OsStr::from_bytes(&it.path))).chain([into]);
    let repository = repository.map(resolved);
    for place in places {
        let real = resolved(place);
        if let Some(repository) = repository.as_ref().filter(|it| real.starts_with(it)) {
            return Err(inside(place, "the repository", repository));
        }
        if let Some(cluster) = real.ancestors().skip(1).find(|it| is_data_directory(it)) {
            return Err(inside(place, "the data directory", cluster));
        }
    }
    Ok(())
}

fn inside(place: &Path, what: &str, of: &Path) -> Error {
    let what = format!("{} is inside {what} {}", place.display(), of.display());
    Error::new(Code::DirectoryNotEmpty, what).with_hint(
        "Restore beside it: `--into` and `--map-tablespace` take any directory that is empty or not there yet.",
    )
}

fn is_data_directory(path: &Path) -> bool {
    path.join("PG_VERSION").exists() && path.join("global/pg_control").exists()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn nothing_is_restored_into_the_repository_or_a_data_directory() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for name in ["repository/packs", "data/global", "data/base", "free"] {
            fs::create_dir_all(path(name)).unwrap();
        }
        for name in ["data/PG_VERSION", "data/global/pg_control"] {
            fs::write(path(name), "").unwrap();
        }
        std::os::unix::fs::symlink(path("data/base"), path("link")).unwrap();
        let prove = |into: &str, tablespace: &str| {
            let line = format!("16390 {}\n", path(tablespace).display());
            let map = TablespaceMap::parse(line.as_bytes()).unwrap();
            prove_outside(&path(into), &map, Some(&path("repository")))
                .map_err(|error| error.code())
        };
        assert_eq!(prove("free/new", "free/ts"), Ok(()));
        assert_eq!(prove("repository-2", "data-2"), Ok(()));
        for place in ["repository", "repository/new", "data/new", "data/base/new", "link/new"] {
            assert_eq!(prove(place, "free/ts"), Err(Code::DirectoryNotEmpty), "{place}");
            assert_eq!(prove("free/new", place), Err(Code::DirectoryNotEmpty), "{place}");
        }
    }
}
