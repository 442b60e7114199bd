use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use seawall_core::Result;
use seawall_repo::manifest::{Entry, EntryKind, ExternalFile, INCLUDED, ManifestReader};

use super::Configuration;
use crate::config_text::{Include, include_of, name_of, value_of};
use crate::restored::resolved;
use crate::stored::{Sources, read_file};

/// A configuration file is kept up to this size.
const BYTES_MAX: u64 = 8 << 20;

/// The settings that name files without which a server does not start, and their defaults.
pub(super) const TLS_FILES: [(&str, &str); 6] = [
    ("ssl_cert_file", "server.crt"),
    ("ssl_key_file", "server.key"),
    ("ssl_ca_file", ""),
    ("ssl_crl_file", ""),
    ("ssl_crl_dir", ""),
    ("ssl_dh_params_file", ""),
];

/// Reads the configuration out of a backup that is restored `into` a directory: `postgresql.conf`
/// with what it includes, then `postgresql.auto.conf`.
///
/// # Errors
/// Damage, or a store that fails. A file that the backup does not have sets nothing.
pub(in crate::restore) async fn read(
    sources: &Sources,
    manifest: &ManifestReader,
    into: &Path,
) -> Result<Configuration> {
    let mut reading =
        Reading { sources, manifest, seen: BTreeSet::new(), found: Configuration::default() };
    let external = &manifest.commit.info.external_files;
    match external.iter().find(|file| file.setting == "config_file") {
        Some(main) => reading.of(&main.content, FilePlace::Outside(path_of(main))).await?,
        None => reading.of_file(Path::new("postgresql.conf")).await?,
    }
    reading.of_file(Path::new("postgresql.auto.conf")).await?;
    for (setting, default) in TLS_FILES {
        let name = reading.found.text(setting).unwrap_or(default).to_owned();
        let Some(path) = restored_at(Path::new(&name), into) else { continue };
        let entry = reading.entry(&path).await?;
        if entry.is_some_and(|entry| entry.kind != EntryKind::Symlink) {
            reading.found.files.insert(name);
        }
    }
    Ok(reading.found)
}

/// Where a configuration file was.
#[derive(Debug, Clone)]
enum FilePlace {
    /// Below the data directory.
    Inside(PathBuf),
    /// Anywhere else.
    Outside(PathBuf),
}

impl FilePlace {
    fn beside(&self, path: &Path) -> PathBuf {
        let (Self::Inside(place) | Self::Outside(place)) = self;
        plain(&place.parent().unwrap_or(place).join(path))
    }
}

struct Reading<'b> {
    sources: &'b Sources,
    manifest: &'b ManifestReader,
    seen: BTreeSet<PathBuf>,
    found: Configuration,
}

impl<'b> Reading<'b> {
    /// Takes over what a file of the data directory sets.
    async fn of_file(&mut self, path: &Path) -> Result<()> {
        let Some(entry) = self.entry(path).await? else { return Ok(()) };
        if entry.kind != EntryKind::File || !self.seen.insert(path.to_owned()) {
            return Ok(());
        }
        let content = read_file(self.sources, &entry, BYTES_MAX).await?;
        self.of(&content, FilePlace::Inside(path.to_owned())).await
    }

    /// Takes over what lines set, and files that they include, in their order.
    fn of<'s>(&'s mut self, content: &'s [u8], place: FilePlace) -> BoxFuture<'s, Result<()>> {
        async move {
            for line in content.split(|byte| *byte == b'\n') {
                match include_of(line) {
                    Some(Include::File { path, .. }) => {
                        self.of_included(&place.beside(&path), &place).await?;
                    }
                    Some(Include::Directory(path)) => {
                        let directory = place.beside(&path);
                        for path in self.conf_files(&directory, &place).await? {
                            self.of_included(&path, &place).await?;
                        }
                    }
                    None => self.set(line),
                }
            }
            Ok(())
        }
        .boxed()
    }

    fn set(&mut self, line: &[u8]) {
        let Some(name) = name_of(line) else { return };
        match value_of(line) {
            // A path that is not UTF-8 can still be shown, and be seen to lead out.
            Some(value) => {
                let value = String::from_utf8_lossy(&value).into_owned();
                self.found.values.insert(name, value)
            }
            None => self.found.values.remove(&name),
        };
    }

    async fn of_included(&mut self, path: &Path, from: &FilePlace) -> Result<()> {
        let external = self.externals().find(|file| is_at(&path_of(file), path, from));
        if let Some(file) = external {
            let place = path_of(file);
            if self.seen.insert(place.clone()) {
                self.of(&file.content, FilePlace::Outside(place)).await?;
            }
            return Ok(());
        }
        for inside in inside(path) {
            if self.entry(&inside).await?.is_some() {
                return self.of_file(&inside).await;
            }
        }
        Ok(())
    }

