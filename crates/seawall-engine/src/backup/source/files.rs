//! The files beside the database, as a source: one thread finds them, several read them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;

use seawall_core::{Code, Error, Result};

use super::planner::Planner;
use super::task::Task;
use super::worker::Worker;
use super::{Packer, Packing, PageRule, Reading, Source};
use crate::cluster::{ScanOptions, scan};
use crate::pace::Pace;

/// Tasks that wait for a worker. Enough to keep all busy; files found too early grow meanwhile.
const TASKS_WAITING: usize = 32;

/// A cluster's files.
pub(in crate::backup) struct FilesSource {
    /// Where they are.
    pub scan: ScanOptions,
    /// The length of a relation's segment file.
    pub relation_segment_blocks: u32,
    /// What their pages are judged by.
    pub rule: Arc<PageRule>,
    /// How fast they are read.
    pub pace: Arc<Pace>,
    /// How many threads read.
    pub jobs: usize,
}

/// What the threads of a source share.
#[derive(Clone)]
pub(super) struct Shared {
    pub rule: Arc<PageRule>,
    pub pace: Arc<Pace>,
    read_bytes: Arc<AtomicU64>,
}

impl Shared {
    /// Content of so many bytes was read for good.
    pub fn count(&self, bytes: u64) {
        self.read_bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Source for FilesSource {
    fn start<P: Packing>(self, packing: P) -> Result<Reading> {
        let (pace, read_bytes) = (Arc::clone(&self.pace), Arc::<AtomicU64>::default());
        let shared = Shared {
            rule: Arc::clone(&self.rule),
            pace: Arc::clone(&pace),
            read_bytes: Arc::clone(&read_bytes),
        };
        let (task_sender, tasks) = sync_channel(TASKS_WAITING);
        let tasks = Arc::new(Mutex::new(tasks));
        let mut threads = Vec::new();
        for number in 0..self.jobs.max(1) {
            let worker = Worker::new(shared.clone(), packing.packer()?);
            let tasks = Arc::clone(&tasks);
            threads.push(spawn(&format!("copy-{number}"), &pace, move |pace| {
                run_worker(worker, &tasks, pace)
            })?);
        }
        threads.push(spawn("scan", &pace, move |_| {
            let mut planner = Planner::new(&self, &task_sender, &packing);
            scan(&self.scan, &mut |found| planner.found(&found))?;
            planner.end()
        })?);
        Ok(Reading { threads, pace, read_bytes })
    }
}

fn spawn(
    name: &str,
    pace: &Arc<Pace>,
    body: impl FnOnce(&Pace) -> Result<()> + Send + 'static,
) -> Result<thread::JoinHandle<Result<()>>> {
    let (pace, member) = (Arc::clone(pace), pace.member());
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            let _member = member;
            let result = body(&pace);
            if result.is_err() {
                pace.stop();
            }
            result
        })
        .map_err(|error| Error::new(Code::LocalIo, "cannot start a thread").with_source(error))
}

