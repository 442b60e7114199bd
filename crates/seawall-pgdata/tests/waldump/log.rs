//! The segments of a stopped server, and the text that `pg_waldump` makes of them.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, ensure};
use seawall_core::{Lsn, WalFileName, WalSegment, WalSegmentSize};
use seawall_testkit::PgCluster;

use crate::waldump::Line;

/// Longer lines are cut: a logical message is shown byte by byte, three characters each.
const LINE_BYTES: usize = 8 << 20;

/// `pg_wal` of a server.
#[derive(Debug)]
pub struct Log {
    directory: PathBuf,
    /// In order; of one timeline, as the server was never promoted.
    pub segments: Vec<WalSegment>,
}

impl Log {
    pub fn of(cluster: &PgCluster, segment_size: WalSegmentSize) -> Result<Self> {
        let directory = cluster.data_directory().join("pg_wal");
        let mut segments = Vec::new();
        for entry in fs::read_dir(&directory)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if let Some(WalFileName::Segment(segment)) = WalFileName::parse(&name, segment_size) {
                segments.push(segment);
            }
        }
        segments.sort_by_key(|segment| segment.number);
        Ok(Self { directory, segments })
    }

    pub fn read(&self, segment: &WalSegment) -> Result<Vec<u8>> {
        let path = self.directory.join(segment.to_string());
        fs::read(&path).with_context(|| path.display().to_string())
    }

    /// The bytes of a stretch that may cross segments.
    pub fn read_between(&self, from: Lsn, to: Lsn) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        for segment in &self.segments {
            let start = segment.start();
            let (begin, end) = (from.max(start), to.min(segment.end()));
            if begin < end {
                let path = self.directory.join(segment.to_string());
                let mut part = vec![0; usize::try_from(end.0 - begin.0)?];
                File::open(path)?.read_exact_at(&mut part, begin.0 - start.0)?;
                bytes.append(&mut part);
            }
        }
        Ok(bytes)
    }

    /// Runs the server's own `pg_waldump` over all segments.
    pub fn waldump(&self, cluster: &PgCluster) -> Result<Waldump> {
        let first = self.segments.first().context("no segment")?;
        let mut command = Command::new(cluster.bin().program("pg_waldump")?);
        command.arg("-p").arg(&self.directory);
        // Named by its file, the first segment would be all.
        command.args(["-t", "1", "-s", &first.start().to_string()]);
        // The program shows times in the zone of its environment.
        command.env("TZ", "UTC").env("LC_ALL", "C");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let text = BufReader::with_capacity(1 << 20, child.stdout.take().context("stdout")?);
        Ok(Waldump { child, text, line: Vec::new() })
    }
}

/// A `pg_waldump` under way.
#[derive(Debug)]
pub struct Waldump {
    child: Child,
    text: BufReader<ChildStdout>,
    line: Vec<u8>,
}

impl Waldump {
    /// The next record it shows.
    pub fn next(&mut self) -> Result<Option<Line>> {
        loop {
            if !self.read_line()? {
                return Ok(None);
            }
            // The first line may tell that the log begins in the middle of a record.
            if self.line.starts_with(b"rmgr:") {
                let text = String::from_utf8_lossy(&self.line);
                return Ok(Some(Line::parse(&text)));
            }
        }
    }

    /// Reads one line, of a long one the beginning; false if there is none.
    fn read_line(&mut self) -> Result<bool> {
        self.line.clear();
        loop {
            let ready = self.text.fill_buf()?;
            let newline = ready.iter().position(|byte| *byte == b'\n');
            let part = &ready[..newline.unwrap_or(ready.len())];
            let kept = part.len().min(LINE_BYTES - self.line.len());
            self.line.extend_from_slice(&part[..kept]);
            let whole = kept == part.len() || self.line.starts_with(b"rmgr: LogicalMessage");
            ensure!(whole, "a line too long to be compared");
            let used = part.len() + usize::from(newline.is_some());
            let at_end = ready.is_empty();
            self.text.consume(used);
            if newline.is_some() || at_end {
                return Ok(!at_end || !self.line.is_empty());
            }
        }
    }

    /// Its last words: why it takes the log to end where it ends.
    pub fn finish(mut self) -> Result<String> {
        let mut text = String::new();
        self.child.stderr.take().context("stderr")?.read_to_string(&mut text)?;
        self.child.wait()?;
        Ok(text)
    }
}
