//! What the restored server is told, as text of configuration files.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use seawall_core::{Code, Error, Result, TimelineId};

use crate::config_text::{name_of, quoted};
use crate::restored::{Mode, RequiredParameters, RestorePlan, Stop};

const BEGIN: &str = "# Written by a restore of Seawall; see seawall.restore for what was planned.";
const END: &str = "# End of what a restore of Seawall wrote.";

/// What stands before a line that no longer counts.
pub(super) const DISABLED: &str = "#(before restore) ";

/// A setting and its value, not quoted: bytes, since paths have no encoding.
pub(super) type Setting = (String, Vec<u8>);

/// What `postgresql.auto.conf` says to recover as planned. `restore_command` is used as it is.
///
/// # Errors
/// [`Code::Usage`] for a command no configuration file can hold.
pub(super) fn recovery_settings(
    plan: &RestorePlan,
    restore_command: &OsStr,
) -> Result<Vec<Setting>> {
    let restore_command = restore_command.as_bytes();
    if restore_command.iter().any(|byte| matches!(byte, b'\n' | b'\r' | 0)) {
        return Err(Error::new(Code::Usage, "restore_command must be one line"));
    }
    let mut settings: Vec<Setting> = plan
        .settings
        .iter()
        .map(|setting| (setting.name.clone(), setting.value.clone().into_bytes()))
        .collect();
    if plan.mode == Mode::Standby {
        settings.push(setting("restore_command", [restore_command, b" --standby"].concat()));
        settings.extend(no_target_but(None));
        // It follows the primary, and whoever becomes it.
        settings.push(setting("recovery_target_timeline", "latest"));
        return Ok(settings);
    }
    settings.push(setting("restore_command", restore_command));
    settings.extend(target_settings(plan));
    if plan.ignores_invalid_pages {
        settings.push(setting("ignore_invalid_pages", "on"));
    }
    Ok(settings)
}

pub(super) fn setting(name: &str, value: impl Into<Vec<u8>>) -> Setting {
    (name.to_owned(), value.into())
}

/// Where the server stops, and what it does then.
fn target_settings(plan: &RestorePlan) -> Vec<Setting> {
    let (chosen, value, inclusive) = match plan.stop {
        Stop::Consistent { .. } => ("recovery_target", "immediate".to_owned(), "on"),
        Stop::Before { lsn } => ("recovery_target_lsn", lsn.to_string(), "off"),
        Stop::After { lsn, .. } => ("recovery_target_lsn", lsn.to_string(), "on"),
    };
    let mut settings: Vec<Setting> = no_target_but(Some(chosen)).collect();
    settings.push(setting(chosen, value));
    settings.push(setting("recovery_target_inclusive", inclusive));
    settings.push(setting("recovery_target_timeline", target_timeline(plan)));
    settings.push(setting("recovery_target_action", plan.then.as_str()));
    settings
}

/// The timeline to recover along. Where no history of it is archived, it is the backup's own, and
/// PostgreSQL takes no number for it.
fn target_timeline(plan: &RestorePlan) -> String {
    match plan.path.as_slice() {
        [only] if only.timeline > TimelineId(1) => "current".to_owned(),
        _ => plan.timeline.to_string(),
    }
}

/// Sets all other kinds of target to nothing. They come first: one that `postgresql.conf` still has
/// would otherwise be a second target, and two are refused (`error_multiple_recovery_targets`,
/// 12–18).
fn no_target_but(chosen: Option<&str>) -> impl Iterator<Item = Setting> + use<'_> {
    let kinds = [
        "recovery_target",
        "recovery_target_lsn",
        "recovery_target_name",
        "recovery_target_time",
        "recovery_target_xid",
    ];
    let others = kinds.into_iter().filter(move |kind| Some(*kind) != chosen);
    others.map(|kind| setting(kind, ""))
}

/// Adds settings to the end of a configuration file, where they win. Lines that set the same
/// before are disabled, and what an earlier restore wrote is dropped.
pub(super) fn append_settings(old: &[u8], settings: &[Setting]) -> Vec<u8> {
    let mut new = Vec::with_capacity(old.len() + 1024);
    let mut lines = old.split_inclusive(|byte| *byte == b'\n');
    while let Some(line) = lines.next() {
        let is = |line: &[u8], text: &str| line.trim_ascii_end() == text.as_bytes();
        if is(line, BEGIN) && lines.clone().any(|line| is(line, END)) {
            lines.find(|line| is(line, END));
            continue;
        }
        let set_again = name_of(line)
            .is_some_and(|name| settings.iter().any(|(ours, _)| ours.eq_ignore_ascii_case(&name)));
        if set_again {
            new.extend_from_slice(DISABLED.as_bytes());
        }
        new.extend_from_slice(line);
    }
    if !new.is_empty() && !new.ends_with(b"\n") {
        new.push(b'\n');
    }
    new.extend_from_slice(format!("{BEGIN}\n").as_bytes());
    for (name, value) in settings {
        new.extend([name.as_bytes(), b" = ", &quoted(value), b"\n"].concat());
    }
    new.extend_from_slice(format!("{END}\n").as_bytes());
    new
}

