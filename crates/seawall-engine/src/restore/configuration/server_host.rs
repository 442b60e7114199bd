use std::net::{IpAddr, TcpListener};
use std::path::{Path, PathBuf};

use nix::unistd::Group;

/// What a restored server finds on this host, as far as its configuration needs it.
#[derive(Debug, Clone)]
pub(in crate::restore) struct ServerHost {
    /// Where server programs have the libraries they load; `None` if that is not known.
    libraries: Option<PathBuf>,
}

impl ServerHost {
    /// This host, with the directory of the server's programs, if they are here.
    pub fn with_programs(programs: Option<&Path>) -> Self {
        Self { libraries: programs.and_then(libraries_beside) }
    }

    /// Whether there is anything at a path. Of one whose bytes were lost when it was made text,
    /// nothing is said to be missing.
    pub fn has(&self, path: &Path) -> bool {
        path.to_string_lossy().contains(char::REPLACEMENT_CHARACTER) || path.exists()
    }

    /// Whether there is a group of operating system users.
    pub fn has_group(&self, name: &str) -> bool {
        // What cannot be looked up is not said to be missing.
        Group::from_name(name).map_or(true, |group| group.is_some())
    }

    /// Whether a server can listen on an address.
    pub fn has_address(&self, address: IpAddr) -> bool {
        TcpListener::bind((address, 0)).is_ok()
    }

    /// Whether a server finds a library that it shall load; `true` where that is not known.
    /// `path` are the directories of `dynamic_library_path`.
    pub fn has_library(&self, name: &str, path: &[&str]) -> bool {
        let Some(own) = &self.libraries else { return true };
        let is_there = |directory: &Path, name: &str| {
            directory.join(name).is_file() || directory.join(format!("{name}.so")).is_file()
        };
        let resolved = |directory: &str| match directory.strip_prefix("$libdir") {
            Some(rest) => own.join(rest.trim_start_matches('/')),
            None => PathBuf::from(directory),
        };
        if name.contains('/') {
            let whole = resolved(name);
            let directory = whole.parent().unwrap_or(&whole);
            let name = whole.file_name().unwrap_or_default().to_string_lossy();
            return is_there(directory, &name);
        }
        let named = path.iter().any(|directory| is_there(&resolved(directory), name));
        named || is_there(own, name)
    }

    /// Whether memory is set apart for huge pages.
    pub fn has_huge_pages(&self) -> bool {
        let Ok(text) = std::fs::read_to_string("/proc/meminfo") else { return true };
        let total = text.lines().find_map(|line| line.strip_prefix("HugePages_Total:"));
        total.is_none_or(|total| total.trim() != "0")
    }
}

/// `pkglibdir`, which is where `plpgsql` is: Debian's and Red Hat's packages, and what `make
/// install` gives.
fn libraries_beside(programs: &Path) -> Option<PathBuf> {
    let real = programs.join("postgres").canonicalize().ok()?;
    let prefix = real.parent()?.parent()?;
    let usual = ["lib", "lib/postgresql", "lib64/pgsql", "lib/pgsql", "lib64"];
    let mut directories = usual.iter().map(|directory| prefix.join(directory));
    directories.find(|directory| directory.join("plpgsql.so").is_file())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn libraries_are_looked_for_where_a_server_does() {
        let root = tempfile::tempdir().unwrap();
        for directory in ["bin", "lib/postgresql", "own"] {
            fs::create_dir_all(root.path().join(directory)).unwrap();
        }
        for file in ["bin/postgres", "lib/postgresql/plpgsql.so", "own/mine.so"] {
            fs::write(root.path().join(file), "").unwrap();
        }
        let host = ServerHost::with_programs(Some(&root.path().join("bin")));
        let own = root.path().join("own").display().to_string();
        assert!(host.has_library("plpgsql", &[]) && host.has_library("$libdir/plpgsql.so", &[]));
        assert!(!host.has_library("mine", &["$libdir"]));
        assert!(host.has_library("mine", &["$libdir", &own]));
        assert!(host.has_library(&format!("{own}/mine"), &[]));
        assert!(!host.has_library(&format!("{own}/other"), &[]));
        assert!(ServerHost::with_programs(None).has_library("anything", &[]), "it is not known");
    }
}
