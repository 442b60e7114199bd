//! Configuration files that lay outside the data directory.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use seawall_core::{Code, Error, Result};
use seawall_repo::manifest::{ExternalFile, INCLUDED};

use super::super::durable::{create_directory, local, publish};
use super::includes::Included;
use super::settings::{Setting, append_settings};
use crate::config_text::{name_of, value_of};

/// Where files go whose usual place in the data directory is taken.
pub(super) const ELSEWHERE: &str = "seawall-restored";

/// What Debian has in `/run/postgresql`, which is the original cluster's.
const PID_FILE: &str = "external.pid";

/// What was placed or changed in the data directory.
#[derive(Debug, Default)]
pub(super) struct Placed {
    /// Paths relative to the data directory, and what is there now.
    pub files: Vec<(Vec<u8>, Vec<u8>)>,
    /// Settings for `postgresql.auto.conf`.
    pub settings: Vec<Setting>,
    /// What a person should know.
    pub notes: Vec<String>,
}

impl Placed {
    /// What is there of files that others include.
    fn included(&self) -> Vec<Vec<u8>> {
        let ends = |content: &Vec<u8>| [content.as_slice(), b"\n"].concat();
        self.files
            .iter()
            .filter(|(name, _)| name.ends_with(b".conf"))
            .map(|(_, it)| ends(it))
            .collect()
    }
}

/// Brings the files back.
///
/// `postgresql.conf` goes into the data directory, where a server started on it finds it, and is
/// told to stay there. So do the files it includes. `hba_file` and `ident_file` stay where they were if this host has them
/// there; else they come along too.
///
/// # Errors
/// [`Code::LocalIo`], [`Code::ObjectInconsistent`] for a setting that names no configuration file.
pub(super) fn place(files: &[ExternalFile], root: &Path, mode: u32) -> Result<Placed> {
    let mut placed = Placed::default();
    for file in files.iter().filter(|file| file.setting != INCLUDED) {
        let (name, setting) = match file.setting.as_str() {
            "config_file" => ("postgresql.conf", None),
            "hba_file" => ("pg_hba.conf", Some("hba_file")),
            "ident_file" => ("pg_ident.conf", Some("ident_file")),
            other => {
                return Err(Error::new(
                    Code::ObjectInconsistent,
                    format!("the backup has a file of setting \"{other}\", which names none"),
                ));
            }
        };
        let original = PathBuf::from(OsStr::from_bytes(&file.path));
        if setting.is_some() && original.exists() {
            continue;
        }
        let to = free_name(root, name, setting.is_some(), &file.content)?;
        let target = root.join(&to);
        publish(&target, &file.content, mode)?;
        placed.files.push((to.as_os_str().as_bytes().to_vec(), file.content.to_vec()));
        placed.notes.push(format!("{} was restored as {}.", original.display(), target.display()));
        if let Some(setting) = setting {
            placed.settings.push((setting, target.display().to_string()));
        }
    }
    Included::of(files, root).place(mode, &mut placed)?;
    Ok(placed)
}

/// The usual name, or one in a directory of its own if that is taken by other content.
fn free_name(root: &Path, name: &str, may_move: bool, content: &[u8]) -> Result<PathBuf> {
    let taken = fs::read(root.join(name)).is_ok_and(|there| there != content);
    if !may_move || !taken {
        return Ok(PathBuf::from(name));
    }
    create_directory(&root.join(ELSEWHERE), 0o700)?;
    Ok(Path::new(ELSEWHERE).join(name))
}

/// Makes the server that is started on `root` stay in it: a `data_directory` in `postgresql.conf`,
/// or in a file it includes, would lead it back to where the original cluster is, and an included
/// directory may be missing here.
///
/// # Errors
/// [`Code::LocalIo`].
pub(super) fn tie_to(root: &Path, mode: u32, placed: &mut Placed) -> Result<()> {
    let path = root.join("postgresql.conf");
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            placed.notes.push(
                "The backup has no postgresql.conf; give the server one before it is started."
                    .to_owned(),
            );
            return Ok(());
        }
        Err(error) => return Err(local(error, "read", &path)),
    };
    let mut settings: Vec<Setting> = Vec::new();
    let own_directory = || ("data_directory", root.display().to_string());
    let included = placed.included().concat();
    let lines = bytes.split(|byte| *byte == b'\n');
    for line in lines.chain(included.split(|byte| *byte == b'\n')) {
        match name_of(line).as_deref() {
            Some("data_directory" | "include" | "include_if_exists") => {
                settings.push(own_directory());
            }
            // An empty name is no way to have none: PostgreSQL tries to write it, and complains.
            Some("external_pid_file") => {
                let own = root.join(PID_FILE).display().to_string();
                settings.push(("external_pid_file", own));
            }
            Some("hba_file") => settings.extend(own_file(root, line, "hba_file", "pg_hba.conf")),
            Some("ident_file") => {
                settings.extend(own_file(root, line, "ident_file", "pg_ident.conf"));
            }
            Some("include_dir") => {
                settings.push(own_directory());
                make_included(root, line, placed)?;
            }
            _ => {}
        }
    }
    settings.sort();
    settings.dedup();
    if settings.is_empty() {
        return Ok(());
    }
    let changed = append_settings(&bytes, &settings);
    publish(&path, &changed, mode)?;
    placed.files.retain(|(name, _)| name != b"postgresql.conf");
    placed.files.push((b"postgresql.conf".to_vec(), changed));
    placed.notes.push(format!(
        "{} was told that its data is in {}.",
        path.display(),
        root.display()
    ));
    Ok(())
}

