//! Configuration files that lay outside the data directory.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use seawall_core::{Code, Error, Result};
use seawall_repo::manifest::{ExternalFile, INCLUDED};

use super::includes::Included;
use super::settings::{Setting, append_settings, setting};
use crate::config_text::{Include, conf_files, include_of, name_of, path_of};
use crate::durable::{create_directory, local, publish};

/// Where files go whose usual place in the data directory is taken.
pub(super) const ELSEWHERE: &str = "seawall-restored";

/// What Debian has in `/run/postgresql`, which is the original cluster's.
pub(super) const PID_FILE: &str = "external.pid";

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

/// Brings the files back.
///
/// `postgresql.conf` goes into the data directory, where a server started on it finds it, and is
/// told to stay there. So do the files it includes. `hba_file` and `ident_file` stay where they were
/// if this host has them there; else they come along too. `taken` are the names in the backup's data
/// directory.
///
/// # Errors
/// [`Code::LocalIo`], [`Code::ObjectInconsistent`] for a setting that names no configuration file.
pub(super) fn place(
    files: &[ExternalFile],
    root: &Path,
    taken: &BTreeSet<Vec<u8>>,
    mode: u32,
) -> Result<Placed> {
    let mut placed = Placed::default();
    for file in files.iter().filter(|file| file.setting != INCLUDED) {
        let (name, setting_named) = match file.setting.as_str() {
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
        if setting_named.is_some() && original.exists() {
            continue;
        }
        let to = free_name(root, name, setting_named.is_some(), &file.content)?;
        let target = root.join(&to);
        publish(&target, &file.content, mode)?;
        placed.files.push((to.as_os_str().as_bytes().to_vec(), file.content.to_vec()));
        placed.notes.push(format!("{} was restored as {}.", original.display(), target.display()));
        if let Some(named) = setting_named {
            placed.settings.push(setting(named, bytes_of(&target)));
        }
    }
    Included::of(files, root, taken).place(mode, &mut placed)?;
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
/// or in a file it includes, would lead it back to where the original cluster is, and so would the
/// names of other files.
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
    let mut read = BTreeSet::new();
    for line in lines_read(&path, &mut read) {
        if matches!(
            name_of(&line).as_deref(),
            Some("data_directory" | "include" | "include_if_exists" | "include_dir")
        ) {
            settings.push(setting("data_directory", bytes_of(root)));
        }
        settings.extend(own_name(root, &line));
    }
    // What is set there counts whatever postgresql.conf says.
    for line in lines_read(&root.join("postgresql.auto.conf"), &mut read) {
        let named = |(name, _): &Setting| placed.settings.iter().any(|(other, _)| other == name);
        placed.settings.extend(own_name(root, &line).filter(|setting| !named(setting)));
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
    let named = path_of(line)?;
    let own = root.join(name);
    (named.is_absolute() && !named.exists() && own.exists())
        .then(|| (setting.to_owned(), bytes_of(&own)))
}

/// A path as configuration files have it.
fn bytes_of(path: &Path) -> Vec<u8> {
    path.as_os_str().as_bytes().to_vec()
}

/// What a line has to set instead, where it names a file that may be the original cluster's.
fn own_name(root: &Path, line: &[u8]) -> Option<Setting> {
    match name_of(line)?.as_str() {
        // An empty name is no way to have none: PostgreSQL tries to write it, and complains.
        "external_pid_file" => Some(setting("external_pid_file", bytes_of(&root.join(PID_FILE)))),
        "hba_file" => own_file(root, line, "hba_file", "pg_hba.conf"),
        "ident_file" => own_file(root, line, "ident_file", "pg_ident.conf"),
        _ => None,
    }
}

/// The lines of a configuration file and of all it includes, whatever those are called, as the
/// restored server will read them. `read` are the files that were read already.
fn lines_read(path: &Path, read: &mut BTreeSet<PathBuf>) -> Vec<Vec<u8>> {
    if !read.insert(path.to_owned()) {
        return Vec::new();
    }
    // What is missing or cannot be read is for the server to tell.
    let content = fs::read(path).unwrap_or_default();
    let beside = path.parent().unwrap_or(path);
    let mut lines = Vec::new();
    for line in content.split(|byte| *byte == b'\n') {
        lines.push(line.to_vec());
        let included = match include_of(line) {
            Some(Include::File { path, .. }) => vec![beside.join(path)],
            Some(Include::Directory(path)) => conf_files(&beside.join(path)).unwrap_or_default(),
            None => Vec::new(),
        };
        for path in included {
            lines.extend(lines_read(&path, read));
        }
    }
    lines
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
        let mut placed = place(&files, root.path(), &BTreeSet::new(), 0o600).unwrap();
        tie_to(root.path(), 0o600, &mut placed).unwrap();
        let text = fs::read_to_string(root.path().join("postgresql.conf")).unwrap();
        let last = text.lines().rfind(|line| line.starts_with("data_directory")).unwrap();
        assert_eq!(last, format!("data_directory = '{}'", root.path().display()));
        let pid = format!("\nexternal_pid_file = '{}/external.pid'\n", root.path().display());
        assert!(text.contains(&pid), "{text}");
        assert!(root.path().join("conf.d").is_dir());
        let hba = bytes_of(&root.path().join("pg_hba.conf"));
        assert_eq!(placed.settings, [setting("hba_file", hba)]);
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
        let placed = place(&files, root.path(), &BTreeSet::new(), 0o600).unwrap();
        assert_eq!(fs::read(root.path().join("pg_hba.conf")).unwrap(), b"unused");
        assert_eq!(placed.files[0].0, b"seawall-restored/pg_hba.conf");
    }

    #[test]
    fn a_pid_file_is_the_restored_servers_own_whichever_file_names_it() {
        let root = tempfile::tempdir().unwrap();
        let main = "include '/nowhere/extra.inc'\ninclude 'own.inc'\n";
        let inc = "external_pid_file = '/run/main.pid'\nhba_file = '/nowhere/main/pg_hba.conf'\n";
        let write = |name: &str, text: &str| fs::write(root.path().join(name), text).unwrap();
        write("postgresql.conf", main);
        write("pg_hba.conf", "local all all peer\n");
        write("pg_ident.conf", "");
        write("own.inc", "ident_file = '/nowhere/main/pg_ident.conf'\n");
        write("postgresql.auto.conf", "external_pid_file = '/run/auto.pid'\n");
        let files = [external(INCLUDED, "/nowhere/extra.inc", inc)];
        let mut placed = place(&files, root.path(), &BTreeSet::new(), 0o600).unwrap();
        tie_to(root.path(), 0o600, &mut placed).unwrap();
        let text = fs::read_to_string(root.path().join("postgresql.conf")).unwrap();
        let own = |name: &str| root.path().join(name).display().to_string();
        for (setting, name) in [
            ("external_pid_file", PID_FILE),
            ("hba_file", "pg_hba.conf"),
            ("ident_file", "pg_ident.conf"),
        ] {
            let line = format!("\n{setting} = '{}'\n", own(name));
            assert!(text.contains(&line), "{line} in {text}");
        }
        assert_eq!(placed.settings, [setting("external_pid_file", own(PID_FILE))]);
    }
}