fn run_worker<P: Packer>(
    mut worker: Worker<P>,
    tasks: &Mutex<Receiver<Task>>,
    pace: &Pace,
) -> Result<()> {
    loop {
        pace.refuse_stopped()?;
        let next =
            tasks.lock().map_err(|_| Error::new(Code::Internal, "a copying thread died"))?.recv();
        match next {
            Ok(task) => worker.work(task)?,
            Err(_) => return worker.end(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::sync::MutexGuard;

    use seawall_core::Lsn;
    use seawall_pgdata::PgMajor;
    use seawall_repo::manifest::Entry;

    use super::*;
    use seawall_pgdata::wal::BlockSet;

    use crate::backup::source::{
        Absent, Bundle, EachBefore, Lacking, ReplayLimit, SmallRead, SpanRead, Wanted, WholeRead,
    };
    use crate::cluster::{FoundPath, LinkRules, TablespaceLinks};
    use crate::pace::Crew;

    /// What was handed over: the content of files by path, and those who wanted it.
    #[derive(Default)]
    struct Handed {
        files: BTreeMap<String, (Vec<u8>, Vec<usize>)>,
        bare: Vec<String>,
        /// Paths by their numbers, of large files.
        large: BTreeMap<u64, String>,
    }

    /// A packing half for two destinations, of which the second has `base/1/3` already.
    #[derive(Clone, Default)]
    struct Recorder(Arc<Mutex<Handed>>);

    impl Recorder {
        fn handed(&self) -> MutexGuard<'_, Handed> {
            self.0.lock().unwrap()
        }

        fn take(&self, to: &Wanted, path: &str, at: usize, bytes: &[u8]) {
            let mut handed = self.handed();
            let (content, wanted) = handed.files.entry(path.to_owned()).or_default();
            content.resize(content.len().max(at + bytes.len()), 0);
            content[at..at + bytes.len()].copy_from_slice(bytes);
            *wanted = (0..2).filter(|place| to.has(*place)).collect();
        }
    }

    fn name(entry: &Entry) -> String {
        String::from_utf8(entry.path().to_vec()).unwrap()
    }

    impl Packing for Recorder {
        type Packer = Self;

        fn packer(&self) -> Result<Self> {
            Ok(self.clone())
        }

        fn found(&self, _: u64, _: &FoundPath, entry: &Entry) -> Result<Lacking> {
            let to = Wanted::new([true, name(entry) != "base/1/3"]);
            Ok(Lacking { to, before: EachBefore::default() })
        }

        fn bare(&self, _: u64, entry: &Entry) -> Result<()> {
            self.handed().bare.push(name(entry));
            Ok(())
        }

        fn large(&self, _: &Wanted, sequence: u64, entry: &Entry, spans: u32) {
            assert_eq!(spans, 2);
            self.handed().large.insert(sequence, name(entry));
        }

        fn is_far_behind(&self, _: u64) -> bool {
            false
        }
    }

    impl Packer for Recorder {
        type Part = (Wanted, String);

        fn is_wanted(&self, to: &Wanted) -> bool {
            !to.is_empty()
        }

        fn tell(&self, _: &Wanted, absent: &Absent) {
            let Absent::Empty { entry, .. } = absent else { panic!("{absent:?}") };
            self.handed().bare.push(name(entry));
        }

        fn small(&mut self, to: &Wanted, bundle: Bundle) -> Result<()> {
            for file in &bundle.files {
                self.take(to, &name(&file.entry), 0, bundle.bytes(file));
            }
            Ok(())
        }

        fn lacking(&self, to: &Wanted, _: &SmallRead) -> Wanted {
            to.clone()
        }

        fn begin_onto(&mut self, to: &Wanted, _: &EachBefore) -> (Wanted, String) {
            self.begin(to)
        }

        fn to_read(&self, _: &(Wanted, String)) -> Option<BlockSet> {
            None
        }

        fn begin(&self, to: &Wanted) -> (Wanted, String) {
            (to.clone(), String::new())
        }

        fn blocks(
            &mut self,
            (to, path): &mut (Wanted, String),
            name: &[u8],
            first_block: u32,
            bytes: &[u8],
        ) -> Result<()> {
            *path = String::from_utf8(name.to_vec()).unwrap();
            self.take(to, path, first_block as usize * 8192, bytes);
            Ok(())
        }

        fn span(&self, (_, path): (Wanted, String), span: &SpanRead) {
            assert_eq!(self.handed().large.get(&span.sequence), Some(&path));
        }

        fn whole(&mut self, (_, path): (Wanted, String), whole: &WholeRead) -> Wanted {
            assert_eq!(name(&whole.entry), path);
            Wanted::new([false, false])
        }

        fn flush(&mut self) {}

        fn rotate(&mut self) -> Result<()> {
            Ok(())
        }

        fn end(&mut self) -> Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn every_file_is_handed_over_once_to_all_who_lack_it() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("base/1")).unwrap();
        let bytes = |length: usize| (0..length).map(|at| (at % 251) as u8).collect::<Vec<u8>>();
        let files = [
            ("base/1/1", Vec::new()),
            ("base/1/2", vec![0; 24576]),
            ("base/1/3", vec![0; 16384]),
            ("base/1/4", vec![0; (32 << 20) + 8192]),
            ("base/1/PG_VERSION", b"15\n".to_vec()),
            ("large", bytes(300_000)),
            ("small", bytes(5000)),
        ];
        for (path, content) in &files {
            fs::write(root.path().join(path), content).unwrap();
        }
        let recorder = Recorder::default();
        let limit = ReplayLimit::new(Lsn(1), || Ok(Lsn(1)));
        let source = FilesSource {
            scan: ScanOptions {
                root: root.path().to_owned(),
                major: PgMajor::V15,
                tablespaces: TablespaceLinks::default(),
                links: LinkRules::default(),
            },
            relation_segment_blocks: 131_072,
            rule: Arc::new(PageRule { data_checksums: true, start: Lsn(1), limit }),
            pace: Arc::new(Pace::new(&Crew::default())),
            jobs: 2,
        };
        let reading = source.start(recorder.clone()).unwrap();
        let read_bytes = reading.finish().await.unwrap();
        let handed = recorder.handed();
        assert_eq!(read_bytes, files.iter().map(|(_, content)| content.len() as u64).sum::<u64>());
        assert_eq!(handed.bare, ["base", "base/1", "base/1/1"]);
        assert_eq!(handed.files.len(), 6);
        for (path, content) in files.iter().filter(|(_, content)| !content.is_empty()) {
            let (found, wanted) = &handed.files[*path];
            assert!(found == content, "{path} was handed over otherwise");
            assert_eq!(wanted, if *path == "base/1/3" { &[0][..] } else { &[0, 1] }, "{path}");
        }
    }
}
