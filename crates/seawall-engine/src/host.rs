use std::fs;
use std::path::Path;

/// The host a job runs on, well enough to tell whether another job's process still lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Host {
    pub name: String,
    /// Changes with every boot, and differs between containers' hosts.
    pub boot_id: String,
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
    pub fn process_is_gone(&self, host: &Self, process_id: u32) -> Option<bool> {
        if host.boot_id.is_empty() || host.name != self.name {
            return None;
        }
        if host.boot_id != self.boot_id {
            return Some(true);
        }
        // A container's processes get the same numbers again each time it starts.
        let is_own = process_id == std::process::id();
        Some(is_own || !Path::new(&format!("/proc/{process_id}")).exists())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_our_own_number_is_one_that_is_gone() {
        let here = Host { name: "db1".to_owned(), boot_id: "7".to_owned() };
        assert_eq!(here.process_is_gone(&here, std::process::id()), Some(true));
        assert_eq!(here.process_is_gone(&here, 1), Some(false));
        let rebooted = Host { boot_id: "6".to_owned(), ..here.clone() };
        assert_eq!(here.process_is_gone(&rebooted, 1), Some(true));
        let elsewhere = Host { name: "db2".to_owned(), ..here.clone() };
        assert_eq!(here.process_is_gone(&elsewhere, 1), None);
    }
}
