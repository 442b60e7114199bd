use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, stdin};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;

use rustix::fs::FileType;
use seawall_core::{Code, Error, Result, ResultExt};
use seawall_engine::job::{Cancel, Events, JobEvent};
use serde::Deserialize;

use super::pipe::EventPipe;

/// No request is longer, and no other line; the end of the line is not counted.
const LINE_BYTES_MAX: u64 = 1 << 20;

/// So many lines that are not understood are told; what comes then is passed over in silence.
const TOLD_MAX: usize = 1000;

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
        let first = next(&mut input).map(|line| line.map(Line::text));
        // Nobody waits for it any more where the program has ended.
        if sender.send(first).is_ok() {
            obey(&mut input, &cancel, pipe.as_ref());
        }
    };
    let thread = thread::Builder::new().name("input".to_owned()).spawn(read);
    thread.map(drop).code(Code::Internal, || "cannot start a thread".to_owned())?;
    let first = receiver.recv().code(Code::Internal, || "the input's thread died".to_owned())?;
    first?.ok_or_else(|| invalid("standard input ended before a request"))?
}

/// Reads the request in a file.
///
/// # Errors
/// [`Code::JobRequestInvalid`] if it cannot be read, or has more bytes than a request.
pub fn read_request(path: &Path) -> Result<String> {
    let mut bytes = Vec::new();
    // As much as shows that there is more than a request and the end of its line.
    let read =
        File::open(path).and_then(|file| file.take(LINE_BYTES_MAX + 2).read_to_end(&mut bytes));
    read.code(Code::JobRequestInvalid, || {
        format!("the request {} cannot be read", path.display())
    })?;
    Line::of(bytes).text().map_err(|error| error.context(path.display()))
}

fn obey(input: &mut impl BufRead, cancel: &Cancel, events: &dyn Events) {
    let mut told = 0;
    loop {
        match next(input) {
            Ok(Some(line)) if line.says_cancel() => return cancel.cancel("it was told to end"),
            Ok(Some(_)) if told < TOLD_MAX => {
                told += 1;
                events.event(&JobEvent::Error { repository: None, error: not_understood(told) });
            }
            Ok(Some(_)) => {}
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

fn not_understood(told: usize) -> Error {
    let more = if told == TOLD_MAX { "; no more of them are told" } else { "" };
    invalid(&format!("a line of standard input is not understood; the job goes on{more}"))
}

/// A line that was read.
struct Line {
    /// Without its end.
    bytes: Vec<u8>,
    /// There were more, which were passed over.
    is_too_long: bool,
}

impl Line {
    fn of(mut bytes: Vec<u8>) -> Self {
        if bytes.last() == Some(&b'\n') {
            bytes.pop();
        }
        let is_too_long = bytes.len() as u64 > LINE_BYTES_MAX;
        Self { bytes, is_too_long }
    }

    fn says_cancel(&self) -> bool {
        !self.is_too_long
            && matches!(serde_json::from_slice(&self.bytes), Ok(Told { cancel: true }))
    }

    fn text(self) -> Result<String> {
        if self.is_too_long {
            return Err(invalid("the request has more than 1 MiB"));
        }
        String::from_utf8(self.bytes).map_err(|_| invalid("the request is not UTF-8"))
    }
}

/// The next line; `None` at the end.
fn next(input: &mut impl BufRead) -> Result<Option<Line>> {
    let mut read = || {
        let mut bytes = Vec::new();
        let read = input.take(LINE_BYTES_MAX + 1).read_until(b'\n', &mut bytes)?;
        let line = Line::of(bytes);
        if line.is_too_long {
            input.skip_until(b'\n')?;
        }
        io::Result::Ok((read > 0).then_some(line))
    };
    read().code(Code::JobRequestInvalid, || "standard input cannot be read".to_owned())
}

fn invalid(what: &str) -> Error {
    Error::new(Code::JobRequestInvalid, what)
        .with_hint("docs/job.md says what a job is told on standard input.")
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Counts errors that are told.
    #[derive(Default)]
    struct Told(Mutex<Vec<String>>);

    impl Events for Told {
        fn event(&self, event: &JobEvent) {
            let JobEvent::Error { error, .. } = event else { panic!("{event:?}") };
            assert_eq!(error.code(), Code::JobRequestInvalid);
            self.0.lock().unwrap().push(error.message().to_owned());
        }
    }

    #[test]
    fn a_line_without_an_end_is_no_more_than_one_that_is_not_understood() {
        let long = LINE_BYTES_MAX * 3;
        let garbage = io::repeat(b'x').take(long).chain(&b"\n\xff\xfe\n{\"cancel\":true}\n"[..]);
        let (cancel, told) = (Cancel::default(), Told::default());
        obey(&mut BufReader::new(garbage), &cancel, &told);
        assert!(cancel.is_cancelled());
        assert_eq!(told.0.lock().unwrap().len(), 2);
        let request = next(&mut BufReader::new(io::repeat(b'{').take(long))).unwrap().unwrap();
        assert_eq!(request.text().unwrap_err().code(), Code::JobRequestInvalid);
        let request = read_request(Path::new("/dev/zero")).unwrap_err();
        assert!(request.chain().contains("more than 1 MiB"), "{request:?}");
    }

    #[test]
    fn the_longest_request_is_the_same_in_a_file_and_on_standard_input() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (bytes, is_accepted) in [(1 << 20, true), ((1 << 20) + 1, false)] {
            for (end, then) in [("", ""), ("\n", ""), ("\n", "x")] {
                let text = "{".repeat(bytes) + end + then;
                let mut input = text.as_bytes();
                let line = next(&mut input).unwrap().unwrap();
                assert_eq!(line.text().is_ok(), is_accepted, "{bytes} {end:?} {then:?}");
                assert_eq!(input, then.as_bytes(), "what comes then is left");
                std::fs::write(file.path(), text).unwrap();
                let read = read_request(file.path());
                assert_eq!(read.is_ok(), is_accepted && then.is_empty(), "{bytes} {end:?}");
            }
        }
    }

    #[test]
    fn of_lines_without_number_only_the_first_are_told() {
        let lines = "?\n".repeat(TOLD_MAX * 3) + "{\"cancel\":true}\n";
        let (cancel, told) = (Cancel::default(), Told::default());
        obey(&mut lines.as_bytes(), &cancel, &told);
        assert!(cancel.is_cancelled());
        let told = told.0.into_inner().unwrap();
        assert_eq!(told.len(), TOLD_MAX);
        assert!(told.last().unwrap().ends_with("no more of them are told"), "{:?}", told.last());
    }
}
