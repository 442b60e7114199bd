//! A look at all of a cluster's files before a backup, and for `check`.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use seawall_core::Result;
use seawall_pgdata::own_places::{is_own_directory, is_own_file};

use super::files::{FileKind, FoundPath, ScanOptions, walk};
use super::links::{LinkRules, stays_inside};
use super::unreadable::{Unreadable, denied, unreadable};

/// So many links are named; the rest is counted.
const LINKS_NAMED: usize = 1000;

/// A link in a data directory where PostgreSQL itself makes none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterLink {
    /// Where it is, relative to the data directory.
    pub path: PathBuf,
    /// Where it leads.
    pub target: PathBuf,
}

/// What a look at all files showed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Survey {
    /// Links whose targets are stored as data, the first thousand.
    pub followed: Vec<ClusterLink>,
    /// Links that lead out and stay links: what is behind them is in no backup. The first thousand.
    pub kept: Vec<ClusterLink>,
    /// Links of either kind that are not listed.
    pub more_links: u64,
    /// What cannot be read.
    pub unreadable: Unreadable,
    /// What a scan is to do with links.
    pub rules: LinkRules,
}

/// Looks at every path that belongs in a backup: where links lead, and what cannot be read.
///
/// # Errors
/// [`seawall_core::Code::ClusterUnreadable`] if a tablespace is not where its link leads.
pub fn survey(options: &ScanOptions) -> Result<Survey> {
    let root = fs::canonicalize(&options.root).map_err(|error| unreadable(&options.root, error))?;
    let mut survey = Survey { rules: options.links.clone(), ..Survey::default() };
    let mut shut = Unreadable::default();
    let found = walk(options, &mut |found| {
        if matches!(found.kind, FileKind::Relation(_) | FileKind::SimpleLog | FileKind::Plain)
            && let Some(error) = denied(&found.location)
        {
            shut.add(&found.location, error);
        }
        survey.note(&root, options, found);
        Ok(())
    })?;
    survey.unreadable = found.and(shut);
    Ok(survey)
}

impl Survey {
    fn note(&mut self, root: &Path, options: &ScanOptions, found: FoundPath) {
        let path = path_of(&found.path);
        let list = match (found.link, found.kind) {
            (Some(target), _) => {
                self.reach(root, options, &found.location);
                Some((&mut self.followed, target))
            }
            (None, FileKind::Symlink(target)) => {
                let target = path_of(&target);
                let inside = stays_inside(&found.path, &target);
                (!inside).then_some((&mut self.kept, target))
            }
            (None, _) => None,
        };
        let Some((list, target)) = list else { return };
        if list.len() < LINKS_NAMED {
            list.push(ClusterLink { path, target });
        } else {
            self.more_links += 1;
        }
    }

    /// What a link leads to is not stored a second time under a name that is nothing to
    /// PostgreSQL: there it would be taken for other files than it is.
    fn reach(&mut self, root: &Path, options: &ScanOptions, location: &Path) {
        let Ok(real) = fs::canonicalize(location) else { return };
        let Ok(path) = real.strip_prefix(root) else { return };
        let bytes = path.as_os_str().as_bytes();
        if !bytes.is_empty()
            && !is_own_directory(bytes, options.major)
            && !is_own_file(bytes, options.major)
        {
            self.rules.reach(real);
        }
    }
}

