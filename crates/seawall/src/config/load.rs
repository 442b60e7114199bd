use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use seawall_core::{Action, ByteSize, ClusterName, Code, Error, RateLimit, Result, hint};
use seawall_engine::check::FindingId;
use toml::de::DeTable;

use super::exposure::too_open;
use super::retention::retention;
use super::walk::{Document, Keys, Section};
use super::{
    ClusterConfig, Config, ConnectionSource, DEFAULT_MEMORY, DEFAULT_PACK_SIZE, RepositoryConfig,
    SecretSource, Source,
};
use crate::access;
use seawall_engine::job::Priority;

/// Where the configuration is unless a flag or `SEAWALL_CONFIG` says otherwise.
pub const DEFAULT_PATH: &str = "/etc/seawall/seawall.toml";

const TOP: Keys = Keys {
    known: &["jobs", "memory", "rate_limit", "priority", "cluster", "repository"],
    later: &[],
};

const CLUSTER: Keys = Keys {
    known: &["connection", "data_directory", "source", "repositories", "acknowledge", "retention"],
    later: &["wal", "backup", "drill", "objectives", "schedule", "rate_limit"],
};

const REPOSITORY: Keys = Keys {
    known: &["url", "key", "compression", "pack_size", "retention"],
    later: &["rate_limit"],
};

const FINDINGS: Keys = Keys { known: FindingId::NAMES, later: &[] };

const SECRET: Keys = Keys { known: &["file", "env", "command"], later: &[] };

const CONNECTION: Keys = Keys { known: &["file"], later: &[] };

/// Packs smaller than this make more objects than data; larger ones are tedious to send again.
const PACK_SIZE_RANGE: std::ops::RangeInclusive<u64> = (1 << 20)..=(1 << 30);

/// Less leaves no room for one worker.
const MEMORY_MIN: u64 = 64 << 20;

/// What helps on a machine that has none, as after a disaster.
const WITHOUT: &str = "To use a repository without one: `--kit FILE`, or `--repo URL --key FILE`.";

/// Reads the configuration a command needs.
///
/// # Errors
/// [`Code::ConfigUnreadable`] or [`Code::ConfigInvalid`].
pub fn load(explicit: Option<&Path>) -> Result<Config> {
    load_if_any(explicit)?.ok_or_else(|| {
        Error::new(
            Code::ConfigUnreadable,
            format!("there is no configuration: {DEFAULT_PATH} does not exist, and neither --config nor SEAWALL_CONFIG names another file"),
        )
        .with_hint(hint![
            format!("{WITHOUT} To protect a cluster and write one: "),
            Action::Init { cluster: None, repository: None },
            "."
        ])
    })
}

/// Reads the configuration; `None` if no file was named and there is none in the default place.
///
/// # Errors
/// As [`load`], but for that.
pub fn load_if_any(explicit: Option<&Path>) -> Result<Option<Config>> {
    let path = explicit.unwrap_or(Path::new(DEFAULT_PATH));
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && explicit.is_none() => {
            return Ok(None);
        }
        Err(error) => return Err(unreadable(path, error)),
    };
    warn_if_writable_by_others(path);
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let config = parse(&path, &text)?;
    warn_if_a_password_is_exposed(&path, &config);
    Ok(Some(config))
}

/// Commands that log in refuse it. To refuse it here would stop an archiver that works, and needs no
/// password.
fn warn_if_a_password_is_exposed(path: &Path, config: &Config) {
    let connections = config.clusters.values().filter_map(|cluster| cluster.connection.as_ref());
    if connections.into_iter().any(ConnectionSource::has_secret)
        && let Some(open) = too_open(path)
    {
        let (shown, close) = (path.display(), open.close(path));
        tracing::warn!("others can read a password in {shown}: {open}; close it: {close}");
    }
}

fn unreadable(path: &Path, error: std::io::Error) -> Error {
    let hint = match error.kind() {
        std::io::ErrorKind::NotFound => {
            format!(
                "{WITHOUT} Else name the right file, or write one: `seawall init CLUSTER --repo URL --kit FILE --config FILE`."
            )
        }
        _ => access::unreadable(path, &error)
            .unwrap_or_else(|| format!("See what it is: `ls -ld {}`. {WITHOUT}", path.display())),
    };
    Error::new(Code::ConfigUnreadable, format!("cannot read the configuration {}", path.display()))
        .with_source(error)
        .with_hint(hint)
}

