use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use seawall_core::{ClusterName, LocalPath, RateLimit, Ulid};
use seawall_store::StoreUrl;
use serde::{Deserialize, Serialize};

use super::{Budget, Priority};
use crate::check::FindingId;
use crate::restore::Delta;
use crate::restored::{Mode, TablespaceMapping, TargetAction};

/// The version of requests and events that this program speaks.
pub const VERSION: u32 = 1;

/// What a job is asked to do, and with what: `docs/job.md` has every field.
///
/// Written as JSON it holds its secrets, so it goes to the program that runs the job and nowhere
/// else.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a request")]
pub struct JobRequest {
    /// [`VERSION`].
    pub version: u32,
    /// By what it is known, everywhere; a backup gets it as its own id. `None` for one that is made
    /// up.
    #[serde(default, with = "id")]
    pub id: Option<Ulid>,
    /// What to do.
    pub verb: Verb,
    /// The cluster.
    #[serde(default)]
    pub cluster: Option<ClusterName>,
    /// The repositories, in the order they are asked.
    #[serde(default)]
    pub repositories: Vec<JobRepository>,
    /// How to reach the cluster's server.
    #[serde(default)]
    pub connection: Option<ConnectionText>,
    /// Where the server's files are; `None` for where it says.
    #[serde(default)]
    pub data_directory: Option<LocalPath>,
    /// What it may use of the machine.
    #[serde(default)]
    pub budget: Budget,
    /// How fast it may move the cluster's bytes.
    #[serde(default)]
    pub rate: RateLimit,
    /// How it stands among the machine's programs.
    #[serde(default)]
    pub priority: Priority,
}

/// What a job does.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", expecting = "a verb")]
pub enum Verb {
    /// Backs the cluster up into every repository.
    Backup(BackupVerb),
    /// Brings the cluster back into another directory.
    Restore(Box<RestoreVerb>),
    /// Reads and authenticates what every repository holds.
    Verify(VerifyVerb),
    /// Proves that the cluster is protected.
    Check(CheckVerb),
}

/// How to back up.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "an object with the fields of `backup`")]
pub struct BackupVerb {
    /// Lead on from no backup before.
    pub full: bool,
    /// The backup to lead on from: its id, a unique beginning of it, or `latest`; the newest that is
    /// of use if it is absent.
    pub parent: Option<String>,
    /// Notes to keep with it.
    pub annotations: BTreeMap<String, String>,
    /// Let PostgreSQL spread its checkpoint instead of making it at once.
    pub spread_checkpoint: bool,
    /// How long WAL may take to arrive without any progress.
    pub wal_timeout_ms: u64,
}

/// What to restore, and how.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with the fields of `restore`")]
pub struct RestoreVerb {
    /// The data directory to make; absolute.
    pub into: LocalPath,
    /// How far to go.
    #[serde(default)]
    pub target: TargetVerb,
    /// The backup to start from; the best one if it is absent.
    #[serde(default)]
    pub backup: Option<String>,
    /// The timeline to follow: a number, `latest`, or a backup's; the current one if it is absent.
    #[serde(default)]
    pub timeline: Option<String>,
    /// What the result is for.
    #[serde(default = "clone", rename = "as")]
    pub mode: Mode,
    /// What PostgreSQL does at the target.
    #[serde(default)]
    pub then: TargetAction,
    /// Other places for tablespaces.
    #[serde(default)]
    pub tablespaces: Vec<TablespaceMapping>,
    /// The databases that are wanted; all if there is none.
    #[serde(default, with = "crate::as_bytes::names")]
    pub databases: Vec<OsString>,
    /// Whether it may go onto what is in the directory; else that has to be empty.
    #[serde(default)]
    pub delta: Option<Delta>,
    /// Whether the content of the files is proven before a byte is written.
    #[serde(default)]
    pub prove: bool,
    /// Whether it ends when the plan is proven.
    #[serde(default)]
    pub dry_run: bool,
    /// PostgreSQL is started on the result, if that is wanted.
    #[serde(default)]
    pub start: Option<StartVerb>,
}

