//! Files outside the data directory that configuration files include.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use seawall_core::{Code, Error, Result};
use seawall_pgdata::exclusion::RESTORE_STATE_FILE;
use seawall_pgdata::tablespace_map::TablespaceMap;
use seawall_repo::manifest::{ExternalFile, INCLUDED};

use super::external::{ELSEWHERE, PID_FILE, Placed};
use super::settings::DISABLED;
use crate::config_text::{Include, include_of, name_of, quoted};
use crate::durable::{create_directory, publish};
use crate::stored::Layout;

/// Names in a data directory that a restore or the server gives, whether the backup has them or
/// not.
const RESERVED: [&str; 9] = [
    ELSEWHERE,
    PID_FILE,
    RESTORE_STATE_FILE,
    "pg_hba.conf",
    "pg_ident.conf",
    "postgresql.auto.conf",
    "postgresql.conf",
    "postmaster.opts",
    "postmaster.pid",
];

/// Included files, and where each comes to lie below the data directory. What lay beside
/// `postgresql.conf` lies beside it again; anything else keeps its whole path below a directory of
/// its own, and the lines that name it are changed.
pub(super) struct Included<'f> {
    root: &'f Path,
    /// Where `postgresql.conf` was, if that was outside the data directory too.
    main: Option<PathBuf>,
    files: &'f [ExternalFile],
    /// The first parts of the paths that the backup has.
    taken: &'f BTreeSet<Vec<u8>>,
    /// By where they were.
    places: BTreeMap<PathBuf, PathBuf>,
}

/// A file's content, and the empty directories that it includes.
struct Redirected {
    content: Vec<u8>,
    directories: Vec<PathBuf>,
}

impl<'f> Included<'f> {
    /// `taken` are the names in the backup's data directory. What is on disk tells nothing: an
    /// interrupted restore has left its own files there.
    pub fn of(files: &'f [ExternalFile], root: &'f Path, taken: &'f BTreeSet<Vec<u8>>) -> Self {
        let main = files.iter().find(|file| file.setting == "config_file").map(original);
        let mut new = Self { root, main, files, taken, places: BTreeMap::new() };
        let included = files.iter().filter(|file| file.setting == INCLUDED).map(original);
        new.places = included.map(|path| (path.clone(), new.place_of(&path))).collect();
        new
    }

    /// Where a file or directory comes to lie.
    fn place_of(&self, path: &Path) -> PathBuf {
        let beside = self.main.as_deref().and_then(Path::parent);
        let relative = beside.and_then(|beside| path.strip_prefix(beside).ok());
        match relative {
            Some(relative) if is_plain(relative) && self.is_free(relative) => relative.to_owned(),
            _ => elsewhere(path),
        }
    }

    /// Whether neither the backup nor a restore has anything of this name.
    fn is_free(&self, place: &Path) -> bool {
        let Some(first) = place.components().next() else { return false };
        let first = first.as_os_str();
        !self.taken.contains(first.as_bytes())
            && Layout::restores(first.as_bytes())
            && !RESERVED.iter().any(|name| first == *name)
            && !first.as_bytes().starts_with(RESTORE_STATE_FILE.as_bytes())
    }

    /// Writes the files, and makes the lines that include them name where they are now.
    pub fn place(&self, mode: u32, placed: &mut Placed) -> Result<()> {
        let layout = Layout::new(self.root.to_owned(), &TablespaceMap::default());
        let mut written = BTreeSet::new();
        for file in self.files.iter().filter(|file| file.setting == INCLUDED) {
            let path = original(file);
            let Some(place) = self.places.get(&path) else { continue };
            let target = layout.resolve(place.as_os_str().as_bytes())?;
            if !written.insert(place) {
                return Err(Error::new(
                    Code::ObjectInconsistent,
                    format!("the backup has the included file {} twice", path.display()),
                ));
            }
            self.make_parents(place, mode)?;
            let new = self.redirected(&file.content, path.parent(), place);
            publish(&target, &new.content, mode)?;
            placed.notes.push(format!("{} was restored as {}.", path.display(), target.display()));
            placed.files.push((place.as_os_str().as_bytes().to_vec(), new.content));
            self.make_empty(&new.directories, mode, placed)?;
        }
        self.redirect_main(mode, placed)
    }