fn path_of(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use seawall_core::Code;
    use seawall_pgdata::PgMajor;

    use super::*;
    use crate::cluster::{TablespaceLinks, scan};

    /// A data directory beside another place, and what a survey and a scan of it show.
    struct Site(tempfile::TempDir);

    impl Site {
        fn new() -> Self {
            let site = Self(tempfile::tempdir().unwrap());
            for directory in ["data/base/5", "data/pg_tblspc", "data/global", "away"] {
                fs::create_dir_all(site.at(directory)).unwrap();
            }
            site
        }

        fn at(&self, path: &str) -> PathBuf {
            self.0.path().canonicalize().unwrap().join(path)
        }

        fn file(&self, path: &str) {
            fs::create_dir_all(self.at(path).parent().unwrap()).unwrap();
            fs::write(self.at(path), path).unwrap();
        }

        fn link(&self, path: &str, target: &str) {
            symlink(target, self.at(path)).unwrap();
        }

        fn options(&self, configured: &[&str]) -> ScanOptions {
            let root = self.at("data");
            let tablespaces = TablespaceLinks::of(&root).unwrap();
            let configured = configured.iter().map(PathBuf::from).collect();
            let links = LinkRules::for_configuration(&root, &configured);
            ScanOptions { root, major: PgMajor::V15, tablespaces, links }
        }

        /// The survey; and the paths a scan gives then, links with an arrow.
        fn look(&self, configured: &[&str]) -> (Survey, Vec<String>) {
            let options = self.options(configured);
            let survey = survey(&options).unwrap();
            let mut paths = Vec::new();
            let options = ScanOptions { links: survey.rules.clone(), ..options };
            // What cannot be read is for the survey to tell.
            let _ = scan(&options, &mut |found| {
                let arrow = if matches!(found.kind, FileKind::Symlink(_)) { " ->" } else { "" };
                paths.push(String::from_utf8_lossy(&found.path).into_owned() + arrow);
                Ok(())
            });
            (survey, paths)
        }
    }

    fn names(links: &[ClusterLink]) -> Vec<String> {
        links.iter().map(|link| link.path.display().to_string()).collect()
    }

    #[test]
    fn what_postgres_reads_through_links_is_data_and_other_links_stay_links() {
        let site = Site::new();
        for file in ["away/xact/0000", "away/7/1259", "away/rel", "away/key", "away/log/a.log"] {
            site.file(file);
        }
        site.link("data/pg_xact", &site.at("away/xact").display().to_string());
        site.link("data/base/7", "../../away/7");
        site.link("data/base/5/16384", &site.at("away/rel").display().to_string());
        site.link("data/server.key", "../away/key");
        site.link("data/log", "../away/log");
        site.link("data/nothing", "../away/nothing");
        site.link("data/base/strange", "/");
        let (survey, paths) = site.look(&[]);
        assert_eq!(names(&survey.followed), ["base/5/16384", "base/7", "pg_xact", "server.key"]);
        assert_eq!(names(&survey.kept), ["base/strange", "log", "nothing"]);
        survey.unreadable.refuse().unwrap();
        assert_eq!(
            paths,
            [
                "base",
                "base/5",
                "base/5/16384",
                "base/7",
                "base/7/1259",
                "base/strange ->",
                "global",
                "log ->",
                "nothing ->",
                "pg_tblspc",
                "pg_xact",
                "pg_xact/0000",
                "server.key",
            ]
        );
    }

    #[test]
    fn what_lies_inside_under_another_name_is_stored_once_and_a_twin_twice() {
        let site = Site::new();
        for file in ["data/moved/0000", "data/base/5/1", "data/kept/x"] {
            site.file(file);
        }
        site.link("data/pg_xact", "moved");
        site.link("data/base/6", "5");
        site.link("data/alias", "kept/x");
        let (_, paths) = site.look(&[]);
        for path in ["pg_xact/0000", "base/5/1", "base/6/1", "kept/x", "alias ->"] {
            assert!(paths.contains(&path.to_owned()), "no {path} in {paths:?}");
        }
        assert!(!paths.iter().any(|path| path.starts_with("moved")), "{paths:?}");
    }

    #[test]
    fn loops_and_links_into_nothing_are_named_all_at_once() {
        let site = Site::new();
        site.file("data/base/5/1");
        site.link("data/pg_xact", "/nowhere");
        site.link("data/pg_multixact", "pg_multixact");
        site.link("data/base/7", "../..");
        site.link("data/pg_stat_tmp", "/nowhere");
        site.link("data/postgresql.conf", "/nowhere/postgresql.conf");
        let (survey, paths) = site.look(&[]);
        let error = survey.unreadable.refuse().unwrap_err();
        assert_eq!(error.code(), Code::ClusterUnreadable);
        let text = error.to_string();
        for named in ["4 paths", "pg_xact", "pg_multixact", "base/7/data", "postgresql.conf"] {
            assert!(text.contains(named), "no {named} in {text}");
        }
        assert!(paths.contains(&"base/5/1".to_owned()) && paths.len() < 20, "{paths:?}");
    }

    #[test]
    fn a_directory_that_configuration_includes_is_data_behind_a_link_too() {
        let site = Site::new();
        site.file("away/conf.d/a.conf");
        site.link("data/conf.d", "../away/conf.d");
        let (survey, paths) = site.look(&["conf.d", "conf.d/a.conf"]);
        assert_eq!(names(&survey.followed), ["conf.d"]);
        assert!(paths.contains(&"conf.d/a.conf".to_owned()), "{paths:?}");
        let (survey, paths) = site.look(&[]);
        assert_eq!(names(&survey.kept), ["conf.d"]);
        assert!(paths.contains(&"conf.d ->".to_owned()), "{paths:?}");
    }
}