const fn clone() -> Mode {
    Mode::Clone
}

/// How far a restore goes. A text is a time, `lsn:…`, `xid:…` or `name:…`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", expecting = "a target")]
pub enum TargetVerb {
    /// To the end of the archive.
    #[default]
    Latest,
    /// Only as far as the backup needs to be consistent.
    BackupOnly,
    /// Up to that, and with it.
    To(String),
    /// Up to that, and without it.
    Before(String),
}

/// How a restored server is started.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "an object with the fields of `start`")]
pub struct StartVerb {
    /// The port: a clone takes the first free one from 5433, others the configured one.
    pub port: Option<u16>,
    /// Who asks it; the role its backups were taken as if it is absent.
    pub role: Option<String>,
    /// How long recovery may take.
    pub timeout_ms: u64,
}

impl Default for StartVerb {
    fn default() -> Self {
        Self { port: None, role: None, timeout_ms: 24 * 3_600_000 }
    }
}

impl StartVerb {
    pub(super) const fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }
}

/// What to verify.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "an object with the fields of `verify`")]
pub struct VerifyVerb {
    /// Only what this backup needs: its id, a unique beginning of it, or `latest`.
    pub backup: Option<String>,
    /// How much of the backups' data is read, of a hundred.
    pub sample_percent: u8,
}

/// How to check.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "an object with the fields of `check`")]
pub struct CheckVerb {
    /// How long WAL may take to arrive.
    pub wal_timeout_ms: u64,
    /// Whether advice counts as a finding too.
    pub strict: bool,
    /// Findings that are known, and why they stay.
    pub acknowledge: BTreeMap<FindingId, String>,
}

/// A repository of a job.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a repository")]
pub struct JobRepository {
    /// What to call it.
    pub name: String,
    /// Where it is; `None` for where the host's configuration has the repository of that name.
    #[serde(default, with = "url")]
    pub url: Option<StoreUrl>,
    /// What opens it; `None` for what the host's configuration says.
    #[serde(default)]
    pub key: Option<JobKey>,
    /// The zstd level new data is compressed with; `None` for the usual one.
    #[serde(default)]
    pub compression_level: Option<i32>,
    /// A pack is closed when it has so many bytes; `None` for as many as usual.
    #[serde(default)]
    pub pack_bytes: Option<u64>,
    /// The clusters that a verification has to find in it.
    #[serde(default)]
    pub clusters: Vec<ClusterName>,
}

/// What opens a repository.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", expecting = "a key")]
pub enum JobKey {
    /// The text of a key file or recovery kit.
    Text(String),
    /// A file that holds it, on the machine the job runs on.
    File(LocalPath),
}

/// A libpq connection string or URI, which may hold a password.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ConnectionText(String);

impl ConnectionText {
    /// The text, for whoever connects.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<String> for ConnectionText {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for ConnectionText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ConnectionText(hidden)")
    }
}

impl fmt::Debug for JobKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(_) => f.write_str("Text(hidden)"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}

impl Default for BackupVerb {
    fn default() -> Self {
        let annotations = BTreeMap::new();
        Self {
            full: false,
            parent: None,
            annotations,
            spread_checkpoint: false,
            wal_timeout_ms: 300_000,
        }
    }
}

impl Default for VerifyVerb {
    fn default() -> Self {
        Self { backup: None, sample_percent: 100 }
    }
}

impl Default for CheckVerb {
    fn default() -> Self {
        Self { wal_timeout_ms: 60_000, strict: false, acknowledge: BTreeMap::new() }
    }
}

impl BackupVerb {
    pub(super) const fn wal_timeout(&self) -> Duration {
        Duration::from_millis(self.wal_timeout_ms)
    }
}

impl CheckVerb {
    pub(super) const fn wal_timeout(&self) -> Duration {
        Duration::from_millis(self.wal_timeout_ms)
    }
}