/// A configuration file with the target of another plan, and with the parameters that replay up to
/// there demands and `before` did not: what it said of them is gone, wherever that stood.
pub(in crate::restore) fn retarget(
    old: &[u8],
    before: &RequiredParameters,
    plan: &RestorePlan,
) -> Vec<u8> {
    let demands = plan.required.demands().into_iter().zip(before.demands());
    let raised = demands.filter(|((_, now, _), (_, before, _))| now > before);
    let raised = raised.map(|((name, now, _), _)| setting(name, now.to_string()));
    let settings: Vec<Setting> = raised.chain(target_settings(plan)).collect();
    set_again(old, &settings)
}

/// Sets what was set before, in the order given, among what a restore wrote.
fn set_again(old: &[u8], settings: &[Setting]) -> Vec<u8> {
    let is_target = |line: &[u8]| {
        name_of(line).is_some_and(|name| settings.iter().any(|(ours, _)| *ours == name))
    };
    let mut new: Vec<u8> = Vec::with_capacity(old.len() + 512);
    let mut end = None;
    for line in old.split_inclusive(|byte| *byte == b'\n').filter(|line| !is_target(line)) {
        if line.trim_ascii_end() == END.as_bytes() {
            end = Some(new.len());
        }
        new.extend_from_slice(line);
    }
    let mut lines = Vec::new();
    if end.is_none() && !new.is_empty() && !new.ends_with(b"\n") {
        lines.push(b'\n');
    }
    for (name, value) in settings {
        lines.extend([name.as_bytes(), b" = ", &quoted(value), b"\n"].concat());
    }
    let at = end.unwrap_or(new.len());
    new.splice(at..at, lines);
    new
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_set_before_no_longer_counts() {
        let old = b"# by ALTER SYSTEM\nwork_mem = '4MB'\n  Primary_Conninfo 'host=db1'\nport=5433";
        let settings = [setting("primary_conninfo", ""), setting("restore_command", r"a 'b' \c")];
        let new = append_settings(old, &settings);
        let text = String::from_utf8(new.clone()).unwrap();
        insta::assert_snapshot!(text);
        assert_eq!(append_settings(&new, &settings), new, "a second time changes nothing");
    }

    #[test]
    fn another_target_takes_the_place_of_the_first_wherever_that_stands() {
        let immediate = setting("recovery_target", "immediate");
        let first: Vec<Setting> = no_target_but(Some("recovery_target"))
            .chain([immediate, setting("port", "1")])
            .collect();
        let lsn = setting("recovery_target_lsn", "0/4000028");
        let second: Vec<Setting> =
            no_target_but(Some("recovery_target_lsn")).chain([lsn]).collect();
        let file = append_settings(b"work_mem = '4MB'\n", &first);
        let expected = [
            "work_mem = '4MB'",
            BEGIN,
            "port = '1'",
            "recovery_target = ''",
            "recovery_target_name = ''",
            "recovery_target_time = ''",
            "recovery_target_xid = ''",
            "recovery_target_lsn = '0/4000028'",
            END,
        ];
        let moved = set_again(&file, &second);
        assert_eq!(String::from_utf8_lossy(&moved).lines().collect::<Vec<_>>(), expected);
        assert_eq!(set_again(&moved, &second), moved);
        // `ALTER SYSTEM` writes the file anew, without comments.
        let bare = set_again(b"recovery_target = 'immediate'\nport = '1'", &second);
        let expected = [&["port = '1'"], &expected[3..8]].concat();
        assert_eq!(String::from_utf8_lossy(&bare).lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_block_without_its_end_takes_nothing_of_the_users_along() {
        let old = format!("{BEGIN}\nwork_mem = '4MB'\n");
        let new = append_settings(old.as_bytes(), &[setting("port", "1")]);
        assert!(new.starts_with(old.as_bytes()));
    }
}