    fn redirect_main(&self, mode: u32, placed: &mut Placed) -> Result<()> {
        let name = Path::new("postgresql.conf");
        let Ok(content) = fs::read(self.root.join(name)) else { return Ok(()) };
        let beside = self.main.as_deref().and_then(Path::parent);
        let new = self.redirected(&content, beside, name);
        self.make_empty(&new.directories, mode, placed)?;
        if new.content == content {
            return Ok(());
        }
        publish(&self.root.join(name), &new.content, mode)?;
        placed.files.retain(|(name, _)| name != b"postgresql.conf");
        placed.files.push((b"postgresql.conf".to_vec(), new.content));
        Ok(())
    }

    /// A file's content, with its includes led to where the files are now. `beside` is where the
    /// file was; `place` is where it is below the data directory.
    fn redirected(&self, content: &[u8], beside: Option<&Path>, place: &Path) -> Redirected {
        let mut new = Vec::with_capacity(content.len());
        let mut directories = Vec::new();
        for line in content.split_inclusive(|byte| *byte == b'\n') {
            let target = include_of(line)
                .and_then(|include| self.target(&include, beside, place, &mut directories));
            let (Some(target), Some(name)) = (target, name_of(line)) else {
                new.extend_from_slice(line);
                continue;
            };
            let value = quoted(self.root.join(target).as_os_str().as_bytes());
            new.extend_from_slice(DISABLED.as_bytes());
            new.extend_from_slice(line.trim_ascii_end());
            new.extend([b"\n", name.as_bytes(), b" ", &value, b"\n"].concat());
        }
        Redirected { content: new, directories }
    }

    /// Where an include has to lead, if not where it leads by itself. Directories to make are added
    /// to `directories`.
    fn target(
        &self,
        include: &Include,
        beside: Option<&Path>,
        place: &Path,
        directories: &mut Vec<PathBuf>,
    ) -> Option<PathBuf> {
        let (Include::File { path, .. } | Include::Directory(path)) = include;
        let was = match beside {
            Some(beside) => Some(beside.join(path)),
            None if path.is_absolute() => Some(path.clone()),
            None => None,
        };
        let by_itself = place.parent().map(|parent| parent.join(path));
        let is = match (include, &was) {
            (Include::File { .. }, was) => self.places.get(was.as_ref()?)?.clone(),
            (Include::Directory(_), was) => match was.as_ref().and_then(|was| self.full(was)) {
                Some(is) => is,
                None => {
                    let is = self.empty(was.as_deref(), by_itself.as_deref())?;
                    directories.push(is.clone());
                    is
                }
            },
        };
        (by_itself.as_deref() != Some(&is)).then_some(is)
    }

    /// Where the files of an included directory are, if it had any.
    fn full(&self, was: &Path) -> Option<PathBuf> {
        let mut places = self.places.iter();
        let (_, place) = places.find(|(path, _)| path.parent() == Some(was))?;
        place.parent().map(Path::to_owned)
    }

    /// Where an included directory without files is to be. PostgreSQL does not start if it does not
    /// exist. One that this host has stays what is meant: it may be part of the data directory.
    fn empty(&self, was: Option<&Path>, by_itself: Option<&Path>) -> Option<PathBuf> {
        let by_itself = by_itself?;
        let stays = by_itself.is_absolute() || is_plain(by_itself);
        if stays && self.root.join(by_itself).is_dir() {
            // Made by an interrupted restore or not, it is where it is to be.
            return None;
        }
        match was {
            Some(was) => Some(self.own(was).unwrap_or_else(|| self.place_of(was))),
            None => is_plain(by_itself).then(|| by_itself.to_owned()),
        }
    }

    /// A directory of the data directory that is named by where the data directory was.
    fn own(&self, was: &Path) -> Option<PathBuf> {
        let name = was.file_name().filter(|_| self.main.is_none())?;
        (self.taken.contains(name.as_bytes()) && self.root.join(name).is_dir())
            .then(|| PathBuf::from(name))
    }

    fn make_empty(&self, directories: &[PathBuf], mode: u32, placed: &mut Placed) -> Result<()> {
        for place in directories.iter().filter(|place| !self.root.join(place).is_dir()) {
            self.make_parents(&place.join("*.conf"), mode)?;
            placed.notes.push(format!(
                "{} was made empty: a configuration file includes this directory, and the backup has no files of it.",
                self.root.join(place).display()
            ));
        }
        Ok(())
    }