/// A file of the data directory that is named by where the data directory was.
fn own_file(root: &Path, line: &[u8], setting: &'static str, name: &str) -> Option<Setting> {
    let named = PathBuf::from(value_of(line)?);
    let own = root.join(name);
    (named.is_absolute() && !named.exists() && own.exists())
        .then(|| (setting, own.display().to_string()))
}

/// PostgreSQL does not start if a directory it is to include does not exist.
fn make_included(root: &Path, line: &[u8], placed: &mut Placed) -> Result<()> {
    let Some(value) = value_of(line).filter(|value| !value.starts_with('/')) else { return Ok(()) };
    let directory = root.join(&value);
    let inside = !Path::new(&value).components().any(|it| it == std::path::Component::ParentDir);
    if value.is_empty() || !inside || directory.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(&directory).map_err(|error| local(error, "creating", &directory))?;
    placed.notes.push(format!(
        "{} was made empty: postgresql.conf includes it, and the backup does not have it.",
        directory.display()
    ));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn external(setting: &str, path: &str, content: &str) -> ExternalFile {
        ExternalFile {
            setting: setting.to_owned(),
            path: path.as_bytes().to_vec().into(),
            content: content.as_bytes().to_vec().into(),
        }
    }

    #[test]
    fn debians_files_come_along_and_the_server_stays_in_its_directory() {
        let root = tempfile::tempdir().unwrap();
        let conf = "data_directory = '/var/lib/postgresql/15/main'\ninclude_dir = 'conf.d'\n\
             external_pid_file = '/var/run/postgresql/15-main.pid'\n";
        let files = [
            external("config_file", "/nowhere/postgresql.conf", conf),
            external("hba_file", "/nowhere/pg_hba.conf", "local all all peer\n"),
            external("ident_file", "/etc/passwd", "kept where it is\n"),
        ];
        let mut placed = place(&files, root.path(), 0o600).unwrap();
        tie_to(root.path(), 0o600, &mut placed).unwrap();
        let text = fs::read_to_string(root.path().join("postgresql.conf")).unwrap();
        let last = text.lines().rfind(|line| line.starts_with("data_directory")).unwrap();
        assert_eq!(last, format!("data_directory = '{}'", root.path().display()));
        let pid = format!("\nexternal_pid_file = '{}/external.pid'\n", root.path().display());
        assert!(text.contains(&pid), "{text}");
        assert!(root.path().join("conf.d").is_dir());
        let hba = root.path().join("pg_hba.conf").display().to_string();
        assert_eq!(placed.settings, [("hba_file", hba)]);
        assert!(!root.path().join("pg_ident.conf").exists());
        assert_eq!(placed.files.len(), 2);
        for (name, content) in &placed.files {
            let there = fs::read(root.path().join(OsStr::from_bytes(name))).unwrap();
            assert_eq!(&there, content);
        }
    }

    #[test]
    fn an_included_file_does_not_lead_the_server_away() {
        for include in ["include 'x.conf'", "include_if_exists = '/etc/x'", "Include_Dir 'conf.d'"]
        {
            let root = tempfile::tempdir().unwrap();
            fs::write(root.path().join("postgresql.conf"), format!("{include}\n")).unwrap();
            tie_to(root.path(), 0o600, &mut Placed::default()).unwrap();
            let text = fs::read_to_string(root.path().join("postgresql.conf")).unwrap();
            let own = format!("\ndata_directory = '{}'\n", root.path().display());
            assert!(text.starts_with(include) && text.contains(&own), "{text}");
        }
    }

    #[test]
    fn a_file_named_by_where_the_data_directory_was_is_found_in_the_new_one() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("pg_hba.conf"), "local all all peer\n").unwrap();
        let conf = "hba_file = '/nowhere/main/pg_hba.conf'\nident_file = '/etc/passwd'\n";
        fs::write(root.path().join("postgresql.conf"), conf).unwrap();
        let mut placed = Placed::default();
        tie_to(root.path(), 0o600, &mut placed).unwrap();
        let text = fs::read_to_string(root.path().join("postgresql.conf")).unwrap();
        let own = format!("\nhba_file = '{}'\n", root.path().join("pg_hba.conf").display());
        assert!(text.contains(&own) && !text.contains("\nident_file = '/tmp"), "{text}");
    }

    #[test]
    fn a_file_of_the_same_name_in_the_data_directory_is_kept() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("pg_hba.conf"), "unused").unwrap();
        let files = [external("hba_file", "/nowhere/pg_hba.conf", "local all all peer\n")];
        let placed = place(&files, root.path(), 0o600).unwrap();
        assert_eq!(fs::read(root.path().join("pg_hba.conf")).unwrap(), b"unused");
        assert_eq!(placed.files[0].0, b"seawall-restored/pg_hba.conf");
    }
}
