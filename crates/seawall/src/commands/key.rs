//! `seawall key`: what opens a repository.

use std::path::Path;

use jiff::Timestamp;
use seawall_core::{Action, ClusterName, Code, Error, Result, ResultExt, Ulid, counted, hint};
use seawall_repo::keys::{KeyFile, KeySlot, SlotMethod, Unlock};
use seawall_repo::{CreateOptions, Repository};
use seawall_store::StoreUrl;
use serde_json::json;

use crate::args::{
    KeyAddArgs, KeyCommand, KeyKitArgs, KeyRemoveArgs, KeyRotateArgs, KeyShowArgs, RepositoryArgs,
};
use crate::config::{Exposed, SecretSource, read_key_text, replace_key};
use crate::context::{Context, Opened, Place};
use crate::exit::Outcome;
use crate::kit::{Kit, create_secret_for};
use crate::owner::Owner;
use crate::render::{Align, Out, Style, command, confirm, sentence, table, utc};
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
    before: impl FnOnce(&Context, &Place) -> Result<T>,
) -> Result<(tokio::runtime::Runtime, Opened, T)> {
    let context = Context::new(config, flags)?;
    let place = context.one_place()?;
    let made = before(&context, &place)?;
    context.become_owner(None)?;
    let runtime = run::runtime()?;
    let opened = runtime.block_on(place.open())?;
    Ok((runtime, opened, made))
}

