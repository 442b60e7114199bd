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

    /// Whether a process of this host is certainly gone. `None` if it cannot be told, because the
    /// process ran elsewhere, or in another process namespace.
    pub fn process_is_gone(&self, host: &Self, process_id: u32) -> Option<bool> {
        if host.boot_id.is_empty() || host.name != self.name {
            return None;
        }
        if host.boot_id != self.boot_id {
            return Some(true);
        }
        Some(!Path::new(&format!("/proc/{process_id}")).exists())
    }
}
