//! Giving way to the other programs of the machine.

use std::io;

use rustix::process::setpriority_process;

/// The lowest there is, see setpriority(2).
const NICEST: i32 = 19;

/// How a job stands among the programs of its machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Priority {
    /// As whoever started it.
    #[default]
    Normal,
    /// It gets what processor and disk have left over.
    Low,
}

impl Priority {
    /// Takes the priority for this thread and those it will start. A job that cannot have a lower
    /// one is still done, and says so.
    pub fn take(self) {
        if self == Self::Low
            && let Err(error) = lower()
        {
            tracing::warn!("cannot lower the priority, this job runs as any other: {error}");
        }
    }
}

fn lower() -> io::Result<()> {
    setpriority_process(None, NICEST)?;
    lower_io()
}

/// Puts this thread into the idle class of ioprio_set(2): schedulers that know classes (mq-deadline,
/// bfq) serve it when nobody else wants the disk, and after a while anyway.
#[allow(unsafe_code, reason = "ioprio_set(2) has no safe wrapper")]
fn lower_io() -> io::Result<()> {
    const WHO_PROCESS: libc::c_long = 1;
    const THIS_THREAD: libc::c_long = 0;
    const CLASS_IDLE: libc::c_long = 3 << 13;
    // SAFETY: the call takes three numbers and touches no memory of this process.
    let result =
        unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, THIS_THREAD, CLASS_IDLE) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