macro_rules! optional_text {
    ($name:ident, $type:ty, $parse:expr) => {
        mod $name {
            use serde::de::Error as _;
            use serde::{Deserialize, Deserializer, Serializer};

            use super::*;

            pub fn serialize<S: Serializer>(
                value: &Option<$type>,
                serializer: S,
            ) -> std::result::Result<S::Ok, S::Error> {
                crate::as_text::serialize_known(value, serializer)
            }

            pub fn deserialize<'de, D: Deserializer<'de>>(
                deserializer: D,
            ) -> std::result::Result<Option<$type>, D::Error> {
                let text: Option<String> = Option::deserialize(deserializer)?;
                text.map(|text| ($parse)(text.as_str()).map_err(D::Error::custom)).transpose()
            }
        }
    };
}

optional_text!(id, Ulid, job_id);
optional_text!(url, StoreUrl, str::parse);

/// A ULID in its one spelling: what is read here is written everywhere, and must be the same. Zero
/// names a line's own facts, and no job.
fn job_id(text: &str) -> Result<Ulid, &'static str> {
    let id = Ulid::from_string(text).ok().filter(|id| id.to_string() == text);
    let id =
        id.ok_or("it is not 26 characters of Crockford's base32, of 128 bits, as a ULID is")?;
    if id.is_nil() {
        return Err("it is zero, and no job's");
    }
    let ms = i64::try_from(id.timestamp_ms()).ok();
    match ms.and_then(|ms| Timestamp::from_millisecond(ms).ok()) {
        Some(_) => Ok(id),
        None => Err("its time is after the year 9999, and cannot be shown"),
    }
}

#[cfg(test)]
mod tests {
    use seawall_core::Code;

    use super::*;

    const WHOLE: &str = r#"{"version":1,"id":"01J8ZQ3V5W8ZJ6Q2K7M4N9P0RS","verb":{"backup":{"full":false,"parent":"latest~1","annotations":{"why":"test"},"spread_checkpoint":true,"wal_timeout_ms":1000}},"cluster":"main","repositories":[{"name":"primary","url":"file:///srv/seawall","key":{"text":"seawall-key-1-hunter2"},"compression_level":3,"pack_bytes":1048576,"clusters":["main"]}],"connection":"host=db1 password=hunter2","data_directory":"/data","budget":{"threads":2,"memory_bytes":67108864,"heaps":1},"rate":"50MB/s","priority":"low"}"#;

    #[test]
    fn a_request_has_stable_names_and_is_read_as_it_was_written() {
        let request = JobRequest::parse(WHOLE).unwrap();
        assert_eq!(serde_json::to_string(&request).unwrap(), WHOLE);
        let least = r#"{"version":1,"verb":{"check":{}}}"#;
        let request = JobRequest::parse(least).unwrap();
        assert!(request.repositories.is_empty() && request.budget == Budget::default());
    }

