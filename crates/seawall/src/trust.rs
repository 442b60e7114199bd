//! Writing as root where somebody else decides what a path leads to.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use seawall_core::{Code, Error, Result};

use crate::owner::Owner;

/// As many links as Linux follows.
const LINKS_MAX: usize = 40;

/// Whom root has to act as to touch `path`: the owner of the first directory or link on the way that
/// is not root's. A link planted there then leads to nothing that its owner could not have changed.
/// Anybody but root acts as themselves.
pub fn who_touches(path: &Path) -> Owner {
    let current = Owner::current();
    let first = if current.is_root() { deciders(path).into_iter().next() } else { None };
    first.unwrap_or(current)
}

/// Proves that nobody but root and `owner`, as whom files are written, decides what `path` leads to.
/// Whoever else has a directory on the way could put a link there, and what is written would land in
/// other files of `owner`.
///
/// # Errors
/// [`Code::WrongUser`]
pub fn prove_own_way(path: &Path, owner: &Owner) -> Result<()> {
    if !Owner::current().is_root() {
        return Ok(());
    }
    let Some(whose) = deciders(path).into_iter().find(|whose| whose != owner) else {
        return Ok(());
    };
    let (shown, name) = (path.display(), whose.name());
    let what = format!(
        "on the way to {shown} is something of {name}, who could lead what {} writes elsewhere",
        owner.name()
    );
    Err(Error::new(Code::WrongUser, what).with_hint(format!(
        "Choose a directory below those of root or {} alone, or restore as {name}: `{}`.",
        owner.name(),
        whose.again()
    )))
}

/// Whether only root and this process's user put something into a directory.
pub fn is_own_directory(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|directory| {
        let whose = Owner::numbered(directory.uid(), directory.gid());
        directory.mode() & 0o022 == 0 && (whose.is_root() || whose.is_current())
    })
}

/// The owners of the directories and links on the way that are not root's, in their order.
fn deciders(path: &Path) -> Vec<Owner> {
    let mut left: VecDeque<OsString> = parts(path);
    let (mut at, mut links, mut found) = (PathBuf::from("/"), 0, Vec::new());
    while let Some(part) = left.pop_front() {
        if part == ".." {
            at.pop();
            continue;
        }
        let next = at.join(&part);
        // What is not there yet is made by whoever acts then.
        let Ok(metadata) = fs::symlink_metadata(&next) else { break };
        if (metadata.is_dir() || metadata.is_symlink()) && metadata.uid() != 0 {
            found.push(Owner::numbered(metadata.uid(), metadata.gid()));
        }
        if !metadata.is_symlink() {
            at = next;
            continue;
        }
        links += 1;
        let Some(target) = fs::read_link(&next).ok().filter(|_| links <= LINKS_MAX) else { break };
        if target.is_absolute() {
            at = PathBuf::from("/");
        }
        let mut parts = parts(&target);
        parts.append(&mut left);
        left = parts;
    }
    found
}

fn parts(path: &Path) -> VecDeque<OsString> {
    let named = |component: Component<'_>| match component {
        Component::Normal(_) | Component::ParentDir => Some(component.as_os_str().to_owned()),
        _ => None,
    };
    path.components().filter_map(named).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{lchown, symlink};

    use super::*;

    #[test]
    fn whoever_may_plant_a_link_on_the_way_decides() {
        let decides = |path: &Path| deciders(path).into_iter().next();
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap();
        assert_eq!(decides(Path::new("/etc/passwd")), None);
        if !Owner::current().is_root() {
            assert_eq!(decides(&root.join("x")), Some(Owner::current()));
            return;
        }
        let theirs = root.join("theirs");
        for name in ["theirs", "ours"] {
            fs::create_dir(root.join(name)).unwrap();
        }
        let nobody = Owner::named("nobody").unwrap();
        nobody.give(&theirs).unwrap();
        symlink(root.join("ours"), theirs.join("back")).unwrap();
        symlink("theirs/back", root.join("there-and-back")).unwrap();
        symlink("ours", root.join("link")).unwrap();
        for (path, owner) in [
            ("ours/x", None),
            ("link/x", None),
            ("theirs/x", Some(&nobody)),
            ("theirs/back/x", Some(&nobody)),
            ("there-and-back/x", Some(&nobody)),
            ("ours/../theirs/x", Some(&nobody)),
        ] {
            assert_eq!(decides(&root.join(path)).as_ref(), owner, "{path}");
        }
        assert!(prove_own_way(&root.join("ours/x"), &nobody).is_ok());
        assert!(prove_own_way(&root.join("theirs/x"), &nobody).is_ok());
        nobody.give(&root.join("ours")).unwrap();
        fs::create_dir(root.join("ours/below")).unwrap();
        lchown(root.join("ours/below"), Some(1), Some(1)).unwrap();
        assert!(prove_own_way(&root.join("ours/below/x"), &nobody).is_err(), "further down");
        // A container's user, who has no entry here, is one whatever the groups.
        fs::create_dir_all(root.join("volume/data")).unwrap();
        lchown(root.join("volume"), Some(54_321), Some(7)).unwrap();
        lchown(root.join("volume/data"), Some(54_321), Some(8)).unwrap();
        let of_container = Owner::of(&root.join("volume/data")).unwrap();
        assert!(prove_own_way(&root.join("volume/data/x"), &of_container).is_ok());

        let daemon = Owner::named("daemon").unwrap();
        let error = prove_own_way(&root.join("theirs/x"), &daemon).unwrap_err();
        assert!(format!("{:?}", error.hint()).contains("sudo -u nobody"), "{error:?}");
        assert!(!is_own_directory(Path::new("/tmp")) && !is_own_directory(&theirs));
        assert!(is_own_directory(Path::new("/etc")));

        lchown(root.join("link"), Some(65_534), None).unwrap();
        assert!(decides(&root.join("link/x")).is_some());
    }
}
