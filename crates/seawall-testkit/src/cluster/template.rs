use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::process::run;
use crate::{Owner, PgBin, cache_directory};

/// The shape of a cluster that `initdb` fixes for good.
#[derive(Debug)]
pub(super) struct Template<'a> {
    pub bin: &'a PgBin,
    pub owner: &'a Owner,
    pub checksums: bool,
    pub wal_segment_mb: u32,
    pub arguments: &'a [String],
}

impl Template<'_> {
    /// Makes a cluster from the kept template of its shape, and that first if need be: copying
    /// takes a fraction of what `initdb` does.
    pub fn copy_to(&self, data_directory: &Path) -> Result<()> {
        let template = self.kept()?;
        let mut command = Command::new("cp");
        command.args(["-a", "--reflink=auto"]).arg(template).arg(data_directory);
        run(&mut command, None, Duration::from_secs(120))?.success().context("copy template")?;
        Ok(())
    }

    /// Makes a cluster from nothing.
    pub fn initdb(&self, data_directory: &Path) -> Result<()> {
        let mut command = self.owner.command(self.bin.program("initdb")?);
        command.args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C"]);
        // Durability of an empty cluster is nobody's concern; the server's own fsync is not off.
        command.arg("--no-sync").arg(format!("--wal-segsize={}", self.wal_segment_mb));
        match (self.checksums, self.bin.major()) {
            (true, _) => drop(command.arg("--data-checksums")),
            // The first major where they are on by default.
            (false, 18..) => drop(command.arg("--no-data-checksums")),
            (false, _) => {}
        }
        command.args(self.arguments).arg("-D").arg(data_directory);
        run(&mut command, None, Duration::from_secs(120))?.success().context("initdb")?;
        Ok(())
    }

    /// The template, made by whichever test asks first.
    fn kept(&self) -> Result<PathBuf> {
        let directory = cache_directory()?.join("templates");
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(&directory)
            .with_context(|| format!("create {}", directory.display()))?;
        let template = directory.join(self.name()?);
        let lock = File::create(directory.join("lock"))?;
        lock.lock()?;
        if !template.exists() {
            let room = directory.join(format!("making-{}", process::id()));
            self.owner.create_dir(&room, 0o700)?;
            let made = self.initdb(&room.join("data"));
            let kept = made.and_then(|()| Ok(fs::rename(room.join("data"), &template)?));
            fs::remove_dir_all(&room)?;
            kept?;
        }
        Ok(template)
    }

    /// A minor release of another catalogue or another owner gets a template of its own.
    fn name(&self) -> Result<String> {
        let version = self.bin.version()?;
        let plain = |text: &str| -> String {
            text.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '.').collect()
        };
        let (version, arguments) = (plain(&version), plain(&self.arguments.concat()));
        let checksums = if self.checksums { "sums" } else { "nosums" };
        let owner = self.owner.uid();
        let shape = format!("{version}-{checksums}-{}m-{owner}", self.wal_segment_mb);
        Ok(if arguments.is_empty() { shape } else { format!("{shape}-{arguments}") })
    }
}
