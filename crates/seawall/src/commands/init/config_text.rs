//! Adding sections to a configuration file without touching what is there.

use std::fs::OpenOptions;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use seawall_core::{ClusterName, Code, Result, ResultExt};
use seawall_store::StoreUrl;
use toml::Value;

use crate::config;
use crate::kit::sync_parent;

const HEADER: &str =
    "# Seawall's configuration. Every key is explained in docs/guide/configuration.md.\n";

/// A `[cluster.NAME]` section.
pub fn cluster_section(
    name: &ClusterName,
    connection: &str,
    data_directory: &Path,
    repository: &str,
) -> String {
    format!(
        "[cluster.{name}]\nconnection = {}\ndata_directory = {}\nrepositories = [{}]\n",
        text(connection),
        text(&data_directory.display().to_string()),
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

/// Writes a new file, or adds to the end of one. The result is read back before a byte is
/// written: a file that this program would refuse is never left behind.
///
/// # Errors
/// [`Code::LocalIo`], [`Code::ConfigInvalid`]
pub fn add_sections(path: &Path, sections: &[String]) -> Result<()> {
    let failed = || format!("cannot write the configuration {}", path.display());
    let mut file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o640)
        .open(path)
        .code(Code::LocalIo, failed)?;
    let old = std::io::read_to_string(&file).code(Code::LocalIo, failed)?;
    let added = addition(&old, sections);
    config::parse(path, &format!("{old}{added}"))?;
    let written = file
        .seek(SeekFrom::End(0))
        .and_then(|_| file.write_all(added.as_bytes()))
        .and_then(|()| file.sync_all())
        .and_then(|()| sync_parent(path));
    written.code(Code::LocalIo, failed)
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

    fn sections() -> Vec<String> {
        vec![
            cluster_section(
                &"main".parse().unwrap(),
                "host=/tmp password='a\"b\\\\c'",
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
        add_sections(&path, &sections()).unwrap();
        let config = config::load(Some(&path)).unwrap();
        let cluster = &config.clusters[&"main".parse().unwrap()];
        assert_eq!(cluster.connection.as_deref(), Some("host=/tmp password='a\"b\\\\c'"));
        assert_eq!(config.repositories["primary"].url, "/srv/my repo".parse().unwrap());
    }

    #[test]
    fn what_was_there_stays_byte_for_byte() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("seawall.toml");
        let old = "# mine\njobs = 2 # two";
        std::fs::write(&path, old).unwrap();
        add_sections(&path, &sections()).unwrap();
        let new = std::fs::read_to_string(&path).unwrap();
        assert!(new.starts_with(old));
        assert_eq!(config::load(Some(&path)).unwrap().jobs.map(std::num::NonZero::get), Some(2));
    }

    #[test]
    fn a_section_that_is_there_already_is_not_added_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("seawall.toml");
        add_sections(&path, &sections()).unwrap();
        let before = std::fs::read_to_string(&path).unwrap();
        let error = add_sections(&path, &sections()).unwrap_err();
        assert_eq!(error.code(), Code::ConfigInvalid);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), before);
    }
}
