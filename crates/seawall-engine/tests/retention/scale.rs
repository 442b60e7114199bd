//! Ten thousand commits, and a million names of WAL.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use seawall_core::{Lsn, TimelineId};
use seawall_engine::retention::plan_line;
use seawall_repo::layout::{LineObject, LinePaths, WalRangeName};
use seawall_repo::retention::{Keep, Policy};
use seawall_store::testing::MemoryStore;
use seawall_store::{
    ListPage, ObjectEnd, ObjectInfo, ObjectPath, ObjectPrefix, ObjectWriter, Store, StoreError,
    StoreUrl,
};

use super::house::{SEGMENT, commit, line_in};

const BACKUPS: u64 = 10_000;
const OBJECTS: u64 = 1_000_000;
/// How many pieces each segment came in.
const PIECES: u64 = 4;

/// A store that makes up the names of the WAL when it is asked for them.
#[derive(Debug)]
struct Archive {
    inner: MemoryStore,
    paths: LinePaths,
    written: Timestamp,
}

impl Archive {
    /// The piece of that number, as it is named.
    fn piece(&self, number: u64) -> ObjectPath {
        let segment = Lsn((1 + number / PIECES) * SEGMENT);
        let bytes = SEGMENT / PIECES;
        let start = Lsn(segment.0 + number % PIECES * bytes);
        let end = Lsn(start.0 + bytes);
        let name = WalRangeName { timeline: TimelineId(1), segment, start, end };
        self.paths.path(&LineObject::WalHot(name)).unwrap()
    }

    fn wal_page(&self, start_after: Option<&ObjectPath>, limit: usize) -> ListPage {
        let (mut low, mut high) = (0, OBJECTS);
        while start_after.is_some_and(|_| low < high) {
            let middle = u64::midpoint(low, high);
            if start_after.is_some_and(|after| self.piece(middle) <= *after) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let end = OBJECTS.min(low + u64::try_from(limit).unwrap());
        let info =
            |number| ObjectInfo { path: self.piece(number), size_bytes: 9, modified: self.written };
        let objects: Vec<ObjectInfo> = (low..end).map(info).collect();
        let next = objects.last().filter(|_| end < OBJECTS).map(|last| last.path.clone());
        ListPage { objects, next }
    }
}

#[async_trait]
impl Store for Archive {
    fn url(&self) -> &StoreUrl {
        self.inner.url()
    }

    async fn create(&self, path: &ObjectPath, bytes: Bytes) -> Result<(), StoreError> {
        self.inner.create(path, bytes).await
    }

    async fn create_large(&self, path: &ObjectPath) -> Result<Box<dyn ObjectWriter>, StoreError> {
        self.inner.create_large(path).await
    }

    async fn read_within(&self, path: &ObjectPath, limit_bytes: u64) -> Result<Bytes, StoreError> {
        self.inner.read_within(path, limit_bytes).await
    }

    async fn read_range(&self, path: &ObjectPath, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.inner.read_range(path, range).await
    }

    async fn read_end(&self, path: &ObjectPath, bytes: u64) -> Result<ObjectEnd, StoreError> {
        self.inner.read_end(path, bytes).await
    }

    async fn stat(&self, path: &ObjectPath) -> Result<ObjectInfo, StoreError> {
        self.inner.stat(path).await
    }

    async fn make_durable(&self, path: &ObjectPath) -> Result<(), StoreError> {
        self.inner.make_durable(path).await
    }

    async fn list(
        &self,
        prefix: &ObjectPrefix,
        start_after: Option<&ObjectPath>,
        limit: usize,
    ) -> Result<ListPage, StoreError> {
        if *prefix == self.paths.below("wal/hot/00000001").unwrap() {
            return Ok(self.wal_page(start_after, limit));
        }
        self.inner.list(prefix, start_after, limit).await
    }

    async fn list_children(&self, prefix: &ObjectPrefix) -> Result<Vec<String>, StoreError> {
        if *prefix == self.paths.below("wal/hot").unwrap() {
            return Ok(vec!["00000001".to_owned()]);
        }
        self.inner.list_children(prefix).await
    }

    async fn delete(&self, path: &ObjectPath) -> Result<(), StoreError> {
        self.inner.delete(path).await
    }

    async fn delete_many(&self, paths: &[ObjectPath]) -> Result<(), StoreError> {
        self.inner.delete_many(paths).await
    }

    async fn sweep_unfinished(&self, older_than: Duration) -> Result<(), StoreError> {
        self.inner.sweep_unfinished(older_than).await
    }
}

/// The most memory this process has used, the store's included.
fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib * 1024
}

#[tokio::test]
async fn ten_thousand_backups_and_a_million_names_are_read_and_planned_in_seconds() {
    let paths = LinePaths::new(&"main".parse().unwrap(), "7-0".parse().unwrap()).unwrap();
    let written = Timestamp::now();
    let store = Archive { inner: MemoryStore::new(), paths, written };
    let line = line_in(Arc::new(store)).await;
    let segments = OBJECTS / PIECES / BACKUPS;
    for number in 0..BACKUPS {
        commit(&line, number + 1, 1 + number * segments).await;
    }
    let began = Instant::now();
    let keep = Keep { daily: 7, weekly: 4, monthly: 12, ..Keep::NONE };
    let policy = Policy { keep, zone: TimeZone::UTC, ..last(30) };
    let plan = plan_line(&line, &policy, Timestamp::now()).await.unwrap();
    let (took, peak) = (began.elapsed(), peak_bytes());
    assert_eq!(plan.backups.len(), usize::try_from(BACKUPS).unwrap());
    // All were written today: the last thirty, and the first of the day.
    assert_eq!(plan.backups.len() - plan.going().count(), 31);
    let going: u64 = plan.going_wal().map(|(_, range)| range.len_bytes()).sum();
    assert!(going > OBJECTS / PIECES / 2 * SEGMENT, "{going}");
    println!("read and planned: {took:?}, peak {} MiB", peak >> 20);
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert!(peak < 150_000_000, "{peak} bytes");
}

fn last(count: u32) -> Policy {
    Policy { last: std::num::NonZeroU32::new(count), ..Policy::none() }
}
