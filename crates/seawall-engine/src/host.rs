use std::fs;

/// The host a job runs on, well enough to tell whether another job's process still lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Host {
    pub name: String,
    /// Changes with every boot, and differs between containers' hosts.
    pub boot_id: String,
}

/// A process, told from all others that had or will have its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Process {
    pub id: u32,
    /// Clock ticks from the boot to its start; `None` where that was not noted.
    pub started: Option<u64>,
}

impl Process {
    /// This process.
    pub fn this() -> Self {
        let id = std::process::id();
        Self { id, started: started(id) }
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
        }
    }

    /// Whether another process of this host is certainly gone. `None` if it cannot be told, because the
    /// process ran elsewhere, or in another process namespace.
    pub fn process_is_gone(&self, host: &Self, process: Process) -> Option<bool> {
        if host.boot_id.is_empty() || host.name != self.name {
            return None;
        }
        if host.boot_id != self.boot_id {
            return Some(true);
        }
        // A container's processes get the same numbers again each time it starts.
        if process.id == std::process::id() {
            return Some(true);
        }
        let Some(now) = started(process.id) else { return Some(true) };
        // Numbers come round; whoever has this one now may have come later.
        Some(process.started.is_some_and(|then| then != now))
    }
}

/// When a process that runs was started, in clock ticks since the boot: the 22nd field of
/// `/proc/PID/stat` (proc(5)). One that has ended and was not waited for is not running.
fn started(process_id: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{process_id}/stat")).ok()?;
    // The second field is the command in parentheses, and may itself hold any character.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let is_running = fields.next().is_some_and(|state| !matches!(state, "Z" | "X"));
    fields.nth(18)?.parse().ok().filter(|_| is_running)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn process(id: u32, started: Option<u64>) -> Process {
        Process { id, started }
    }

    #[test]
    fn a_process_with_our_own_number_is_one_that_is_gone() {
        let here = Host { name: "db1".to_owned(), boot_id: "7".to_owned() };
        assert_eq!(here.process_is_gone(&here, Process::this()), Some(true));
        assert_eq!(here.process_is_gone(&here, process(1, None)), Some(false));
        let rebooted = Host { boot_id: "6".to_owned(), ..here.clone() };
        assert_eq!(here.process_is_gone(&rebooted, process(1, None)), Some(true));
        let elsewhere = Host { name: "db2".to_owned(), ..here.clone() };
        assert_eq!(here.process_is_gone(&elsewhere, process(1, None)), None);
    }

    #[test]
    fn e54_a_number_that_another_process_has_by_now_is_not_the_one_that_was() {
        let here = Host { name: "db1".to_owned(), boot_id: "7".to_owned() };
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let (id, start) = (child.id(), started(child.id()));
        assert!(start > started(std::process::id()) || start == Process::this().started);
        assert_eq!(here.process_is_gone(&here, process(id, start)), Some(false));
        let before = start.map(|ticks| ticks - 1);
        assert_eq!(here.process_is_gone(&here, process(id, before)), Some(true));
        child.kill().unwrap();
        // Dead, and its number still taken until somebody waits for it.
        while started(id).is_some() {
            std::thread::yield_now();
        }
        assert_eq!(here.process_is_gone(&here, process(id, start)), Some(true));
        child.wait().unwrap();
        assert_eq!(here.process_is_gone(&here, process(id, start)), Some(true));
    }
}
