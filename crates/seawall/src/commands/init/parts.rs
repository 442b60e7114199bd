//! The parts `init` makes: each is left alone where it is there already.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use seawall_core::{Code, Error, Result};
use seawall_repo::keys::{KeyFile, Unlock};
use seawall_repo::{CreateOptions, Repository};
use seawall_store::{OpenOptions, StoreUrl};

use super::plan::Plan;
use crate::config::{Exposed, SecretSource};
use crate::context::{read_key, refuse_foreign_command};
use crate::kit::{Kit, create_secret};
use crate::owner::Owner;
use crate::trust::who_touches;

/// The name of a repository's first key slot.
const FIRST_SLOT: &str = "init";

/// Makes a directory and gives it to the owner. One that is there and has something in it stays
/// whose it is; an empty one is a mount point that root has prepared.
pub fn make_directory(path: &Path, mode: u32, owner: &Owner) -> Result<()> {
    if !path.exists() {
        let toucher = who_touches(path);
        {
            let _acting = toucher.act_as()?;
            make(path, mode).map_err(|error| not_made(path, owner, error))?;
        }
        return if toucher == *owner { Ok(()) } else { owner.give(path) };
    }
    let empty = std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none());
    if empty && !owner.is_current() { owner.give(path) } else { Ok(()) }
}

fn make(path: &Path, mode: u32) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o755).create(parent)?;
    }
    DirBuilder::new().mode(mode).create(path)
}

/// On a network mount, root may be nobody.
fn not_made(path: &Path, owner: &Owner, error: io::Error) -> Error {
    let is_denied = error.kind() == io::ErrorKind::PermissionDenied;
    let failed = Error::new(Code::LocalIo, format!("cannot make the directory {}", path.display()));
    let failed = failed.with_source(error);
    if !is_denied || owner.is_current() {
        return failed;
    }
    let again = owner.again();
    failed.with_hint(format!(
        "Root may not write there, as on a network mount with root_squash: run this as the user PostgreSQL runs as, `{again}`."
    ))
}

/// Finds the repository's key, or makes one for a repository that is yet to be made. Tells whether
/// it is new.
pub fn make_key(
    plan: &Plan,
    given: Option<&Path>,
    repository_exists: bool,
    owner: &Owner,
) -> Result<(KeyFile, bool)> {
    let given = given.map(|path| read_key(path, Exposed::Refused)).transpose()?;
    let SecretSource::File(path) = &plan.key else {
        if matches!(plan.key, SecretSource::Command(_)) {
            refuse_foreign_command(Owner::of(&plan.config_path).as_ref())?;
        }
        return Ok((KeyFile::parse(&plan.key.resolve(Exposed::Refused)?)?, false));
    };
    if path.exists() {
        let there = read_key(path, Exposed::Refused)?;
        let unfinished = path.parent() == plan.config_path.parent()
            && Owner::of(path).is_some_and(|it| it.is_root())
            && Owner::current().is_root();
        if unfinished {
            // An `init` that died may have made it and not given it away. Only where `init` puts
            // keys: the configuration, which may be the owner's, can name any file.
            owner.give(path)?;
        }
        if given.is_some_and(|given| given.line() != there.line()) {
            return Err(Error::new(
                Code::KeyUnreadable,
                format!("{} holds another key than the one given", path.display()),
            )
            .with_hint("Keys are never overwritten: move that file away if it is not needed."));
        }
        return Ok((there, false));
    }
    if given.is_none() && repository_exists {
        return Err(Error::new(
            Code::RepositoryExists,
            format!("there is already a repository at {}, and its key is not here", plan.url),
        )
        .with_hint("Give its key or recovery kit to join it: `seawall init … --key FILE`."));
    }
    let key = given.map_or_else(KeyFile::generate, Ok)?;
    let text = format!(
        "# The key of the Seawall repository {}. Without it the backups cannot be read.\n{}\n",
        plan.url,
        key.line()
    );
    let toucher = who_touches(path);
    {
        let _acting = toucher.act_as()?;
        create_secret(path, &text, "key file")?;
    }
    if toucher != *owner {
        owner.give(path)?;
    }
    Ok((key, true))
}

/// Whether there is a repository. A directory that does not exist holds none.
pub async fn repository_exists(url: &StoreUrl) -> Result<bool> {
    match seawall_store::open(url, &OpenOptions::default()).await {
        Ok(store) => Repository::exists(store.as_ref()).await,
        Err(error) if error.is_not_found() => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Opens the repository, or makes it. Tells whether it is new.
pub async fn make_repository(url: &StoreUrl, key: &KeyFile) -> Result<(Repository, bool)> {
    let store = seawall_store::open_or_create(url, &OpenOptions::default()).await?;
    let unlock = Unlock::KeyFile(key.clone());
    if Repository::exists(store.as_ref()).await? {
        return Ok((Repository::open(store, &unlock).await?, false));
    }
    let options = CreateOptions { unlock: &unlock, label: FIRST_SLOT, now: Timestamp::now() };
    Ok((Repository::create(Arc::clone(&store), &options).await?, true))
}

/// Writes the recovery kit. One that is there already must open the same repository.
pub fn make_kit(path: &Path, plan: &Plan, key: KeyFile) -> Result<bool> {
    let kit = Kit { clusters: vec![plan.cluster.clone()], repository: plan.url.clone(), key };
    if path.exists() {
        let there = Kit::read(path, Exposed::Refused)?;
        let same = there.key.line() == kit.key.line() && there.repository == kit.repository;
        if same {
            return Ok(false);
        }
        return Err(Error::new(
            Code::LocalIo,
            format!("{} is there already and is another recovery kit", path.display()),
        )
        .with_hint("Kits are never overwritten: give another file, `seawall key kit FILE`."));
    }
    kit.create(path, Timestamp::now())?;
    Ok(true)
}
