//! `seawall key`: what opens a repository.

use std::path::Path;

use jiff::Timestamp;
use seawall_core::{ClusterName, Code, Error, Result, Ulid, counted};
use seawall_repo::keys::{KeyFile, KeySlot, SlotMethod, Unlock};
use seawall_repo::{CreateOptions, Repository};
use serde_json::json;

use crate::args::{
    KeyAddArgs, KeyCommand, KeyKitArgs, KeyRemoveArgs, KeyRotateArgs, KeyShowArgs, RepositoryArgs,
};
use crate::config::{Exposed, read_key_text};
use crate::context::{Context, Opened, Place};
use crate::exit::Outcome;
use crate::kit::{Kit, create_secret};
use crate::render::{Align, Out, confirm, table, utc};
use crate::run;

/// Runs the command.
///
/// # Errors
/// Those of configuration, key and repository.
pub fn main(config: Option<&Path>, command: &KeyCommand) -> Result<Outcome> {
    match command {
        KeyCommand::Show(args) => show(config, args),
        KeyCommand::Add(args) => add(config, args),
        KeyCommand::Rotate(args) => rotate(config, args),
        KeyCommand::Remove(args) => remove(config, args),
        KeyCommand::Kit(args) => kit(config, args),
    }
}

/// The one repository the command is about, and whatever `before` needs of the caller's rights.
fn open<T>(
    config: Option<&Path>,
    flags: &RepositoryArgs,
    before: impl FnOnce(&Place) -> Result<T>,
) -> Result<(tokio::runtime::Runtime, Opened, T)> {
    let context = Context::new(config, flags)?;
    let place = context.one_place()?;
    let made = before(&place)?;
    context.become_owner(None)?;
    let runtime = run::runtime()?;
    let opened = runtime.block_on(place.open())?;
    Ok((runtime, opened, made))
}

fn show(config: Option<&Path>, args: &KeyShowArgs) -> Result<Outcome> {
    let (runtime, opened, ()) = open(config, &args.repository, |_| Ok(()))?;
    let slots = runtime.block_on(opened.repository.key_slots())?;
    let current = opened.repository.keyring().current_epoch();
    let rows = slots.iter().map(|(epoch, id, slot)| {
        let made = Timestamp::from_microsecond(slot.created_us).unwrap_or(Timestamp::UNIX_EPOCH);
        let method = match slot.method() {
            Some(SlotMethod::KeyFile) => "key file",
            Some(SlotMethod::Passphrase) => "passphrase",
            None => "unknown",
        };
        (id, epoch, slot.label.as_str(), method, made)
    });
    if args.output.json {
        let slots: Vec<_> = rows
            .map(|(id, epoch, label, method, made)| {
                json!({"slot": id.to_string(), "epoch": epoch, "label": label,
                       "method": method, "created_at": made})
            })
            .collect();
        Out.json(&json!({"repository": opened.repository.id(), "epoch": current, "slots": slots}))?;
        return Ok(Outcome::Done);
    }
    let columns = [
        ("SLOT", Align::Left),
        ("EPOCH", Align::Right),
        ("METHOD", Align::Left),
        ("MADE", Align::Left),
        ("LABEL", Align::Left),
    ];
    let rows = rows
        .map(|(id, epoch, label, method, made)| {
            vec![id.to_string(), epoch.to_string(), method.to_owned(), utc(made), label.to_owned()]
        })
        .collect();
    Out.text(&table(&columns, rows))?;
    eprintln!("new data is under key epoch {current}: a key with a slot of that epoch opens it");
    Ok(Outcome::Done)
}

fn add(config: Option<&Path>, args: &KeyAddArgs) -> Result<Outcome> {
    let (runtime, opened, key) = open(config, &args.repository, |place| {
        if args.file.exists() {
            return KeyFile::parse(&read_key_text(&args.file, Exposed::Refused)?);
        }
        let key = KeyFile::generate()?;
        let text = format!("# A key of the Seawall repository {}.\n{}\n", place.url, key.line());
        create_secret(&args.file, &text, "key file")?;
        Ok(key)
    })?;
    let unlock = Unlock::KeyFile(key);
    let options = CreateOptions { unlock: &unlock, label: &args.label, now: Timestamp::now() };
    let slots = runtime.block_on(opened.repository.add_key(&options))?;
    for slot in slots {
        Out.line(&slot.to_string())?;
    }
    eprintln!("{} opens the repository now", args.file.display());
    Ok(Outcome::Done)
}