fn show(config: Option<&Path>, args: &KeyShowArgs) -> Result<Outcome> {
    let (runtime, opened, key) = open(config, &args.repository, |_, place| place.key())?;
    let slots = runtime.block_on(opened.repository.key_slots())?;
    let current = opened.repository.keyring().current_epoch();
    let unlock = Unlock::KeyFile(key);
    let mut rows = Vec::new();
    for (epoch, id, slot) in &slots {
        let made = Timestamp::from_microsecond(slot.created_us).unwrap_or(Timestamp::UNIX_EPOCH);
        let method = match slot.method() {
            Some(SlotMethod::KeyFile) => "key file",
            Some(SlotMethod::Passphrase) => "passphrase",
            None => "unknown",
        };
        let opened = slot.open(*id, &unlock)?.is_some();
        rows.push((id.to_string(), epoch, slot.label.as_str(), method, made, opened));
    }
    if args.output.json {
        let slots: Vec<_> = rows
            .into_iter()
            .map(|(id, epoch, label, method, made, opened)| {
                json!({"slot": id, "epoch": epoch, "label": label, "method": method,
                       "created_at": made, "opened": opened})
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
        ("KEY", Align::Left),
        ("LABEL", Align::Left),
    ];
    let rows = rows
        .into_iter()
        .map(|(id, epoch, label, method, made, opened)| {
            let key = if opened { "this one" } else { "another" };
            let (epoch, method, label) = (epoch.to_string(), method.to_owned(), label.to_owned());
            vec![id, epoch, method, utc(made), key.to_owned(), label]
        })
        .collect();
    Out.text(&table(&columns, rows))?;
    eprintln!("new data is under key epoch {current}: a key with a slot of that epoch opens it");
    eprintln!(
        "this one: the key that was used now; a recovery kit that holds it counts as the same"
    );
    Ok(Outcome::Done)
}

fn add(config: Option<&Path>, args: &KeyAddArgs) -> Result<Outcome> {
    let context = Context::new(config, &args.repository)?;
    let place = context.one_place()?;
    let there = args.file.exists();
    let key = if there {
        KeyFile::parse(&read_key_text(&args.file, Exposed::Refused)?)?
    } else {
        KeyFile::generate()?
    };
    let url = place.url.clone();
    let runtime = run::runtime()?;
    let acting = context.act_as_owner()?;
    let repository = runtime.block_on(place.open())?.repository;
    drop(acting);
    if !there {
        // Durable before anything opens with it, and only where there is something to open.
        create_key_file(&context.owner_or_current(), &args.file, &url, &key)?;
    }
    let unlock = Unlock::KeyFile(key);
    let options = CreateOptions { unlock: &unlock, label: &args.label, now: Timestamp::now() };
    let acting = context.act_as_owner()?;
    let added = runtime.block_on(repository.add_key(&options));
    drop(acting);
    if added.is_err() && !there {
        // Somebody would keep it for a key that opens the backups.
        std::fs::remove_file(&args.file).code(Code::LocalIo, || {
            format!("cannot remove {}, which opens nothing", args.file.display())
        })?;
    }
    for slot in added? {
        Out.line(&slot.to_string())?;
    }
    eprintln!("{} opens the repository now", args.file.display());
    Ok(Outcome::Done)
}

fn create_key_file(reader: &Owner, path: &Path, url: &StoreUrl, key: &KeyFile) -> Result<()> {
    let text = format!("# A key of the Seawall repository {url}.\n{}\n", key.line());
    create_secret_for(reader, path, &text, "key file")?;
    if !reader.is_current() {
        eprintln!("made {}, which belongs to {}", path.display(), reader.name());
    }
    Ok(())
}

/// Every slot must be able to open the new epoch, or its holder is locked out: only the key at hand
/// can be carried over, so others must be added again.
fn rotate(config: Option<&Path>, args: &KeyRotateArgs) -> Result<Outcome> {
    let (runtime, opened, (key, configured)) = open(config, &args.repository, |context, place| {
        Ok((place.key()?, Configured::of(context, place)))
    })?;
    let slots = runtime.block_on(opened.repository.key_slots())?;
    let current = opened.repository.keyring().current_epoch();
    let (own, others) = of_epoch(&slots, current, &key)?;
    tell_who_stays(own.as_deref(), args.repository.kit.as_deref());
    if !others.is_empty() {
        eprintln!(
            "{} will not open the repository any more, neither for reading nor for archiving, and no recovery kit that holds one will: {}",
            counted(others.len(), "other key"),
            others.join(", ")
        );
        eprintln!(
            "`{}` lets each in again; the key used now stays, and so does a kit that holds it",
            command(&Action::AddKey)
        );
        if let Some(told) = configured.and_then(|configured| configured.told(&key)) {
            eprintln!("{told}");
        }
        confirm("Rotate the repository's key?", args.yes)?;
    }
    // What was asked about is looked at again: an answer takes its time.
    let repository = runtime.block_on(still_as(&opened, &slots))?;
    let label = own.unwrap_or_else(|| "rotate".to_owned());
    let unlock = Unlock::KeyFile(key);
    let options = CreateOptions { unlock: &unlock, label: &label, now: Timestamp::now() };
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

/// A rotation shuts out other keys and not the one at hand, whoever has a copy of it.
fn tell_who_stays(label: Option<&str>, kit: Option<&Path>) {
    let label = label.map_or_else(String::new, |label| format!(" (\"{label}\")"));
    let kit = kit.map_or_else(String::new, |kit| format!(", {} too,", kit.display()));
    eprintln!(
        "{} the key used now{label} opens the new epoch as well: every copy of this key and its kits{kit} still opens everything. If one of them may be in wrong hands, {}",
        Style::of_stderr().yellow("warning:"),
        sentence(&replace_key())
    );
}

/// The repository opened anew, if its key slots are those that were seen.
async fn still_as(opened: &Opened, seen: &[(u32, Ulid, KeySlot)]) -> Result<Repository> {
    let repository = opened.place.clone().open().await?.repository;
    if repository.key_slots().await? == seen {
        return Ok(repository);
    }
    Err(Error::new(Code::KeysChanged, "keys were added or removed while the question was open")
        .with_hint(hint![
            "Nothing was changed. Look at them, ",
            Action::ShowKeys,
            ", and run this again."
        ]))
}

/// The label of the slot that a key opens in an epoch, and all others of it as a person knows them.
fn of_epoch(
    slots: &[(u32, Ulid, KeySlot)],
    current: u32,
    key: &KeyFile,
) -> Result<(Option<String>, Vec<String>)> {
    let unlock = Unlock::KeyFile(key.clone());
    let (mut own, mut others) = (None, Vec::new());
    for (_, id, slot) in slots.iter().filter(|(epoch, ..)| *epoch == current) {
        if slot.open(*id, &unlock)?.is_some() {
            own.get_or_insert_with(|| slot.label.clone());
            continue;
        }
        let made = Timestamp::from_microsecond(slot.created_us).unwrap_or(Timestamp::UNIX_EPOCH);
        others.push(format!("\"{}\" of {} ({id})", slot.label, utc(made)));
    }
    Ok((own, others))
}

/// The key that archiving and backups on this machine use.
struct Configured {
    repository: String,
    source: SecretSource,
    file: String,
}

impl Configured {
    fn of(context: &Context, place: &Place) -> Option<Self> {
        let configured = context.config.repositories.get(&place.name)?;
        let file = context.config.shown_path();
        Some(Self { repository: place.name.clone(), source: configured.key.clone(), file })
    }

    /// What has to be done so that archiving goes on, if it uses another key than `key`.
    fn told(&self, key: &KeyFile) -> Option<String> {
        // A command is not run for this: it may ask somebody.
        let same = match &self.source {
            SecretSource::Command(_) => return None,
            source => source.resolve(Exposed::Told).and_then(|text| KeyFile::parse(&text)),
        };
        if same.is_ok_and(|configured| configured.line() == key.line()) {
            return None;
        }
        Some(format!(
            "archiving and backups here use another key: [repository.{}] in {} needs the key used now (`key = {{ file = … }}`), or archiving fails from the rotation on",
            self.repository, self.file
        ))
    }
}

fn remove(config: Option<&Path>, args: &KeyRemoveArgs) -> Result<Outcome> {
    let (runtime, opened, key) = open(config, &args.repository, |_, place| place.key())?;
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
        .with_hint(hint![Action::ShowKeys, " lists the slots."]));
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
