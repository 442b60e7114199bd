//! Arguments as they may be shown again: in hints, and in errors about the command line.
//!
//! What is typed in the wrong place or cut by a missing quote is not what it was meant to be, so a
//! password is looked for in every argument, not only in those that may hold one.

use seawall_pgwire::{Conninfo, masked_conninfo};

/// What stands for a secret.
const HIDDEN: &str = "***";

/// An argument without a password that it may have in it.
pub fn masked(argument: &str) -> String {
    match argument.split_once('=') {
        Some((flag, value)) if flag.starts_with("--") => format!("{flag}={}", masked_value(value)),
        _ => masked_value(argument),
    }
}

fn masked_value(value: &str) -> String {
    match value.parse::<Conninfo>() {
        Ok(conninfo) if conninfo.has_secret() => {
            format!("{} password={HIDDEN}", masked_conninfo(value)).trim_start().to_owned()
        }
        Ok(_) => value.to_owned(),
        Err(_) => masked_text(value),
    }
}

/// What is no connection string may be half of one, or the URL of a store.
fn masked_text(text: &str) -> String {
    if let Some((scheme, rest)) = text.split_once("://")
        && let Some((_, place)) = rest.rsplit_once('@')
    {
        return format!("{scheme}://{HIDDEN}@{}", masked_text(place));
    }
    if let Some((login, place)) = text.rsplit_once('@')
        && let Some((user, _)) = login.split_once(':')
    {
        return format!("{user}:{HIDDEN}@{}", masked_text(place));
    }
    let lower = text.to_ascii_lowercase();
    let secret = ["password", "secret", "passwd", "token"].iter().find_map(|word| {
        let after = lower.find(word)? + word.len();
        Some(after + lower.get(after..)?.find('=')? + 1)
    });
    match secret.and_then(|end| text.get(..end)) {
        Some(before) => format!("{before}{HIDDEN}"),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::masked;

    #[test]
    fn a_password_is_found_wherever_it_stands() {
        for (argument, shown) in [
            ("host=h password=hunter2 user=u", "host=h user=u password=***"),
            ("--connection=host=h password=hunter2", "--connection=host=h password=***"),
            ("postgresql://u:hunter2@h/d", "dbname=d host=h user=u password=***"),
            ("pgsql://u:hunter2@h/d", "pgsql://***@h/d"),
            ("pgsql://h/d?password=hunter2", "pgsql://h/d?password=***"),
            ("s3://key:hunter2@bucket/x", "s3://***@bucket/x"),
            ("--repo=s3://key:hunter2@bucket", "--repo=s3://***@bucket"),
            ("key:hunter2@bucket", "key:***@bucket"),
            ("password=hunter2", "password=***"),
            ("PASSWORD = hunter2", "PASSWORD =***"),
            ("host=h password='hunter2", "host=h password=***"),
            ("main", "main"),
            ("/etc/passwords", "/etc/passwords"),
            ("host=h user=u", "host=h user=u"),
        ] {
            assert_eq!(masked(argument), shown);
        }
    }
}
