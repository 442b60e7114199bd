//! What a program takes: time, processor, memory.

use std::fs;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use seawall_testkit::process::Running;
use serde_json::{Value, json};

/// How often the end is looked for: the precision of times.
const POLL: Duration = Duration::from_millis(2);

/// How many polls lie between two looks at memory.
const POLLS_PER_SAMPLE: u32 = 10;

/// What one run took.
#[derive(Debug, Clone, Copy, Default)]
pub struct Taken {
    /// From start to end.
    pub seconds: f64,
    /// User and system time of the program and the children it waited for.
    pub cpu_seconds: f64,
    /// The largest sum, over the processes alive at one moment, of their peaks of resident memory
    /// (`VmHWM`, proc(5)). Pages that processes share count in each.
    pub peak_resident_bytes: u64,
    /// How much the repository grew.
    pub bytes_added: u64,
}

impl Taken {
    pub fn to_json(self) -> Value {
        json!({
            "seconds": self.seconds,
            "cpu_seconds": self.cpu_seconds,
            "peak_resident_bytes": self.peak_resident_bytes,
            "bytes_added": self.bytes_added,
        })
    }
}

/// Runs a program that must succeed and says what it took, and what it printed.
pub fn measure(command: &mut Command) -> Result<(Taken, String)> {
    let cpu_before = children_cpu_seconds()?;
    let started = Instant::now();
    let mut running = Running::start(command, None)?;
    let mut peak_resident_bytes = 0;
    let mut polls = 0;
    while !running.has_ended()? {
        if polls % POLLS_PER_SAMPLE == 0 {
            peak_resident_bytes = peak_resident_bytes.max(tree_peak_bytes(running.pid()));
        }
        polls += 1;
        thread::sleep(POLL);
    }
    let seconds = started.elapsed().as_secs_f64();
    let output = running.wait(Duration::ZERO)?.success();
    let output = output.with_context(|| format!("{command:?}"))?;
    let cpu_seconds = children_cpu_seconds()? - cpu_before;
    Ok((Taken { seconds, cpu_seconds, peak_resident_bytes, bytes_added: 0 }, output.stdout))
}

/// Processor time of all children that have been waited for. The server is a child too, and is
/// not waited for while anything is measured.
fn children_cpu_seconds() -> Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let seconds = |time: TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    Ok(seconds(usage.user_time()) + seconds(usage.system_time()))
}

/// The sum of the peaks of a process and its descendants alive now.
fn tree_peak_bytes(root: u32) -> u64 {
    let mut processes = vec![root];
    let mut sum = 0;
    while let Some(process) = processes.pop() {
        let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
        sum += peak_in(&status).unwrap_or_default();
        // Threads other than the first start none in the programs measured here.
        let children = fs::read_to_string(format!("/proc/{process}/task/{process}/children"));
        let children = children.unwrap_or_default();
        processes.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
    }
    sum
}

fn peak_in(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// The middle of some values, and the mean of the two in the middle of an even number.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = sorted.len() / 2;
    let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
    if sorted.len() % 2 == 1 { at(upper) } else { at(upper.wrapping_sub(1)).midpoint(at(upper)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_few() {
        assert_eq!(median(&[3.0]), 3.0);
        assert_eq!(median(&[9.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 9.0]), 3.0);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn time_processor_and_the_memory_of_children_are_seen() {
        let script = "text=$(head -c 64000000 /dev/zero | tr '\\0' x); sleep 0.2; echo ${#text}";
        let (taken, printed) = measure(Command::new("bash").args(["-c", script])).unwrap();
        assert_eq!(printed, "64000000\n");
        assert!(taken.seconds >= 0.2 && taken.cpu_seconds > 0.0, "{taken:?}");
        assert!(taken.peak_resident_bytes > 60_000_000, "{taken:?}");
        assert!(measure(Command::new("false").args(["x"])).is_err());
    }

    #[test]
    fn the_peak_is_read_in_bytes() {
        assert_eq!(peak_in("Name:\tx\nVmHWM:\t    1932 kB\n"), Some(1932 * 1024));
        assert_eq!(peak_in("Name:\tx\n"), None);
    }
}
