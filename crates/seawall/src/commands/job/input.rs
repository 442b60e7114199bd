use std::io::{BufRead, BufReader, Read, stdin};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;

use rustix::fs::FileType;
use seawall_core::{Code, Error, Result, ResultExt};
use seawall_engine::job::{Cancel, Events, JobEvent};
use serde::Deserialize;

use super::pipe::EventPipe;

/// No request is longer.
const LINE_BYTES_MAX: u64 = 1 << 20;

/// A line after the request.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Told {
    cancel: bool,
}

/// Reads the request, the first line of standard input, and listens to what comes then: the job ends
/// when that says so, or when there is nobody any more who could. Of a file the end says nothing:
/// nobody holds it open.
///
/// # Errors
/// [`Code::JobRequestInvalid`] if there is no such line.
pub fn listen(cancel: &Cancel, pipe: &Arc<EventPipe>) -> Result<String> {
    let (sender, receiver) = mpsc::channel();
    let (cancel, pipe) = (cancel.clone(), Arc::clone(pipe));
    let read = move || {
        let mut input = BufReader::new(stdin());
        // Nobody waits for it any more where the program has ended.
        if sender.send(next(&mut input)).is_ok() {
            obey(&mut input, &cancel, pipe.as_ref());
        }
    };
    let thread = thread::Builder::new().name("input".to_owned()).spawn(read);
    thread.map(drop).code(Code::Internal, || "cannot start a thread".to_owned())?;
    let first = receiver.recv().code(Code::Internal, || "the input's thread died".to_owned())?;
    first?.ok_or_else(|| invalid("standard input ended before a request"))
}

fn obey(input: &mut impl BufRead, cancel: &Cancel, events: &dyn Events) {
    loop {
        match next(input) {
            Ok(Some(line)) if says_cancel(&line) => return cancel.cancel("it was told to end"),
            Ok(Some(_)) => events.event(&JobEvent::Error {
                repository: None,
                error: invalid("a line of standard input is not understood; the job goes on"),
            }),
            Ok(None) if is_file(&stdin()) => return,
            Ok(None) => return cancel.cancel("its standard input was closed"),
            Err(error) => return cancel.cancel(&error.chain()),
        }
    }
}

/// Whether a stream is a regular file. One that cannot be asked is taken for a pipe.
fn is_file(stream: &impl AsFd) -> bool {
    rustix::fs::fstat(stream)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile)
}

fn says_cancel(line: &str) -> bool {
    matches!(serde_json::from_str(line), Ok(Told { cancel: true }))
}

/// The next line; `None` at the end.
fn next(input: &mut impl BufRead) -> Result<Option<String>> {
    let mut line = String::new();
    let bytes = input
        .take(LINE_BYTES_MAX)
        .read_line(&mut line)
        .code(Code::JobRequestInvalid, || "standard input cannot be read".to_owned())?;
    if bytes as u64 == LINE_BYTES_MAX {
        return Err(invalid("a line of standard input has more than 1 MiB"));
    }
    Ok((bytes > 0).then_some(line))
}

fn invalid(what: &str) -> Error {
    Error::new(Code::JobRequestInvalid, what)
        .with_hint("docs/job.md says what a job is told on standard input.")
}