    /// The files of an included directory, in the order PostgreSQL reads them.
    async fn conf_files(&self, directory: &Path, from: &FilePlace) -> Result<Vec<PathBuf>> {
        let parent = |path: &PathBuf| path.parent().is_some_and(|it| is_at(it, directory, from));
        let mut files: Vec<PathBuf> = self.externals().map(path_of).filter(parent).collect();
        if files.is_empty() {
            for inside in inside(directory) {
                files = self.entries_in(&inside).await?;
                if !files.is_empty() {
                    break;
                }
            }
        }
        let is_read = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().as_bytes();
            name.ends_with(b".conf") && !name.starts_with(b".")
        };
        files.retain(is_read);
        files.sort_by(|a, b| a.as_os_str().as_bytes().cmp(b.as_os_str().as_bytes()));
        Ok(files)
    }

    fn externals(&self) -> impl Iterator<Item = &'b ExternalFile> + use<'b> {
        self.manifest.commit.info.external_files.iter().filter(|file| file.setting == INCLUDED)
    }

    async fn entry(&self, path: &Path) -> Result<Option<Entry>> {
        let wanted = path.as_os_str().as_bytes();
        let pages = &self.manifest.commit.parts.pages;
        let after = pages.partition_point(|page| page.first_path.as_slice() <= wanted);
        let Some(page) = after.checked_sub(1) else { return Ok(None) };
        let entries = self.manifest.page(self.sources.store(), page).await?;
        Ok(entries.into_iter().find(|entry| entry.path() == wanted))
    }

    /// What lies directly in a directory of the data directory.
    async fn entries_in(&self, directory: &Path) -> Result<Vec<PathBuf>> {
        let mut prefix = directory.as_os_str().as_bytes().to_vec();
        prefix.push(b'/');
        let pages = &self.manifest.commit.parts.pages;
        let first = pages.partition_point(|page| page.first_path.as_slice() <= prefix.as_slice());
        let mut found = Vec::new();
        for page in first.saturating_sub(1)..pages.len() {
            let entries = self.manifest.page(self.sources.store(), page).await?;
            let past = entries
                .last()
                .is_some_and(|it| it.path() > prefix.as_slice() && !it.path().starts_with(&prefix));
            let below = entries.iter().filter_map(|it| it.path().strip_prefix(prefix.as_slice()));
            let direct = below.filter(|name| !name.contains(&b'/'));
            found.extend(direct.map(|name| directory.join(OsStr::from_bytes(name))));
            if past {
                break;
            }
        }
        Ok(found)
    }
}

fn path_of(file: &ExternalFile) -> PathBuf {
    PathBuf::from(std::ffi::OsString::from_vec(file.path.to_vec()))
}

/// Whether a file that was outside is the one meant. Where the data directory was is not known: seen
/// from there, a path's end has to do.
fn is_at(file: &Path, meant: &Path, from: &FilePlace) -> bool {
    match from {
        FilePlace::Inside(_) if meant.is_relative() => file.ends_with(meant),
        _ => file == meant,
    }
}

/// A path without the parts that lead nowhere, as a backup has it.
fn plain(path: &Path) -> PathBuf {
    path.components().filter(|part| *part != Component::CurDir).collect()
}

/// Which path of the backup comes out where a setting names a file; `None` if none does.
fn restored_at(named: &Path, into: &Path) -> Option<PathBuf> {
    if named.is_relative() {
        return Some(plain(named));
    }
    plain(&resolved(named)).strip_prefix(plain(&resolved(into))).ok().map(Path::to_owned)
}

/// What a path may be called within the data directory: for an absolute one, every end of it, the
/// longest first.
fn inside(path: &Path) -> Vec<PathBuf> {
    if path.is_relative() {
        return vec![plain(path)];
    }
    let names: Vec<&OsStr> = path.iter().skip(1).collect();
    (1..names.len()).filter_map(|from| names.get(from..)).map(PathBuf::from_iter).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_setting_names_a_file_of_the_backup_if_it_comes_out_there() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("real")).unwrap();
        symlink("real", root.path().join("link")).unwrap();
        // The directory that is restored into is not there yet.
        let into = root.path().join("link/15/main");
        let named = |path: &Path| restored_at(path, &into);
        let key = Some(PathBuf::from("tls/server.key"));
        for path in ["tls/server.key", "./tls//server.key", "tls/./server.key"] {
            assert_eq!(named(Path::new(path)), key, "{path}");
        }
        for path in ["link/15/main/tls/server.key", "real/15/main/./tls/server.key"] {
            assert_eq!(named(&root.path().join(path)), key, "{path}");
        }
        for path in ["real/15/other/tls/server.key", "tls/server.key"] {
            assert_eq!(named(&root.path().join(path)), None, "{path}");
        }
        assert_eq!(inside(Path::new("./conf.d")), [PathBuf::from("conf.d")]);
    }
}