fn warn_if_writable_by_others(path: &Path) {
    let writable = std::fs::metadata(path).is_ok_and(|file| file.permissions().mode() & 0o022 != 0);
    if writable {
        tracing::warn!(
            "other users can write to the configuration {0}, and it names commands that Seawall runs: chmod go-w {0}",
            path.display()
        );
    }
}

/// Reads a configuration from its text.
///
/// # Errors
/// [`Code::ConfigInvalid`], with the line.
pub fn parse(path: &Path, text: &str) -> Result<Config> {
    let document = Document { path, text };
    let table = DeTable::parse(text)
        .map_err(|error| document.invalid(error.span(), one_line(error.message())))?;
    let top = Section::top(document, table.get_ref(), TOP)?;
    let mut config = Config { path: Some(path.to_owned()), ..Config::none() };
    if let Some(jobs) = top.string_or_integer("jobs")? {
        config.jobs = parse_jobs(&jobs).map_err(|problem| top.wrong("jobs", problem))?;
    }
    config.memory = top.parsed("memory", parse_memory)?.unwrap_or(DEFAULT_MEMORY);
    config.rate_limit = top.parsed("rate_limit", parse_rate_limit)?.unwrap_or(RateLimit::NONE);
    config.priority = top.parsed("priority", parse_priority)?.unwrap_or_default();
    for (name, section) in top.named("repository", REPOSITORY)? {
        config.repositories.insert(name, repository(&section)?);
    }
    for (name, section) in top.named("cluster", CLUSTER)? {
        let name: ClusterName = name.parse().map_err(|error| document.invalid(None, error))?;
        config.clusters.insert(name, cluster(&section, &config.repositories)?);
    }
    Ok(config)
}

fn cluster(
    section: &Section<'_>,
    known: &BTreeMap<String, RepositoryConfig>,
) -> Result<ClusterConfig> {
    let repositories = section.strings("repositories")?;
    let repositories = repositories.ok_or_else(|| section.missing("repositories"))?;
    if repositories.is_empty() {
        return Err(section.wrong("repositories", "it names no repository"));
    }
    if let Some(name) = repositories.iter().find(|name| !known.contains_key(*name)) {
        return Err(
            section.wrong("repositories", format!("there is no section [repository.{name}]"))
        );
    }
    Ok(ClusterConfig {
        connection: connection(section)?,
        data_directory: section.parsed("data_directory", absolute_path)?,
        source: section.parsed("source", parse_source)?.unwrap_or_default(),
        repositories,
        acknowledge: acknowledged(section)?,
        retention: retention(section)?,
    })
}

/// A text, or `{ file = "…" }`.
fn connection(section: &Section<'_>) -> Result<Option<ConnectionSource>> {
    if !section.is_table("connection") {
        return Ok(section.string("connection")?.map(ConnectionSource::Text));
    }
    let Some((_, path)) = section.choice("connection", CONNECTION)? else { return Ok(None) };
    let path = absolute_path(&path).map_err(|problem| section.wrong("connection", problem))?;
    Ok(Some(ConnectionSource::File(path)))
}

/// The findings somebody knows of, and why they stay.
fn acknowledged(section: &Section<'_>) -> Result<BTreeMap<FindingId, String>> {
    let mut acknowledged = BTreeMap::new();
    for (name, reason) in section.texts("acknowledge", FINDINGS)? {
        let wrong = |what: String| Err(section.wrong("acknowledge", what));
        match FindingId::of_name(&name) {
            Some(id) if !id.may_be_acknowledged() => {
                return wrong(format!(
                    "{name} cannot be acknowledged: WAL or backups do not get where they should"
                ));
            }
            Some(_) if reason.trim().is_empty() => {
                return wrong(format!("{name} needs its reason: {name} = \"why it stays so\""));
            }
            Some(id) => drop(acknowledged.insert(id, reason)),
            None => return wrong(format!("there is no finding {name}")),
        }
    }
    Ok(acknowledged)
}

/// The names of the clusters in a file, as far as it is TOML at all: for a monitor that has to be
/// told which ones nothing is known of.
pub fn named_clusters(explicit: Option<&Path>) -> Vec<ClusterName> {
    let Ok(text) = std::fs::read_to_string(explicit.unwrap_or(Path::new(DEFAULT_PATH))) else {
        return Vec::new(); // Why it cannot be read is told by the error this is asked for.
    };
    let Ok(table) = DeTable::parse(&text) else { return Vec::new() };
    let clusters = table.get_ref().get("cluster").and_then(|value| value.get_ref().as_table());
    let names = clusters.into_iter().flat_map(|clusters| clusters.keys());
    names.filter_map(|name| name.get_ref().parse().ok()).collect()
}

