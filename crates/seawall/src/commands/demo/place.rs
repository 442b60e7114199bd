use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use seawall_core::{Code, Error, Result, ResultExt};

use crate::context::absolute;
use crate::owner::Owner;
use crate::postgres;

/// A Unix socket's path may have 107 bytes (`sun_path`, unix(7)), its file's name included.
const MAX_DIRECTORY_BYTES: usize = 80;

/// Where the demo's files are, and the program it calls.
#[derive(Debug)]
pub struct DemoPlace {
    directory: PathBuf,
    /// Whether the demo made the directory, and may remove it.
    made: bool,
    program: PathBuf,
}

impl DemoPlace {
    /// Makes the directory. Root becomes the owner, since PostgreSQL does not run as root.
    ///
    /// # Errors
    /// [`Code::WrongUser`], [`Code::DirectoryNotEmpty`], [`Code::LocalIo`].
    pub fn prepare(wanted: Option<&Path>, owner: Option<&str>) -> Result<Self> {
        let owner = choose_owner(owner)?;
        let directory = match wanted {
            Some(wanted) => absolute(wanted),
            // Of no name that anybody could foresee, and take before.
            None => Path::new("/tmp").join(format!("seawall-demo-{}", random_name()?)),
        };
        if directory.as_os_str().len() > MAX_DIRECTORY_BYTES {
            return Err(Error::new(
                Code::Usage,
                format!("{} is too long a path for a socket", directory.display()),
            )
            .with_hint("Give a shorter one: `seawall demo --dir /tmp/demo`."));
        }
        let made = make(&directory, &owner)?;
        let program = program_for(&owner, &directory).and_then(|program| {
            owner.give(&directory)?;
            Ok(program)
        });
        let program = program.inspect_err(|_| {
            if made {
                fs::remove_dir_all(&directory).ok();
            }
        })?;
        owner.become_for_good()?;
        // initdb and pg_ctl complain about a directory they may not read.
        std::env::set_current_dir(&directory)
            .code(Code::LocalIo, || format!("cannot enter {}", directory.display()))?;
        Ok(Self { directory, made, program })
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// A path in the directory.
    pub fn join(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn text(&self, name: &str) -> String {
        self.join(name).display().to_string()
    }

    pub fn init_arguments(&self, conninfo: &str) -> Vec<String> {
        let mut arguments: Vec<String> =
            ["init", "main", "--connection", conninfo].map(str::to_owned).into();
        arguments.extend(["--repo".to_owned(), format!("file://{}", self.text("repository"))]);
        arguments.extend(["--kit".to_owned(), self.text("recovery-kit.txt")]);
        arguments
    }

    pub fn restore_arguments(&self, xid: u64, port: u16) -> Vec<String> {
        let before = format!("xid:{xid}");
        let into = self.text("restored");
        let port = port.to_string();
        [
            "restore", "main", "--before", &before, "--into", &into, "--start", "--port", &port,
            "--yes",
        ]
        .map(str::to_owned)
        .into()
    }

    /// The program, with the demo's configuration and nothing of the caller's environment.
    pub fn seawall(&self) -> Command {
        let mut command = quiet(&self.program);
        command.env("SEAWALL_CONFIG", self.join("seawall.toml")).env("NO_COLOR", "1");
        command
    }

    /// Removes what the demo made.
    ///
    /// # Errors
    /// [`Code::LocalIo`]
    pub fn remove(&self) -> Result<()> {
        let failed = || format!("cannot remove {}", self.directory.display());
        std::env::set_current_dir("/").code(Code::LocalIo, failed)?;
        for entry in fs::read_dir(&self.directory).code(Code::LocalIo, failed)? {
            let path = entry.code(Code::LocalIo, failed)?.path();
            let removed =
                if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.code(Code::LocalIo, failed)?;
        }
        if self.made {
            // Root made it in a directory where its owner may not remove it: an empty one is no harm.
            fs::remove_dir(&self.directory).ok();
        }
        Ok(())
    }
}

/// A command without the caller's `SEAWALL_*` and `PG*` variables.
pub fn quiet(program: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("SEAWALL_") || text.starts_with("PG") {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null());
    command
}

fn choose_owner(name: Option<&str>) -> Result<Owner> {
    if let Some(name) = name {
        return Owner::named(name);
    }
    let current = Owner::current();
    if !current.is_root() {
        return Ok(current);
    }
    Owner::packaged().ok_or_else(|| {
        Error::new(
            Code::WrongUser,
            "PostgreSQL does not run as root, and there is no user postgres",
        )
        .with_hint("Name a user to run it as: `seawall demo --owner USER`.")
    })
}

/// Tells whether the directory was made; one that is there must be empty, and nobody else's.
fn make(directory: &Path, owner: &Owner) -> Result<bool> {
    let failed = || format!("cannot make {}", directory.display());
    match DirBuilder::new().mode(0o755).create(directory) {
        Ok(()) => return Ok(true),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error).code(Code::LocalIo, failed),
    }
    let there = fs::symlink_metadata(directory).code(Code::LocalIo, failed)?;
    let whose = Owner::numbered(there.uid(), there.gid());
    if !there.is_dir() || !(whose.is_current() || whose == *owner) {
        let what = format!(
            "{} is there already, and is no directory of {} or {}",
            directory.display(),
            Owner::current().name(),
            owner.name()
        );
        return Err(Error::new(Code::WrongUser, what)
            .with_hint("Give a directory that is not there yet: `seawall demo --dir DIR`."));
    }
    let mut entries = fs::read_dir(directory).code(Code::LocalIo, failed)?;
    if entries.next().is_some() {
        return Err(Error::new(
            Code::DirectoryNotEmpty,
            format!("{} is not empty", directory.display()),
        )
        .with_hint("Give a directory that is not there yet: `seawall demo --dir DIR`."));
    }
    Ok(false)
}

fn random_name() -> Result<String> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|error| {
        Error::new(Code::Internal, "the system has no randomness").with_source(error)
    })?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The program itself, or a copy where the owner can run it.
fn program_for(owner: &Owner, directory: &Path) -> Result<PathBuf> {
    let program = postgres::own_path()?;
    let reachable = {
        let _acting = owner.act_as()?;
        File::open(&program).is_ok()
    };
    if reachable {
        return Ok(program);
    }
    let copy = directory.join("seawall");
    let failed = || format!("cannot copy the program to {}", copy.display());
    let copied = || {
        let mut from = File::open(&program)?;
        // New, so that it is not written through a link.
        let mut to = OpenOptions::new().write(true).create_new(true).open(&copy)?;
        io::copy(&mut from, &mut to)?;
        to.set_permissions(fs::Permissions::from_mode(0o755)).map(|()| to)
    };
    let file = copied().code(Code::LocalIo, failed)?;
    owner.give_open(&file, &copy)?;
    Ok(copy)
}
