//! Somebody who writes files of a tree while it is backed up, and remembers every version.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};
use seawall_testkit::faults::Random;

use crate::tree::{Busy, Content, Version, append};

/// Nobody writes for ever: what is remembered is compared.
const CHANGES_MAX: u32 = 20_000;

/// Somebody at work.
pub struct Person {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Busy>>,
}

impl Person {
    /// Begins to work on the files of `busy`, which are below `root`.
    pub fn begin(root: PathBuf, mut busy: Busy, mut random: Random) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            for _ in 0..CHANGES_MAX {
                if busy.is_empty() || stopped.load(Ordering::Relaxed) {
                    break;
                }
                let number = random.below(busy.len() as u64) as usize;
                let (path, versions) = busy.iter_mut().nth(number).context("a file")?;
                change(&root, path, versions, &mut random)?;
                thread::sleep(random.delay(Duration::from_millis(2)));
            }
            Ok(busy)
        });
        Self { stop, thread }
    }

    /// Ends the work; what has become of the files.
    pub fn end(self) -> Result<Busy> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the person's thread")
    }
}

/// Changes one file in one of the ways that people do. A version is remembered before it is there.
fn change(
    root: &Path,
    path: &Path,
    versions: &mut Vec<Version>,
    random: &mut Random,
) -> Result<()> {
    let place = root.join(path);
    let new = Content::new(random.next_u64(), random.below(100_000));
    let last = versions.last().cloned().context("a version")?;
    match (last, random.below(8)) {
        // As careful programs do: written beside, outside the tree, and renamed.
        (Version::File(_) | Version::Growing { .. } | Version::Absent, 0..4) => {
            versions.push(Version::File(new));
            let beside = root.with_extension("new");
            new.write(&beside)?;
            fs::rename(&beside, &place)?;
        }
        (Version::File(_), 4) => {
            // As careless ones do: cut to nothing, and written anew.
            versions.push(Version::Growing { from: 0, to: new });
            new.write(&place)?;
            versions.push(Version::File(new));
        }
        (Version::File(old), 5) => {
            let shorter = Content::new(old.tag, random.below(old.length + 1));
            if old.filled == (0, old.length) {
                versions.push(Version::File(shorter));
                fs::OpenOptions::new().write(true).open(&place)?.set_len(shorter.length)?;
            }
        }
        (Version::File(old), 6) if old.filled == (0, old.length) => {
            let longer = Content::new(old.tag, old.length + 1 + random.below(50_000));
            versions.push(Version::Growing { from: old.length, to: longer });
            append(&place, &longer.bytes()[old.length as usize..])?;
            versions.push(Version::File(longer));
        }
        (Version::File(_), 7) => {
            versions.push(Version::Absent);
            fs::remove_file(&place)?;
            if random.below(2) == 0 {
                versions.push(Version::Directory);
                fs::create_dir(&place)?;
            }
        }
        (Version::Directory, _) => {
            versions.push(Version::Absent);
            fs::remove_dir(&place)?;
        }
        _ => {}
    }
    Ok(())
}