fn repository(section: &Section<'_>) -> Result<RepositoryConfig> {
    let url = section.parsed("url", |text| {
        text.parse().map_err(|e: seawall_store::InvalidStoreUrl| e.to_string())
    })?;
    let url = url.ok_or_else(|| section.missing("url"))?;
    let (kind, text) = section.choice("key", SECRET)?.ok_or_else(|| section.missing("key"))?;
    let key = match kind.as_str() {
        "file" => {
            let path = absolute_path(&text).map_err(|problem| section.wrong("key", problem))?;
            SecretSource::File(path)
        }
        "env" => SecretSource::Env(text),
        _ => SecretSource::Command(text),
    };
    Ok(RepositoryConfig {
        url,
        key,
        compression_level: section
            .parsed("compression", parse_compression)?
            .unwrap_or(DEFAULT_COMPRESSION_LEVEL),
        pack_size: section.parsed("pack_size", parse_pack_size)?.unwrap_or(DEFAULT_PACK_SIZE),
        retention: retention(section)?,
    })
}

/// What `zstd` alone means.
pub const DEFAULT_COMPRESSION_LEVEL: i32 = seawall_engine::job::COMPRESSION_LEVEL;

/// `auto` or a number of workers.
pub fn parse_jobs(text: &str) -> Result<Option<NonZeroUsize>, String> {
    match text {
        "auto" => Ok(None),
        number => number
            .parse()
            .map(Some)
            .map_err(|_| format!("\"{number}\" is neither auto nor a number from 1")),
    }
}

/// A size of at least 64 MiB.
pub fn parse_memory(text: &str) -> Result<ByteSize, String> {
    let size: ByteSize = text.parse().map_err(|e: seawall_core::InvalidByteSize| e.to_string())?;
    if size.0 < MEMORY_MIN {
        return Err(format!("{size} is too little to work in; at least {}", ByteSize(MEMORY_MIN)));
    }
    Ok(size)
}

/// A duration as in `90s`, `5m`, `26h`, `14d` or `2h 30m`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("\"{text}\" is not a duration such as 90s, 5m, 26h or 2d");
    if let Some(days) = text.strip_suffix('d') {
        let days: u64 = days.trim().parse().map_err(|_| wrong())?;
        return days.checked_mul(86_400).map(Duration::from_secs).ok_or_else(wrong);
    }
    let duration: jiff::SignedDuration = text.parse().map_err(|_| wrong())?;
    Duration::try_from(duration).map_err(|_| wrong())
}

/// `none`, or a rate, at some hours or always.
pub fn parse_rate_limit(text: &str) -> Result<RateLimit, String> {
    text.parse().map_err(|error: seawall_core::InvalidRateLimit| error.to_string())
}

/// `normal` or `low`.
pub fn parse_priority(text: &str) -> Result<Priority, String> {
    match text {
        "normal" => Ok(Priority::Normal),
        "low" => Ok(Priority::Low),
        _ => Err(format!("\"{text}\" is neither normal nor low")),
    }
}

/// A size from 1 MiB to 1 GiB.
pub fn parse_pack_size(text: &str) -> Result<ByteSize, String> {
    let size: ByteSize = text.parse().map_err(|e: seawall_core::InvalidByteSize| e.to_string())?;
    if PACK_SIZE_RANGE.contains(&size.0) {
        Ok(size)
    } else {
        Err(format!("{size} is not between 1 MiB and 1 GiB"))
    }
}

/// `zstd`, or `zstd:1` to `zstd:19`: the level.
pub fn parse_compression(text: &str) -> Result<i32, String> {
    if text == "zstd" {
        return Ok(DEFAULT_COMPRESSION_LEVEL);
    }
    text.strip_prefix("zstd:")
        .and_then(|level| level.parse().ok())
        .filter(|level| (1..=19).contains(level))
        .ok_or_else(|| format!("\"{text}\" is not a compression: zstd, or zstd:1 to zstd:19"))
}

fn parse_source(text: &str) -> Result<Source, String> {
    match text {
        "auto" => Ok(Source::Auto),
        "files" => Ok(Source::Files),
        "sql" | "stream" => Err(format!("\"{text}\" is not supported by this version")),
        _ => Err(format!("\"{text}\" is not a source: auto or files")),
    }
}

/// `archive_command` runs in the data directory, so a relative path would mean something else there.
fn absolute_path(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if path.is_absolute() { Ok(path) } else { Err(format!("\"{text}\" is not an absolute path")) }
}

fn one_line(message: &str) -> String {
    message.lines().collect::<Vec<_>>().join(", ")
}