/// Every slot must be able to open the new epoch, or its holder is locked out: only the key at hand
/// can be carried over, so others must be added again.
fn rotate(config: Option<&Path>, args: &KeyRotateArgs) -> Result<Outcome> {
    let (runtime, opened, key) = open(config, &args.repository, Place::key)?;
    let slots = runtime.block_on(opened.repository.key_slots())?;
    let current = opened.repository.keyring().current_epoch();
    let others = slots.iter().filter(|(epoch, ..)| *epoch == current).count().saturating_sub(1);
    if others > 0 {
        eprintln!(
            "{} will not open the repository any more, until `seawall key add FILE` lets each in again",
            counted(others, "other key")
        );
        confirm("Rotate?", args.yes)?;
    }
    // What was asked about is looked at again: an answer takes its time.
    let repository = runtime.block_on(still_as(&opened, &slots))?;
    let unlock = Unlock::KeyFile(key);
    let options = CreateOptions { unlock: &unlock, label: "rotate", now: Timestamp::now() };
    let rotated = runtime.block_on(repository.rotate(&[options]))?;
    let epoch = rotated.keyring().current_epoch();
    if args.output.json {
        Out.json(&json!({"repository": opened.repository.id(), "epoch": epoch}))?;
    } else {
        Out.line(&format!(
            "new data is written under key epoch {epoch}, which the same key file opens"
        ))?;
    }
    eprintln!("what was written before stays readable to whoever had the old key");
    Ok(Outcome::Done)
}

/// The repository opened anew, if its key slots are those that were seen.
async fn still_as(opened: &Opened, seen: &[(u32, Ulid, KeySlot)]) -> Result<Repository> {
    let repository = opened.place.clone().open().await?.repository;
    if repository.key_slots().await? == seen {
        return Ok(repository);
    }
    Err(Error::new(Code::KeysChanged, "keys were added or removed while the question was open")
        .with_hint("Nothing was changed. Look at them, `seawall key show`, and run this again."))
}

fn remove(config: Option<&Path>, args: &KeyRemoveArgs) -> Result<Outcome> {
    let (runtime, opened, key) = open(config, &args.repository, Place::key)?;
    let slots = runtime.block_on(opened.repository.key_slots())?;
    let wanted = args.slot.to_ascii_uppercase();
    let found: Vec<(u32, Ulid)> = slots
        .iter()
        .filter(|(_, id, _)| !wanted.is_empty() && id.to_string().starts_with(&wanted))
        .map(|(epoch, id, _)| (*epoch, *id))
        .collect();
    let [(epoch, id)] = found[..] else {
        return Err(Error::new(
            Code::Usage,
            format!("\"{}\" is not the beginning of exactly one key slot", args.slot),
        )
        .with_hint("`seawall key show` lists the slots."));
    };
    let unlock = Unlock::KeyFile(key);
    let own = slots.iter().find(|(e, i, _)| *e == epoch && *i == id);
    if let Some((_, _, slot)) = own
        && slot.open(id, &unlock)?.is_some()
    {
        return Err(Error::new(
            Code::LastKey,
            format!("slot {id} is the one this very command uses, and its key would open nothing"),
        )
        .with_hint("Use another key to remove it: `seawall key remove SLOT --key FILE`."));
    }
    runtime.block_on(opened.repository.remove_key(epoch, id))?;
    eprintln!("slot {id} is gone; data that its key has read can still be known to its holder");
    Ok(Outcome::Done)
}

fn kit(config: Option<&Path>, args: &KeyKitArgs) -> Result<Outcome> {
    let context = Context::new(config, &args.repository)?;
    let place = context.one_place()?;
    let (url, key) = (place.url.clone(), place.key()?);
    // Proven to open the repository before it is written down.
    let owner_files = context.known_targets(None)?;
    let acting = context.act_as_owner()?;
    let runtime = run::runtime()?;
    let lines = runtime.block_on(async { place.open().await?.repository.lines().await })?;
    drop(acting);
    let mut clusters: Vec<ClusterName> = lines.into_iter().map(|(name, _)| name).collect();
    clusters.dedup();
    if clusters.is_empty() {
        clusters = owner_files.into_iter().map(|target| target.name).collect();
    }
    Kit { clusters, repository: url, key }.create(&args.file, Timestamp::now())?;
    eprintln!("wrote {}: keep it where the database is not", args.file.display());
    Ok(Outcome::Done)
}
