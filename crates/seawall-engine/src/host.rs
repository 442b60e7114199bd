use std::fs;

use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

/// The host a job runs on, well enough to tell whether another job's process still lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Host {
    pub name: String,
    /// Changes with every boot. Empty where it is not known.
    pub boot_id: String,
    /// The namespaces in which numbers of processes and times since the boot count: containers of
    /// one host share name and boot, and a number means another process in each. `None` where they
    /// are not known.
    pub namespaces: Option<String>,
}

/// A process, told from all others that had or will have its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Process {
    pub id: u32,
    /// Clock ticks from the boot to its start; `None` where that was not noted.
    pub started: Option<u64>,
}

/// What is found of a number of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holder {
    /// Nobody has it.
    Nobody,
    /// A process that was started so many clock ticks after the boot.
    Started(u64),
    /// A process of which no more is known.
    Somebody,
}

impl Process {
    /// This process.
    pub fn this() -> Self {
        let id = std::process::id();
        let started = match find(id) {
            Holder::Started(ticks) => Some(ticks),
            Holder::Nobody | Holder::Somebody => None,
        };
        Self { id, started }
    }
}

impl Host {
    /// This host.
    pub fn this() -> Self {
        let line = |path: &str| {
            fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default()
        };
        Self {
            name: line("/proc/sys/kernel/hostname"),
            boot_id: line("/proc/sys/kernel/random/boot_id"),
            namespaces: namespaces(),
        }
    }

    /// Whether another process is certainly gone (`true`) or certainly runs (`false`). `None` if
    /// neither can be told from here: hosts of other boots may share a name, and a number means
    /// something in its own namespace only.
    pub fn process_is_gone(&self, host: &Self, process: Process) -> Option<bool> {
        if host.boot_id.is_empty() || host.namespaces.is_none() || host != self {
            return None;
        }
        // A container's processes get the same numbers again each time it starts.
        if process.id == std::process::id() {
            return Some(true);
        }
        match find(process.id) {
            Holder::Nobody => Some(true),
            // Numbers come round; whoever has this one now may have come later.
            Holder::Started(now) => process.started.map(|then| then != now),
            Holder::Somebody => None,
        }
    }
}

/// The namespaces of processes and of time (namespaces(7)). `None` if `/proc` shows those of
/// another one: then what it says of a number is about another process.
fn namespaces() -> Option<String> {
    let own = fs::read_link("/proc/self").ok()?;
    if own.to_str()?.parse() != Ok(std::process::id()) {
        return None;
    }
    let processes = fs::read_link("/proc/self/ns/pid").ok()?;
    // Linux 5.6 and later.
    let time = fs::read_link("/proc/self/ns/time").unwrap_or_default();
    Some(format!("{} {}", processes.to_str()?, time.to_str()?).trim_end().to_owned())
}

/// Looks for the process that has a number in this namespace. One that has ended and was not waited
/// for is nobody.
fn find(process_id: u32) -> Holder {
    let Some(pid) = i32::try_from(process_id).ok().and_then(Pid::from_raw) else {
        return Holder::Nobody;
    };
    if test_kill_process(pid) == Err(Errno::SRCH) {
        return Holder::Nobody;
    }
    // Somebody has it, and `/proc` may hide who (proc(5), hidepid).
    let Ok(stat) = fs::read_to_string(format!("/proc/{process_id}/stat")) else {
        return Holder::Somebody;
    };
    started(&stat).unwrap_or(Holder::Somebody)
}

/// Reads `/proc/PID/stat` (proc(5)): state is the third field, the start in clock ticks since the
/// boot the 22nd.
fn started(stat: &str) -> Option<Holder> {
    // The second field is the command in parentheses, and may itself hold any character.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return Some(Holder::Nobody);
    }
    Some(Holder::Started(fields.nth(18)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn process(id: u32, started: Option<u64>) -> Process {
        Process { id, started }
    }

    fn here() -> Host {
        let namespaces = Some("pid:[1] time:[1]".to_owned());
        Host { name: "db1".to_owned(), boot_id: "7".to_owned(), namespaces }
    }

    fn started_at(id: u32) -> Option<u64> {
        match find(id) {
            Holder::Started(ticks) => Some(ticks),
            Holder::Nobody | Holder::Somebody => None,
        }
    }

    #[test]
    fn a_process_with_our_own_number_is_one_that_is_gone() {
        let here = here();
        assert_eq!(here.process_is_gone(&here, Process::this()), Some(true));
        assert_eq!(here.process_is_gone(&here, process(1, started_at(1))), Some(false));
    }

    #[test]
    fn a_process_that_cannot_be_looked_for_is_not_called_gone() {
        let here = here();
        let nobody = process(u32::MAX, Some(1));
        assert_eq!(here.process_is_gone(&here, nobody), Some(true));
        let in_a_container = Some("pid:[2] time:[1]".to_owned());
        for elsewhere in [
            Host { name: "db2".to_owned(), ..here.clone() },
            // Another machine may have the same name, and it would have another boot.
            Host { boot_id: "6".to_owned(), ..here.clone() },
            Host { boot_id: String::new(), ..here.clone() },
            Host { namespaces: in_a_container, ..here.clone() },
            Host { namespaces: None, ..here.clone() },
        ] {
            assert_eq!(here.process_is_gone(&elsewhere, nobody), None, "{elsewhere:?}");
            assert_eq!(elsewhere.process_is_gone(&here, nobody), None, "{elsewhere:?}");
        }
        let unknown = Host { namespaces: None, ..here };
        assert_eq!(unknown.process_is_gone(&unknown, nobody), None);
        assert_eq!(self::here().process_is_gone(&self::here(), process(1, None)), None);
    }

    #[test]
    fn this_process_is_found_where_it_is() {
        let this = Host::this();
        assert!(this.namespaces.is_some_and(|text| text.starts_with("pid:[")));
        assert!(Process::this().started.is_some());
        assert_eq!(started("7 (a) b) Z 1"), Some(Holder::Nobody));
        assert_eq!(started("7 (a"), None);
    }

    #[test]
    fn e54_a_number_that_another_process_has_by_now_is_not_the_one_that_was() {
        let here = here();
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let (id, start) = (child.id(), started_at(child.id()));
        assert!(start >= started_at(std::process::id()));
        assert_eq!(here.process_is_gone(&here, process(id, start)), Some(false));
        let before = start.map(|ticks| ticks - 1);
        assert_eq!(here.process_is_gone(&here, process(id, before)), Some(true));
        child.kill().unwrap();
        // Dead, and its number still taken until somebody waits for it.
        while started_at(id).is_some() {
            std::thread::yield_now();
        }
        assert_eq!(here.process_is_gone(&here, process(id, start)), Some(true));
        child.wait().unwrap();
        assert_eq!(here.process_is_gone(&here, process(id, start)), Some(true));
    }
}