    #[test]
    fn a_restore_goes_onto_what_is_there_only_if_that_is_said() {
        let delta = |said: &str| {
            let json = format!(r#"{{"version":1,"verb":{{"restore":{{"into":"/x"{said}}}}}}}"#);
            match JobRequest::parse(&json).unwrap().verb {
                Verb::Restore(verb) => verb.delta,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(delta(""), None);
        assert_eq!(delta(r#","delta":{}"#), Some(Delta { force: false }));
        assert_eq!(delta(r#","delta":{"force":true}"#), Some(Delta { force: true }));
    }

    #[test]
    fn what_is_not_understood_is_refused_whole() {
        for (json, problem) in [
            (r#"{"version":1,"verb":{"restore":{"into":"/x","delta":{"fource":true}}}}"#, "fource"),
            ("", "line 1, column 0"),
            (r#"{"verb":{"check":{}}}"#, "no version"),
            (r#"{"version":2,"verb":{"rewind":{}},"speed":1}"#, "version 2"),
            (r#"{"version":1}"#, "verb"),
            (r#"{"version":1,"verb":{"rewind":{}}}"#, "rewind"),
            (r#"{"version":1,"verb":{"check":{}},"speed":1}"#, "speed"),
            (r#"{"version":1,"verb":{"check":{"speed":1}}}"#, "speed"),
            (r#"{"version":1,"verb":{"check":{}},"budget":{"threads":0}}"#, "zero"),
            (r#"{"version":1,"verb":{"check":{}},"id":"1"}"#, "26 characters"),
        ] {
            let error = JobRequest::parse(json).unwrap_err();
            assert_eq!(error.code(), Code::JobRequestInvalid);
            assert!(error.message().contains(problem), "{json}: {error:?}");
        }
    }

    #[test]
    fn an_id_is_a_ulid_in_its_one_spelling_and_none_is_changed() {
        let asked = |id: &str| {
            JobRequest::parse(&format!(r#"{{"version":1,"verb":{{"check":{{}}}},"id":"{id}"}}"#))
        };
        for id in ["01J8ZQ3V5W8ZJ6Q2K7M4N9P0RS", "00000000000000000000000001"] {
            assert_eq!(asked(id).unwrap().id.unwrap().to_string(), id);
        }
        for id in [
            "8ZZZZZZZZZZZZZZZZZZZZZZZZZ",
            "ZZZZZZZZZZZZZZZZZZZZZZZZZZ",
            "7ZZZZZZZZZZZZZZZZZZZZZZZZZ",
            "00000000000000000000000000",
            "01j8zq3v5w8zj6q2k7m4n9p0rs",
            "01J8ZQ3V5W8ZJ6Q2K7M4N9P0RU",
            "01J8ZQ3V5W8ZJ6Q2K7M4N9P0R",
            "01J8ZQ3V5W8ZJ6Q2K7M4N9P0RSS",
            "",
        ] {
            assert_eq!(asked(id).unwrap_err().code(), Code::JobRequestInvalid, "{id}");
        }
    }

    #[test]
    fn no_secret_is_shown_wherever_it_stands() {
        let request = JobRequest::parse(WHOLE).unwrap();
        assert!(!format!("{request:?}").contains("hunter2"));
        for json in [
            r#"{"version":1,"verb":{"check":{}},"repositories":[{"name":"a","key":"hunter2"}]}"#,
            r#"{"version":1,"verb":"hunter2"}"#,
            r#"{"version":1,"verb":{"check":{}},"budget":"hun\"ter2"}"#,
            r#"{"version":1,"verb":{"check":{}},"rate":"hunter2"}"#,
        ] {
            let error = JobRequest::parse(json).unwrap_err();
            assert!(!format!("{error:?}").contains("ter2"), "{error:?}");
        }
    }

    #[test]
    fn a_refusal_is_in_words_and_says_where() {
        for (rest, told) in [
            (
                r#""repositories":[{"name":"a","key":{"text":"x","e":"e"}}]"#,
                "an object with one key",
            ),
            (r#""repositories":{"name":"a"}"#, "an object is where a list belongs"),
            (r#""verb":5"#, "a text, or an object with one key"),
            (r#""verb":{"verify":7}"#, "where an object with the fields of `verify` belongs"),
            (r#""verb":{"verify":{"sample_percent":"all"}}"#, "a text is where a number belongs"),
            (r#""verb":{"check":{"e":1}}"#, "`e` is unknown; known are `wal_timeout_ms`"),
            (r#""verb":{"restore":{}}"#, "`into` is missing"),
            (r#""verb":{"backup":{"annotations":{"a":"1","a":"2"}}}"#, "`a` is there twice"),
        ] {
            let error = JobRequest::parse(&format!("{{\"version\":1,{rest}}}")).unwrap_err();
            let message = error.message();
            assert!(message.contains(told), "{rest}: {message}");
            assert!(message.contains(", at line 1, column "), "{message}");
            for raw in
                ["struct", "enum", "variant", "invalid", "u64", "u8", "map", "sequence", "***"]
            {
                assert!(!message.contains(raw), "{message}");
            }
        }
    }
}