    fn make_parents(&self, place: &Path, file_mode: u32) -> Result<()> {
        // Who may read a file may enter its directory.
        let mode = file_mode | 0o100 | ((file_mode & 0o040) >> 2);
        let mut directory = self.root.to_owned();
        for component in place.parent().into_iter().flat_map(Path::components) {
            directory.push(component);
            if !directory.is_dir() {
                create_directory(&directory, mode)?;
            }
        }
        Ok(())
    }
}

fn original(file: &ExternalFile) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(&file.path))
}

/// Whether a path is of names only, and leads nowhere but down.
fn is_plain(path: &Path) -> bool {
    path.components().all(|component| matches!(component, Component::Normal(_)))
}

/// A path of its own for a file of any path, which stays below it: no two have the same.
fn elsewhere(path: &Path) -> PathBuf {
    const UP: &[u8] = b"up";
    let parts = path.components().filter_map(|component| match component {
        Component::Normal(name) => {
            let rest = name.as_bytes().strip_prefix(UP);
            let like_up = rest.is_some_and(|rest| rest.iter().all(|byte| *byte == b'_'));
            let bytes =
                if like_up { [name.as_bytes(), b"_"].concat() } else { name.as_bytes().to_vec() };
            Some(OsString::from_vec(bytes))
        }
        Component::ParentDir => Some(OsString::from_vec(UP.to_vec())),
        _ => None,
    });
    let parts: PathBuf = parts.collect();
    // Directly below are files that settings name.
    let above = if parts.components().count() == 1 { "up" } else { "" };
    Path::new(ELSEWHERE).join(above).join(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(setting: &str, path: &str, content: &str) -> ExternalFile {
        ExternalFile {
            setting: setting.to_owned(),
            path: path.as_bytes().to_vec().into(),
            content: content.as_bytes().to_vec().into(),
        }
    }

    fn placed(files: &[ExternalFile], root: &Path) -> String {
        let mut placed = Placed::default();
        let taken = BTreeSet::from([b"base".to_vec()]);
        Included::of(files, root, &taken).place(0o640, &mut placed).unwrap();
        for (name, content) in &placed.files {
            let there = fs::read(root.join(OsStr::from_bytes(name))).unwrap();
            assert_eq!(&there, content);
        }
        fs::read_to_string(root.join("postgresql.conf")).unwrap()
    }

    #[test]
    fn what_lay_beside_the_configuration_lies_beside_it_again_and_no_line_changes() {
        let root = tempfile::tempdir().unwrap();
        let main = "include_dir 'conf.d'\ninclude 'more/one.conf'\ninclude_if_exists '/etc/none'\n";
        fs::write(root.path().join("postgresql.conf"), main).unwrap();
        let files = [
            file("config_file", "/etc/pg/postgresql.conf", main),
            file(INCLUDED, "/etc/pg/conf.d/a.conf", "port = 1\n"),
            file(INCLUDED, "/etc/pg/more/one.conf", "include 'two.conf'\n"),
            file(INCLUDED, "/etc/pg/more/two.conf", "port = 2\n"),
        ];
        assert_eq!(placed(&files, root.path()), main);
        for (name, content) in
            [("conf.d/a.conf", "port = 1\n"), ("more/one.conf", "include 'two.conf'\n")]
        {
            assert_eq!(fs::read_to_string(root.path().join(name)).unwrap(), content);
        }
    }

    #[test]
    fn what_lay_elsewhere_or_whose_place_is_taken_is_led_to_where_it_is() {
        let root = tempfile::tempdir().unwrap();
        let main = "include '/srv/all.conf'\ninclude_dir '../common'\ninclude 'base/x.conf'\n";
        fs::write(root.path().join("postgresql.conf"), main).unwrap();
        fs::create_dir(root.path().join("base")).unwrap();
        let files = [
            file("config_file", "/etc/pg/postgresql.conf", main),
            file(INCLUDED, "/srv/all.conf", "include '/srv/deep.conf'\n"),
            file(INCLUDED, "/srv/deep.conf", "port = 1\n"),
            file(INCLUDED, "/etc/pg/../common/s.conf", "port = 2\n"),
            file(INCLUDED, "/etc/pg/base/x.conf", "port = 3\n"),
        ];
        let text = placed(&files, root.path());
        let own = root.path().join(ELSEWHERE).display().to_string();
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            lines,
            [
                format!("include '{own}/srv/all.conf'"),
                format!("include_dir '{own}/etc/pg/up/common'"),
                format!("include '{own}/etc/pg/base/x.conf'"),
            ]
        );
        let all = fs::read_to_string(root.path().join(ELSEWHERE).join("srv/all.conf")).unwrap();
        assert!(all.ends_with(&format!("\ninclude '{own}/srv/deep.conf'\n")), "{all}");
        assert!(!root.path().join("base/x.conf").exists());
    }

    #[test]
    fn nothing_is_written_outside_or_over_what_the_backup_has() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("room");
        fs::create_dir_all(dir.path().join("common")).unwrap();
        fs::create_dir_all(root.join("base")).unwrap();
        let precious = dir.path().join("common/s.conf");
        fs::write(&precious, "precious").unwrap();
        let main = "include 'conf.d/../../common/s.conf'\ninclude 'pg_hba.conf'\n\
             include 'seawall-restored/x.conf'\ninclude '/etc/pg/up/x.conf'\ninclude '../x.conf'\n";
        fs::write(root.join("postgresql.conf"), main).unwrap();
        fs::write(root.join("pg_hba.conf"), "the server's").unwrap();
        let files = [
            file("config_file", "/etc/pg/postgresql.conf", main),
            file(INCLUDED, "/etc/pg/conf.d/../../common/s.conf", "port = 1\n"),
            file(INCLUDED, "/etc/pg/pg_hba.conf", "port = 2\n"),
            file(INCLUDED, "/etc/pg/seawall-restored/x.conf", "port = 3\n"),
            file(INCLUDED, "/etc/pg/up/x.conf", "port = 4\n"),
            file(INCLUDED, "/etc/pg/../x.conf", "port = 5\n"),
        ];
        for _ in ["the first attempt", "one that goes on"] {
            let text = placed(&files, &root);
            let own = root.join(ELSEWHERE).display().to_string();
            for place in [
                "conf.d/up/up/common/s.conf",
                "pg_hba.conf",
                "seawall-restored/x.conf",
                "up/x.conf",
            ] {
                let line = format!("\ninclude '{own}/etc/pg/{place}'\n");
                assert!(text.contains(&line), "{line} in {text}");
                assert!(root.join(ELSEWHERE).join("etc/pg").join(place).exists(), "{place}");
            }
            assert_eq!(fs::read(root.join("up/x.conf")).unwrap(), b"port = 4\n");
            assert_eq!(fs::read(&precious).unwrap(), b"precious");
            assert_eq!(fs::read(root.join("pg_hba.conf")).unwrap(), b"the server's");
        }
    }

    #[test]
    fn a_restore_that_goes_on_finds_the_same_places() {
        let root = tempfile::tempdir().unwrap();
        let main = "include_dir 'conf.d'\n";
        let files = [
            file("config_file", "/etc/pg/postgresql.conf", main),
            file(INCLUDED, "/etc/pg/conf.d/a.conf", "port = 1\n"),
        ];
        for _ in 0..2 {
            fs::write(root.path().join("postgresql.conf"), main).unwrap();
            assert_eq!(placed(&files, root.path()), main);
        }
        assert!(!root.path().join(ELSEWHERE).exists());
    }

    #[test]
    fn an_included_directory_without_files_is_made_where_it_can_be() {
        let root = tempfile::tempdir().unwrap();
        let own = root.path().join(ELSEWHERE).display().to_string();
        let main = "include_dir '/nowhere/empty'\ninclude_dir 'conf.d'\ninclude_dir '/tmp'\n";
        let files = [file("config_file", "/etc/pg/postgresql.conf", main)];
        for files in [&files[..], &[]] {
            fs::write(root.path().join("postgresql.conf"), main).unwrap();
            let text = placed(files, root.path());
            let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
            let first = format!("include_dir '{own}/nowhere/empty'");
            assert_eq!(lines, [first.as_str(), "include_dir 'conf.d'", "include_dir '/tmp'"]);
            for made in [root.path().join("conf.d"), PathBuf::from(&own).join("nowhere/empty")] {
                assert!(made.is_dir(), "{}", made.display());
            }
            fs::remove_dir(root.path().join("conf.d")).unwrap();
        }
    }
}
