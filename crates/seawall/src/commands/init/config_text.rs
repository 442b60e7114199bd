//! Adding sections to a configuration file without touching what is there.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

use seawall_core::{ClusterName, Code, Result, ResultExt};
use seawall_store::StoreUrl;
use toml::Value;

use crate::config::{self, ConnectionSource};
use crate::kit::sync_parent;
use crate::owner::Owner;
use crate::trust::who_touches;

const HEADER: &str =
    "# Seawall's configuration. The guide explains every key, under \"Configuration\".\n";

/// A `[cluster.NAME]` section.
pub fn cluster_section(
    name: &ClusterName,
    connection: &ConnectionSource,
    data_directory: &Path,
    repository: &str,
) -> String {
    // A configuration is text. Where the path is none, the server tells it each time.
    let data_directory = data_directory
        .to_str()
        .map_or_else(String::new, |path| format!("data_directory = {}\n", text(path)));
    format!(
        "[cluster.{name}]\nconnection = {}\n{data_directory}repositories = [{}]\n",
        connection.to_toml(),
        text(repository)
    )
}

/// A `[repository.NAME]` section.
pub fn repository_section(name: &str, url: &StoreUrl, key_file: &Path) -> String {
    format!(
        "[repository.{name}]\nurl = {}\nkey = {{ file = {} }}\n",
        text(&url.to_string()),
        text(&key_file.display().to_string())
    )
}

/// A TOML string.
fn text(value: &str) -> String {
    Value::String(value.to_owned()).to_string()
}

/// Writes a new file, or adds to the end of one. The file takes the old one's place only when it is
/// whole and was read back: servers that archive read it all the time. A new file belongs to
/// `owner`.
///
/// # Errors
/// [`Code::LocalIo`], [`Code::ConfigInvalid`]
pub fn add_sections(path: &Path, sections: &[String], owner: &Owner) -> Result<()> {
    let failed = || format!("cannot write the configuration {}", path.display());
    let toucher = who_touches(path);
    let acting = toucher.act_as()?;
    // What a link leads to is replaced, not the link.
    let place = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let (old, metadata) = match fs::read_to_string(&place) {
        Ok(old) => (old, Some(fs::metadata(&place).code(Code::LocalIo, failed)?)),
        Err(error) if error.kind() == ErrorKind::NotFound => (String::new(), None),
        Err(error) => return Err(error).code(Code::LocalIo, failed),
    };
    let text = format!("{old}{}", addition(&old, sections));
    config::parse(path, &text)?;
    let mut beside = place.clone().into_os_string();
    beside.push(".seawall-tmp");
    let beside = PathBuf::from(beside);
    let file = create(&beside).code(Code::LocalIo, failed)?;
    drop(acting);
    let given = match &metadata {
        Some(old) => like(&file, old).code(Code::LocalIo, failed),
        None => owner.give_open(&file, &beside),
    };
    let _acting = toucher.act_as()?;
    let written = given.and_then(|()| {
        write(file, &text)
            .and_then(|()| fs::rename(&beside, &place))
            .and_then(|()| sync_parent(&place))
            .code(Code::LocalIo, failed)
    });
    if written.is_err() {
        fs::remove_file(&beside).ok();
    }
    written
}

/// Makes a file. Whatever has its name, an attempt that died or a link, is not what is opened.
fn create(path: &Path) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => OpenOptions::new().write(true).create_new(true).mode(0o640).open(path),
    }
}

/// Gives a file the owner, if that is for this user to give, and the mode of `old`.
fn like(file: &File, old: &Metadata) -> io::Result<()> {
    let new = file.metadata()?;
    let is_same = (new.uid(), new.gid()) == (old.uid(), old.gid());
    if Owner::current().is_root() && !is_same {
        fchown(file, Some(old.uid()), Some(old.gid()))?;
    }
    file.set_permissions(old.permissions())
}

/// Writes a file durably.
fn write(mut file: File, text: &str) -> io::Result<()> {
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn addition(old: &str, sections: &[String]) -> String {
    let mut added = String::new();
    if old.is_empty() {
        added.push_str(HEADER);
    } else if !old.ends_with('\n') {
        added.push('\n');
    }
    for section in sections {
        added.push('\n');
        added.push_str(section);
    }
    added
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONNECTION: &str = "host=/tmp user='a\"b\\\\c'";

    fn sections() -> Vec<String> {
        vec![
            cluster_section(
                &"main".parse().unwrap(),
                &ConnectionSource::Text(CONNECTION.to_owned()),
                Path::new("/var/lib/pg"),
                "primary",
            ),
            repository_section(
                "primary",
                &"/srv/my repo".parse().unwrap(),
                Path::new("/etc/seawall/primary.key"),
            ),
        ]
    }

    #[test]
    fn what_is_written_reads_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("seawall.toml");
        add_sections(&path, &sections(), &Owner::current()).unwrap();
        let config = config::load(Some(&path)).unwrap();
        let cluster = &config.clusters[&"main".parse().unwrap()];
        let connection = ConnectionSource::Text(CONNECTION.to_owned());
        assert_eq!(cluster.connection, Some(connection));
        assert_eq!(config.repositories["primary"].url, "/srv/my repo".parse().unwrap());
    }

    #[test]
    fn what_was_there_stays_byte_for_byte() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("seawall.toml");
        let old = "# mine\njobs = 2 # two";
        fs::write(&path, old).unwrap();
        add_sections(&path, &sections(), &Owner::current()).unwrap();
        let new = fs::read_to_string(&path).unwrap();
        assert!(new.starts_with(old));
        assert_eq!(config::load(Some(&path)).unwrap().jobs.map(std::num::NonZero::get), Some(2));
    }

    #[test]
    fn a_section_that_is_there_already_is_not_added_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("seawall.toml");
        add_sections(&path, &sections(), &Owner::current()).unwrap();
        let before = fs::read_to_string(&path).unwrap();
        let error = add_sections(&path, &sections(), &Owner::current()).unwrap_err();
        assert_eq!(error.code(), Code::ConfigInvalid);
        assert_eq!(fs::read_to_string(&path).unwrap(), before);
    }
}
