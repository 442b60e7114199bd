//! The places of tablespaces that a restore goes onto.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use seawall_core::{Code, Error, Oid, Result};
use seawall_pgdata::tablespace_map::TablespaceMap;

use super::Delta;
use super::living::refuse_living;
use crate::cluster::TablespaceLinks;
use crate::restore::preflight::prove_parent;
use crate::restored::{Noted, TablespaceNote, names, resolved};

/// Looks at the places that tablespaces of the backup are restored to, and writes nothing. One is the
/// data directory's own if its note says so, or where it has none, if the link in `pg_tblspc` leads
/// there.
///
/// # Errors
/// [`Code::DirectoryNotEmpty`]; [`Code::PostmasterRunning`] if another server has one.
pub(in crate::restore) fn look(into: &Path, map: &TablespaceMap, delta: Delta) -> Result<()> {
    let places = map.tablespaces().iter().map(|it| Path::new(OsStr::from_bytes(&it.path)));
    refuse_living(into, &places.collect::<Vec<_>>())?;
    for tablespace in map.tablespaces() {
        let place = Path::new(OsStr::from_bytes(&tablespace.path));
        if place.symlink_metadata().is_err() {
            prove_parent(place)?;
            continue;
        }
        let is_own = place.is_dir() && is_own(into, tablespace.oid, place)?;
        if !(is_own || delta.force && place.is_dir()) {
            let (place, oid) = (place.display(), tablespace.oid);
            let what = format!(
                "{place}, the place of tablespace {oid}, is not empty, and nothing tells that it is the cluster's"
            );
            return Err(Error::new(Code::DirectoryNotEmpty, what).with_hint(
                "Restore it to another place, `--map-tablespace OLD=NEW`; or, if you know that it is, `--force` takes it for that.",
            ));
        }
    }
    Ok(())
}

fn is_own(into: &Path, oid: Oid, place: &Path) -> Result<bool> {
    let found = names(place)?;
    Ok(match TablespaceNote::read(place)? {
        Noted::By(note) if note.is_for(into) => true,
        Noted::By(note) if found.len() > 1 || !note.is_over(place)? => {
            return Err(note.refused(place));
        }
        Noted::By(_) => true,
        Noted::Torn if found.len() == 1 => true,
        Noted::Not | Noted::Torn => {
            found.is_empty() || target(into, oid).is_some_and(|it| it == resolved(place))
        }
    })
}

/// Where a link in `pg_tblspc` leads.
fn target(into: &Path, oid: Oid) -> Option<PathBuf> {
    let directory = into.join("pg_tblspc");
    let target = fs::read_link(directory.join(oid.to_string())).ok()?;
    Some(resolved(&directory.join(target)))
}

/// The places of tablespaces that the directory has and the backup has not. Replay may make them
/// again, and wants them empty.
///
/// # Errors
/// [`Code::LocalIo`] for a note that cannot be read.
pub(in crate::restore) fn surplus(
    into: &Path,
    map: &TablespaceMap,
) -> Result<BTreeMap<Oid, PathBuf>> {
    // Without `pg_tblspc`, or with something else in its place, there are none.
    let Ok(links) = TablespaceLinks::of(into) else { return Ok(BTreeMap::new()) };
    let known: Vec<PathBuf> = map
        .tablespaces()
        .iter()
        .map(|it| resolved(Path::new(OsStr::from_bytes(&it.path))))
        .collect();
    let mut surplus = BTreeMap::new();
    for oid in links.oids() {
        let Some(place) = target(into, oid).filter(|place| place.is_dir()) else { continue };
        let is_of_backup = map.tablespaces().iter().any(|it| it.oid == oid);
        let is_apart = known.iter().all(|it| !it.starts_with(&place) && !place.starts_with(it))
            && !place.starts_with(resolved(into));
        let is_another_s =
            matches!(TablespaceNote::read(&place)?, Noted::By(note) if !note.is_for(into));
        if !is_of_backup && is_apart && !is_another_s {
            surplus.insert(oid, place);
        }
    }
    Ok(surplus)
}
