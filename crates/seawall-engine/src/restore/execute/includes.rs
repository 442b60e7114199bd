//! Files outside the data directory that configuration files include.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use seawall_core::Result;
use seawall_repo::manifest::{ExternalFile, INCLUDED};

use super::super::durable::{create_directory, publish};
use super::external::{ELSEWHERE, Placed};
use super::settings::DISABLED;
use crate::config_text::{Include, include_of, name_of, quoted};

/// Included files, and where each comes to lie below the data directory. What lay beside
/// `postgresql.conf` lies beside it again; anything else keeps its whole path below a directory of
/// its own, and the lines that name it are changed.
pub(super) struct Included<'f> {
    root: &'f Path,
    /// Where `postgresql.conf` was, if that was outside the data directory too.
    main: Option<PathBuf>,
    files: &'f [ExternalFile],
    /// By where they were.
    places: BTreeMap<PathBuf, PathBuf>,
}

impl<'f> Included<'f> {
    pub fn of(files: &'f [ExternalFile], root: &'f Path) -> Self {
        let main = files.iter().find(|file| file.setting == "config_file").map(original);
        let beside = main.as_deref().and_then(Path::parent);
        let place = |file: &ExternalFile| {
            let path = original(file);
            let relative = beside.and_then(|beside| path.strip_prefix(beside).ok());
            let first = relative.and_then(|path| path.components().next());
            let place = match (relative, first) {
                (Some(relative), Some(first)) if !root.join(first).exists() => relative.to_owned(),
                _ => elsewhere(&path),
            };
            (path, place)
        };
        let included = files.iter().filter(|file| file.setting == INCLUDED);
        Self { root, places: included.map(place).collect(), main, files }
    }

    /// Writes the files, and makes the lines that include them name where they are now.
    pub fn place(&self, mode: u32, placed: &mut Placed) -> Result<()> {
        for file in self.files.iter().filter(|file| file.setting == INCLUDED) {
            let path = original(file);
            let Some(place) = self.places.get(&path) else { continue };
            let target = self.root.join(place);
            self.make_parents(place, mode)?;
            let content = self.redirected(&file.content, path.parent(), place);
            publish(&target, &content, mode)?;
            placed.notes.push(format!("{} was restored as {}.", path.display(), target.display()));
            placed.files.push((place.as_os_str().as_bytes().to_vec(), content));
        }
        self.redirect_main(mode, placed)
    }

    fn redirect_main(&self, mode: u32, placed: &mut Placed) -> Result<()> {
        let name = Path::new("postgresql.conf");
        let Ok(content) = fs::read(self.root.join(name)) else { return Ok(()) };
        let beside = self.main.as_deref().and_then(Path::parent);
        let redirected = self.redirected(&content, beside, name);
        if redirected == content {
            return Ok(());
        }
        publish(&self.root.join(name), &redirected, mode)?;
        placed.files.retain(|(name, _)| name != b"postgresql.conf");
        placed.files.push((b"postgresql.conf".to_vec(), redirected));
        Ok(())
    }

    /// A file's content, with its includes led to where the files are now. `beside` is where the
    /// file was; `place` is where it is below the data directory.
    fn redirected(&self, content: &[u8], beside: Option<&Path>, place: &Path) -> Vec<u8> {
        let mut new = Vec::with_capacity(content.len());
        for line in content.split_inclusive(|byte| *byte == b'\n') {
            let target = include_of(line).and_then(|include| self.target(&include, beside, place));
            let (Some(target), Some(name)) = (target, name_of(line)) else {
                new.extend_from_slice(line);
                continue;
            };
            let value = quoted(&self.root.join(target).display().to_string());
            new.extend_from_slice(DISABLED.as_bytes());
            new.extend_from_slice(line.trim_ascii_end());
            new.extend_from_slice(format!("\n{name} {value}\n").as_bytes());
        }
        new
    }

    /// Where an include has to lead, if not where it leads by itself.
    fn target(&self, include: &Include, beside: Option<&Path>, place: &Path) -> Option<PathBuf> {
        let (Include::File { path, .. } | Include::Directory(path)) = include;
        let was = match beside {
            Some(beside) => beside.join(path),
            None if path.starts_with('/') => PathBuf::from(path),
            None => return None,
        };
        let is = match include {
            Include::File { .. } => self.places.get(&was)?.clone(),
            Include::Directory(_) => {
                let inside = self.places.iter().find(|(path, _)| path.parent() == Some(&was));
                inside.and_then(|(_, place)| place.parent())?.to_owned()
            }
        };
        let by_itself = place.parent().map(|parent| parent.join(path));
        (by_itself.as_deref() != Some(&is)).then_some(is)
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

/// A path of its own for a file of any path, which stays below it.
fn elsewhere(path: &Path) -> PathBuf {
    let parts = path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name),
        Component::ParentDir => Some(OsStr::new("up")),
        _ => None,
    });
    Path::new(ELSEWHERE).join(parts.collect::<PathBuf>())
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
        Included::of(files, root).place(0o640, &mut placed).unwrap();
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
        let main = "include '/srv/all.conf'\ninclude_dir '../shared'\ninclude 'base/x.conf'\n";
        fs::write(root.path().join("postgresql.conf"), main).unwrap();
        fs::create_dir(root.path().join("base")).unwrap();
        let files = [
            file("config_file", "/etc/pg/postgresql.conf", main),
            file(INCLUDED, "/srv/all.conf", "include '/srv/deep.conf'\n"),
            file(INCLUDED, "/srv/deep.conf", "port = 1\n"),
            file(INCLUDED, "/etc/pg/../shared/s.conf", "port = 2\n"),
            file(INCLUDED, "/etc/pg/base/x.conf", "port = 3\n"),
        ];
        let text = placed(&files, root.path());
        let own = root.path().join(ELSEWHERE).display().to_string();
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            lines,
            [
                format!("include '{own}/srv/all.conf'"),
                format!("include_dir '{own}/etc/pg/up/shared'"),
                format!("include '{own}/etc/pg/base/x.conf'"),
            ]
        );
        let all = fs::read_to_string(root.path().join(ELSEWHERE).join("srv/all.conf")).unwrap();
        assert!(all.ends_with(&format!("\ninclude '{own}/srv/deep.conf'\n")), "{all}");
        assert!(!root.path().join("base/x.conf").exists());
    }
}
