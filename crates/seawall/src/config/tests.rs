use std::path::Path;

use seawall_core::{ByteSize, Code, RateLimit};

use seawall_repo::retention::{Keep, Policy};

use super::{Config, SecretSource, Source, parse};
use crate::render::sentence;
use seawall_engine::job::Priority;

const WHOLE: &str = r#"
jobs = 4
memory = "256MiB"
rate_limit = "50MB/s 08:00-20:00 UTC"
priority = "low"

[cluster.main]
connection = "host=/run/postgresql user=postgres"
data_directory = "/var/lib/postgresql/15/main"
source = "files"
repositories = ["primary", "offsite"]
retention = { last = 3, window = "14d", age = "90d", keep = { daily = 7, yearly = 2 }, zone = "Europe/Berlin" }

[repository.primary]
url = "file:///srv/seawall"
key = { file = "/etc/seawall/primary.key" }
compression = "zstd:3"
pack_size = "128MiB"

[repository.offsite]
url = "/mnt/offsite"
key = { command = "pass show seawall" }
retention = { keep = { monthly = 12 } }
"#;

fn read(text: &str) -> seawall_core::Result<Config> {
    parse(Path::new("/etc/seawall/seawall.toml"), text)
}

fn refusal(text: &str) -> String {
    let error = read(text).unwrap_err();
    assert_eq!(error.code(), Code::ConfigInvalid);
    format!("{}\n{}", error.chain(), error.hint().map_or_else(|| "-".to_owned(), sentence))
}

#[test]
fn everything_this_version_acts_upon_is_read() {
    let config = read(WHOLE).unwrap();
    assert_eq!(config.jobs.map(std::num::NonZeroUsize::get), Some(4));
    assert_eq!(config.memory, ByteSize(256 << 20));
    assert_eq!(Ok(config.rate_limit.clone()), "50MB/s 08:00-20:00 UTC".parse());
    assert_eq!(config.priority, Priority::Low);
    let cluster = &config.clusters[&"main".parse().unwrap()];
    assert_eq!(cluster.repositories, ["primary", "offsite"]);
    assert_eq!(cluster.source, Source::Files);
    let primary = &config.repositories["primary"];
    assert_eq!(primary.compression_level, 3);
    assert_eq!(primary.pack_size, ByteSize(128 << 20));
    assert_eq!(primary.key, SecretSource::File("/etc/seawall/primary.key".into()));
    let offsite = &config.repositories["offsite"];
    assert_eq!(offsite.url.to_string(), "file:///mnt/offsite");
    assert_eq!(offsite.compression_level, 1);
    assert_eq!(offsite.key, SecretSource::Command("pass show seawall".to_owned()));
}

#[test]
fn what_is_kept_is_said_of_a_cluster_and_of_a_repository_that_has_its_own() {
    let config = read(WHOLE).unwrap();
    let main = "main".parse().unwrap();
    let primary = config.retention(&main, "primary");
    let hours = jiff::SignedDuration::from_hours;
    assert_eq!(primary.last.map(std::num::NonZeroU32::get), Some(3));
    assert_eq!((primary.window, primary.age), (Some(hours(14 * 24)), Some(hours(90 * 24))));
    assert_eq!(primary.keep, Keep { daily: 7, yearly: 2, ..Keep::NONE });
    assert_eq!(primary.zone.iana_name(), Some("Europe/Berlin"));
    let offsite = config.retention(&main, "offsite");
    assert_eq!(offsite, Policy { keep: Keep { monthly: 12, ..Keep::NONE }, ..Policy::none() });
    assert!(config.retention(&"other".parse().unwrap(), "primary").is_none());
    assert!(config.retention(&"other".parse().unwrap(), "elsewhere").is_none());
}

#[test]
fn an_empty_file_has_the_defaults() {
    let config = read("").unwrap();
    assert_eq!(config.jobs, None);
    assert_eq!(config.rate_limit, RateLimit::NONE);
    assert_eq!(config.priority, Priority::Normal);
    assert_eq!(config.memory, ByteSize(128 << 20));
    assert!(config.clusters.is_empty());
}

/// Each pair is what stands in the file, and what replaces it.
fn spoiled(good: &str, bad: &str) -> String {
    assert!(WHOLE.contains(good), "{good}");
    refusal(&WHOLE.replacen(good, bad, 1))
}

#[test]
fn every_refusal_names_file_line_and_remedy() {
    let refusals = [
        spoiled("jobs = 4", "jbos = 4"),
        spoiled("jobs = 4", "jobs = 0"),
        spoiled("jobs = 4", "jobs = true"),
        spoiled("jobs = 4", "jobs = = 4"),
        spoiled("\"50MB/s 08", "\"50MB 08"),
        spoiled("\"low\"", "\"idle\""),
        spoiled("\"256MiB\"", "\"256 megs\""),
        spoiled("\"256MiB\"", "\"63MiB\""),
        spoiled("connection =", "conection ="),
        spoiled("connection =", "zzz ="),
        spoiled("source = \"files\"", "source = \"sql\""),
        spoiled("source = \"files\"", "drill = { schedule = \"0 5 * * 0\" }"),
        spoiled("last = 3", "lsat = 3"),
        spoiled("last = 3", "last = 0"),
        spoiled("last = 3", "last = -1"),
        spoiled("last = 3", "last = \"3\""),
        spoiled("\"14d\"", "\"two weeks\""),
        spoiled("\"14d\"", "\"0d\""),
        spoiled("\"14d\"", "\"90d\""),
        spoiled("daily = 7", "dayly = 7"),
        spoiled("keep = { daily = 7, yearly = 2 }", "keep = 7"),
        spoiled("Europe/Berlin", "Middle/Earth"),
        spoiled("keep = { monthly = 12 }", "zone = \"UTC\""),
        spoiled("[\"primary\", \"offsite\"]", "[\"primary\", \"elsewhere\"]"),
        spoiled("[\"primary\", \"offsite\"]", "\"primary\""),
        spoiled("[\"primary\", \"offsite\"]", "[]"),
        spoiled("\"/var/lib/postgresql/15/main\"", "\"15/main\""),
        spoiled("[cluster.main]", "[cluster.Main]"),
        spoiled("\"file:///srv/seawall\"", "\"s3://bucket\""),
        spoiled("url = \"file:///srv/seawall\"", ""),
        spoiled("{ file = \"/etc/seawall/primary.key\" }", "\"seawall-key-1-abc\""),
        spoiled("{ file = \"/etc/seawall/primary.key\" }", "{ file = \"/k\", env = \"K\" }"),
        spoiled("{ file = \"/etc/seawall/primary.key\" }", "{ flie = \"/k\" }"),
        spoiled("zstd:3", "zstd:20"),
        spoiled("128MiB", "2GiB"),
    ];
    insta::assert_snapshot!(refusals.join("\n\n"));
}
