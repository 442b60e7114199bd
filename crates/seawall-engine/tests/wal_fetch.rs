//! `restore_command`: what is served, and when recovery is told that there is no more.

#[path = "../../seawall-repo/tests/archive_support/mod.rs"]
mod archive_support;

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use archive_support::wal::{SYSTEM_ID, WalWriter};
use archive_support::*;
use seawall_core::{BranchNumber, Code, LineId, Lsn, SystemId, TimelineId};
use seawall_engine::cluster::PostmasterFile;
use seawall_engine::restored::PromotionNote;
use seawall_engine::wal::{
    FetchRequest, RestorePath, WhileAway, fetch, fetch_kept, keep_recovering, while_away,
};
use seawall_pgdata::PgMajor;
use seawall_pgdata::history::TimelineSpan;
use seawall_store::{Metered, OpenOptions};

fn start(number: u64) -> Lsn {
    Lsn(number * SEGMENT_BYTES)
}

/// Whom the server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Server {
    /// On a restored directory with its state file.
    Restored,
    /// A standby without one.
    Standby,
    /// A standby that was restored.
    RestoredStandby,
    /// Neither.
    Unknown,
}

/// Timeline 1 from segment 3 into segment 5, where timeline 2 goes on into segment 6.
struct Setting {
    fixture: Fixture,
    child: WalWriter,
    parent: WalWriter,
    switch: Lsn,
    wal_end: Lsn,
    pg_wal: tempfile::TempDir,
}

impl Setting {
    async fn new() -> Self {
        let fixture = Fixture::new().await;
        let mut parent = WalWriter::new(PgMajor::V15, 3);
        parent.fill_past(start(5).saturating_add(300_000));
        let (mut child, switch) = fork(&parent);
        child.fill_past(start(6).saturating_add(200_000));
        let wal_end = child.position();
        child.fill_past(start(6).saturating_add(400_000));
        parent.fill_past(start(5).saturating_add(600_000));
        fixture.push_history(2, &history_of_2(switch)).await;
        for number in [3, 4] {
            fixture.push(&file_name(1, number), &segment(&parent, number)).await.unwrap();
        }
        fixture.push(&format!("{}.partial", file_name(1, 5)), &segment(&parent, 5)).await.unwrap();
        fixture.push(&file_name(2, 5), &segment(&child, 5)).await.unwrap();
        fixture.push(&format!("{}.partial", file_name(2, 6)), &segment(&child, 6)).await.unwrap();
        let pg_wal = tempfile::tempdir().unwrap();
        Self { fixture, child, parent, switch, wal_end, pg_wal }
    }

    fn path(&self) -> RestorePath {
        let span = |timeline, begin, end| TimelineSpan { timeline, begin, end };
        RestorePath {
            line: LineId { system_id: SYSTEM_ID, branch: BranchNumber(0) },
            spans: vec![span(T1, Lsn::INVALID, Some(self.switch)), span(T2, self.switch, None)],
            wal_end: self.wal_end,
            stop_before: None,
        }
    }

    fn destination(&self) -> PathBuf {
        self.pg_wal.path().join("RECOVERYXLOG")
    }

    fn request(&self, name: &str, server: Server) -> FetchRequest {
        let restored = matches!(server, Server::Restored | Server::RestoredStandby);
        FetchRequest {
            lines: vec![self.fixture.archive.line().clone()],
            name: name.to_owned(),
            destination: self.destination(),
            path: restored.then(|| self.path()),
            standby: matches!(server, Server::Standby | Server::RestoredStandby),
        }
    }

    /// What PostgreSQL would find, or why there is nothing.
    async fn fetch(&self, name: &str, server: Server) -> Result<Vec<u8>, Code> {
        self.run(&self.request(name, server)).await
    }

    async fn run(&self, request: &FetchRequest) -> Result<Vec<u8>, Code> {
        fs::remove_file(self.destination()).ok();
        let fetched = fetch(request).await;
        let left: Vec<_> = fs::read_dir(self.pg_wal.path()).unwrap().collect();
        match fetched {
            Ok(()) => {
                assert_eq!(left.len(), 1, "{left:?}");
                Ok(fs::read(self.destination()).unwrap())
            }
            Err(error) => {
                assert_eq!(left.len(), 0, "{left:?}");
                Err(error.code())
            }
        }
    }
}

/// What a segment is up to some LSN, and zeros behind.
fn cut(log: &WalWriter, number: u64, end: Lsn) -> Vec<u8> {
    let mut bytes = segment(log, number);
    bytes[end.align_up().bytes_since(start(number)) as usize..].fill(0);
    bytes
}

#[tokio::test]
async fn a_restore_gets_its_way_through_the_log_and_nothing_else() {
    let setting = Setting::new().await;
    let get = async |timeline, number| {
        setting.fetch(&file_name(timeline, number), Server::Restored).await
    };
    assert_eq!(get(1, 3).await, Ok(segment(&setting.parent, 3)));
    assert_eq!(get(1, 4).await, Ok(segment(&setting.parent, 4)));
    assert_eq!(get(2, 5).await, Ok(segment(&setting.child, 5)));
    assert_eq!(get(2, 6).await, Ok(cut(&setting.child, 6, setting.wal_end)), "zeros past the end");
    assert_eq!(get(1, 5).await, Ok(cut(&setting.parent, 5, setting.switch)), "up to the switch");
    for (timeline, number) in [(2, 7), (2, 100), (1, 6), (2, 4), (2, 3), (3, 5), (9, 3)] {
        assert_eq!(get(timeline, number).await, Err(Code::WalPastEnd), "{timeline} {number}");
    }
    assert_eq!(get(1, 2).await, Err(Code::WalMissing), "it lies before the end");
}

#[tokio::test]
async fn short_of_the_planned_end_nothing_is_not_found() {
    let setting = Setting::new().await;
    let segments = setting.fixture.directory.path().join(format!("c/main/i/{SYSTEM_ID}-0/wal/hot"));
    for (timeline, number) in [(1, 3), (1, 4), (2, 5), (2, 6), (1, 5)] {
        for server in [Server::Restored, Server::RestoredStandby] {
            let owner = if (timeline, number) == (2, 5) { 1 } else { timeline };
            let there = segments.join(format!("{owner:08X}/{:016X}", number * SEGMENT_BYTES));
            let aside = setting.fixture.directory.path().join("aside");
            fs::rename(&there, &aside).unwrap();
            let code = setting.fetch(&file_name(timeline, number), server).await.unwrap_err();
            assert!(matches!(code, Code::WalMissing | Code::WalGap), "{timeline} {number}: {code}");
            fs::rename(&aside, &there).unwrap();
        }
    }
    let mut request = setting.request(&file_name(2, 6), Server::Restored);
    if let Some(path) = &mut request.path {
        path.wal_end = start(6).saturating_add(600_000);
    }
    assert_eq!(setting.run(&request).await, Err(Code::WalGap), "archived up to less");
}

#[tokio::test]
async fn without_a_state_file_only_a_standby_is_told_that_there_is_no_more() {
    let setting = Setting::new().await;
    for server in [Server::Standby, Server::Unknown] {
        let whole = setting.fetch(&file_name(2, 5), server).await;
        assert_eq!(whole, Ok(segment(&setting.child, 5)), "{server:?}");
    }
    for (timeline, number) in [(2, 7), (1, 6), (9, 3), (2, 3)] {
        let name = file_name(timeline, number);
        let standby = setting.fetch(&name, Server::Standby).await;
        assert_eq!(standby, Err(Code::WalPastEnd), "{name}");
        let unknown = setting.fetch(&name, Server::Unknown).await;
        assert_eq!(unknown, Err(Code::WalMissing), "{name}");
    }
    let last = file_name(2, 6);
    assert_eq!(setting.fetch(&last, Server::Standby).await, Ok(segment(&setting.child, 6)));
    assert_eq!(setting.fetch(&last, Server::Unknown).await, Err(Code::WalMissing));
    let before = file_name(1, 2);
    assert_eq!(setting.fetch(&before, Server::Standby).await, Err(Code::WalGap), "a hole");
}

#[tokio::test]
async fn a_restored_standby_follows_past_the_planned_end() {
    let setting = Setting::new().await;
    let last = setting.fetch(&file_name(2, 6), Server::RestoredStandby).await;
    assert_eq!(last, Ok(segment(&setting.child, 6)), "all there is of it");
    let name = file_name(2, 7);
    assert_eq!(setting.fetch(&name, Server::RestoredStandby).await, Err(Code::WalPastEnd));
    let mut child = setting.child;
    child.fill_past(start(8));
    setting.fixture.push(&file_name(2, 6), &segment(&child, 6)).await.unwrap();
    setting.fixture.push(&file_name(2, 7), &segment(&child, 7)).await.unwrap();
    let setting = Setting { child, ..setting };
    let seven = setting.fetch(&name, Server::RestoredStandby).await;
    assert_eq!(seven, Ok(segment(&setting.child, 7)));
    assert_eq!(setting.fetch(&name, Server::Restored).await, Err(Code::WalPastEnd), "as planned");
}

#[tokio::test]
async fn what_the_old_primary_wrote_behind_the_fork_is_nothing_for_a_standby() {
    let mut setting = Setting::new().await;
    setting.parent.fill_past(start(8));
    for number in [5, 6, 7] {
        setting
            .fixture
            .push(&file_name(1, number), &segment(&setting.parent, number))
            .await
            .unwrap();
    }
    let get = async |number| setting.fetch(&file_name(1, number), Server::RestoredStandby).await;
    assert_eq!(get(5).await, Ok(cut(&setting.parent, 5, setting.switch)));
    for number in [6, 7] {
        assert_eq!(get(number).await, Err(Code::WalPastEnd), "{number}");
    }
    // The first segment of its own timeline was not to be had, as in an outage.
    let own =
        setting.fixture.directory.path().join(format!("c/main/i/{SYSTEM_ID}-0/wal/hot/00000002"));
    fs::remove_dir_all(own).unwrap();
    assert_eq!(get(6).await, Err(Code::WalPastEnd));
    assert_eq!(get(5).await, Ok(cut(&setting.parent, 5, setting.switch)));
}

/// A data directory whose server says that of itself.
fn server_that_is(status: &str, min_recovery_point: Lsn) -> tempfile::TempDir {
    let data_directory = tempfile::tempdir().unwrap();
    for name in ["pg_wal", "global"] {
        fs::create_dir(data_directory.path().join(name)).unwrap();
    }
    let mut control = control_on(2);
    control[136..144].copy_from_slice(&min_recovery_point.0.to_le_bytes());
    fs::write(data_directory.path().join("global/pg_control"), sealed(control)).unwrap();
    let pid = std::process::id();
    let text = format!("{pid}\n/data\n1700000000\n5433\n/run/pg\n*\n 1 2\n{status}\n");
    fs::write(data_directory.path().join("postmaster.pid"), text).unwrap();
    data_directory
}

#[tokio::test]
async fn a_standby_that_starts_learns_of_no_timeline_that_went_another_way() {
    let setting = Setting::new().await;
    let (end, switch) = (setting.wal_end, setting.switch);
    let left_early = Lsn(end.0 - 4096);
    let to_3 = format!("1\t{}\tx\n", start(4));
    let to_4 = format!("1\t{switch}\tx\n2\t{left_early}\tx\n");
    let to_5 = format!("1\t{switch}\tx\n2\t{end}\tx\n");
    for (timeline, history) in [(3, &to_3), (4, &to_4)] {
        setting.fixture.push_history(timeline, history).await;
    }
    let get = async |data_directory: &tempfile::TempDir, timeline: u32| {
        let mut request =
            setting.request(&format!("{timeline:08X}.history"), Server::RestoredStandby);
        request.destination = data_directory.path().join("pg_wal/RECOVERYHISTORY");
        fetch(&request).await.map_err(|error| error.code())
    };
    let starting = server_that_is("starting", switch);
    assert_eq!(get(&starting, 2).await, Ok(()), "its own");
    assert_eq!(get(&starting, 3).await, Err(Code::WalPastEnd), "a sibling");
    assert_eq!(get(&starting, 4).await, Err(Code::WalPastEnd), "a child that left too early");

    // It read that one as it ran, and would find it there.
    let kept = starting.path().join("pg_wal/00000003.history");
    for (content, stays) in [(to_3.as_str(), false), ("another", true)] {
        fs::write(&kept, content).unwrap();
        assert_eq!(get(&starting, 3).await, Err(Code::WalPastEnd));
        assert_eq!(kept.exists(), stays, "{content}");
    }

    // PostgreSQL goes no further than the first number that is not there.
    setting.fixture.push_history(5, &to_5).await;
    for timeline in [2, 3, 4, 5] {
        assert_eq!(get(&starting, timeline).await, Ok(()), "{timeline} on the way to 5");
    }
    assert_eq!(get(&starting, 6).await, Err(Code::WalPastEnd), "nobody began it");
}

#[tokio::test]
async fn a_standby_that_runs_learns_of_every_number_that_is_taken() {
    let setting = Setting::new().await;
    let (end, switch) = (setting.wal_end, setting.switch);
    let left_early = Lsn(end.0 - 4096);
    setting.fixture.push_history(3, &format!("1\t{}\tx\n", start(4))).await;
    let to_4 = format!("1\t{switch}\tx\n2\t{left_early}\tx\n");
    setting.fixture.push_history(4, &to_4).await;
    for (been_to, four) in [(switch, Err(Code::WalPastEnd)), (end, Ok(()))] {
        let data_directory = server_that_is("standby", been_to);
        for (timeline, expected) in
            [(2, Ok(())), (3, Ok(())), (4, four), (5, Err(Code::WalPastEnd))]
        {
            let mut request =
                setting.request(&format!("{timeline:08X}.history"), Server::RestoredStandby);
            request.destination = data_directory.path().join("pg_wal/RECOVERYHISTORY");
            let fetched = fetch(&request).await.map_err(|error| error.code());
            assert_eq!(fetched, expected, "{timeline}, having been to {been_to}");
        }
    }
}

/// `pg_control` of a server on that timeline.
fn control_on(timeline: u32) -> Vec<u8> {
    let golden = "../seawall-pgdata/tests/golden/pg_control.15.bin";
    let mut bytes = fs::read(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(golden)).unwrap();
    bytes[48..52].copy_from_slice(&timeline.to_le_bytes());
    sealed(bytes)
}

fn sealed(mut control: Vec<u8>) -> Vec<u8> {
    let crc = crc32c::crc32c(&control[..288]);
    control[288..292].copy_from_slice(&crc.to_le_bytes());
    control
}

#[tokio::test]
async fn a_plan_that_is_over_proves_nothing() {
    let setting = Setting::new().await;
    let data_directory = tempfile::tempdir().unwrap();
    for name in ["pg_wal", "global"] {
        fs::create_dir(data_directory.path().join(name)).unwrap();
    }
    let mut request = setting.request(&file_name(2, 7), Server::Restored);
    request.destination = data_directory.path().join("pg_wal/RECOVERYXLOG");
    for (timeline, code) in [(1, Code::WalPastEnd), (2, Code::WalPastEnd), (3, Code::WalMissing)] {
        fs::write(data_directory.path().join("global/pg_control"), control_on(timeline)).unwrap();
        assert_eq!(fetch(&request).await.unwrap_err().code(), code, "on timeline {timeline}");
    }
}

#[tokio::test]
async fn histories_are_served_and_an_unknown_one_does_not_exist() {
    let setting = Setting::new().await;
    for server in [Server::Restored, Server::Standby, Server::Unknown] {
        let known = setting.fetch("00000002.history", server).await;
        assert_eq!(known, Ok(history_of_2(setting.switch).into_bytes()));
        let next = setting.fetch("00000003.history", server).await;
        assert_eq!(next, Err(Code::WalPastEnd), "{server:?}");
    }
    let history =
        setting.fixture.directory.path().join(format!("c/main/i/{SYSTEM_ID}-0/history/00000002"));
    fs::remove_file(history).unwrap();
    let lost = setting.fetch("00000002.history", Server::Restored).await;
    assert_eq!(lost, Err(Code::WalMissing), "the restore needs it");
}

/// PostgreSQL asks for more numbers than those on its way: which are taken.
#[tokio::test]
async fn a_damaged_history_beside_a_restore_takes_its_number_and_no_more() {
    let setting = Setting::new().await;
    // Both left the first timeline as the second one did.
    for timeline in [3, 4] {
        setting.fixture.push_history(timeline, &history_of_2(start(4))).await;
    }
    let object = |timeline: u32| {
        let below = setting.fixture.directory.path().join(format!("c/main/i/{SYSTEM_ID}-0"));
        below.join(format!("history/{timeline:08X}"))
    };
    fs::write(object(3), b"damaged").unwrap();
    let taken = setting.fetch("00000003.history", Server::Restored).await.unwrap();
    assert!(taken.starts_with(b"# timeline 3 is taken"), "{}", String::from_utf8_lossy(&taken));
    let known = setting.fetch("00000004.history", Server::Restored).await;
    assert_eq!(known, Ok(history_of_2(start(4)).into_bytes()));
    let free = setting.fetch("00000005.history", Server::Restored).await;
    assert_eq!(free, Err(Code::WalPastEnd));
    // Who may follow it has to know where it leads.
    for server in [Server::Standby, Server::RestoredStandby, Server::Unknown] {
        let refused = setting.fetch("00000003.history", server).await;
        assert_eq!(refused, Err(Code::ObjectDamaged), "{server:?}");
    }
    // Another repository may have it, and one that does not answer may as well.
    let other = Setting::new().await;
    other.fixture.push_history(3, &history_of_2(start(4))).await;
    let mut request = setting.request("00000003.history", Server::Restored);
    request.lines.push(other.fixture.archive.line().clone());
    assert_eq!(setting.run(&request).await, Ok(history_of_2(start(4)).into_bytes()));
    let about = other.fixture.directory.path().join(format!("c/main/i/{SYSTEM_ID}-0/about"));
    fs::write(about, b"damaged").unwrap();
    assert_eq!(setting.run(&request).await, Err(Code::ObjectDamaged));
    // What the restore goes along, it has to have.
    fs::write(object(2), b"damaged").unwrap();
    let needed = setting.fetch("00000002.history", Server::Restored).await;
    assert_eq!(needed, Err(Code::ObjectDamaged));
    // Of a lower number than its own, PostgreSQL does without.
    let mut higher = setting.request("00000003.history", Server::Restored);
    let path = higher.path.as_mut().unwrap();
    path.spans = vec![path.spans[0], TimelineSpan { timeline: TimelineId(4), ..path.spans[1] }];
    assert_eq!(setting.run(&higher).await, Err(Code::WalPastEnd));
}

#[tokio::test]
async fn e10_partial_and_backup_files_are_never_served() {
    let setting = Setting::new().await;
    for name in [
        "000000010000000000000005.partial",
        "000000010000000000000003.00000028.backup",
        "RECOVERYXLOG",
        "",
        "../000000010000000000000003",
    ] {
        for server in [Server::Restored, Server::Standby, Server::Unknown] {
            assert_eq!(setting.fetch(name, server).await, Err(Code::NotWal), "{name}");
        }
    }
}

#[tokio::test]
async fn e19_the_state_of_another_restore_is_not_used() {
    let setting = Setting::new().await;
    let mut request = setting.request(&file_name(1, 3), Server::Restored);
    for line in [
        LineId { system_id: SystemId(7), branch: BranchNumber(0) },
        LineId { system_id: SYSTEM_ID, branch: BranchNumber(1) },
    ] {
        if let Some(path) = &mut request.path {
            path.line = line;
        }
        assert_eq!(setting.run(&request).await, Err(Code::WalWrongCluster));
    }
}

#[tokio::test]
async fn a_file_left_over_from_before_is_replaced() {
    let setting = Setting::new().await;
    let request = setting.request(&file_name(1, 3), Server::Restored);
    fs::write(setting.destination(), b"old").unwrap();
    fs::write(setting.pg_wal.path().join("RECOVERYXLOG.seawall-tmp"), vec![1; 3 << 20]).unwrap();
    fetch(&request).await.unwrap();
    assert_eq!(fs::read(setting.destination()).unwrap(), segment(&setting.parent, 3));
    let mut nowhere = request;
    nowhere.destination = setting.pg_wal.path().join("no/such/place");
    assert_eq!(fetch(&nowhere).await.unwrap_err().code(), Code::LocalIo);
}

#[tokio::test]
async fn a_link_planted_where_a_file_is_written_is_not_written_through() {
    let setting = Setting::new().await;
    let elsewhere = tempfile::tempdir().unwrap();
    let precious = elsewhere.path().join("precious");
    fs::write(&precious, "precious").unwrap();
    let planted = setting.pg_wal.path().join("RECOVERYXLOG.seawall-tmp");
    std::os::unix::fs::symlink(&precious, planted).unwrap();
    let fetched = setting.fetch(&file_name(1, 3), Server::Restored).await;
    assert_eq!(fetched, Ok(segment(&setting.parent, 3)));
    assert_eq!(fs::read(&precious).unwrap(), b"precious");
}

#[tokio::test]
async fn no_damaged_object_makes_recovery_end() {
    let setting = Setting::new().await;
    let objects = files_below(&setting.fixture.directory.path().join("c/main"));
    let names = [file_name(1, 3), file_name(2, 5), file_name(2, 6), "00000002.history".to_owned()];
    let mut noticed = 0;
    for object in objects {
        let whole = fs::read(&object).unwrap();
        // The ends of every object and a sample of the rest.
        let step = if whole.len() < 2000 { 5 } else { whole.len() / 60 };
        let sampled =
            (0..whole.len()).step_by(step).chain(0..64).chain(whole.len() - 32..whole.len());
        for (count, at) in sampled.enumerate() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1 << (count % 8);
            fs::write(&object, &damaged).unwrap();
            for name in &names {
                for server in [Server::Restored, Server::Standby] {
                    match setting.fetch(name, server).await {
                        Ok(_) => {}
                        Err(Code::WalPastEnd) => panic!("{name} past end: {object:?} at {at}"),
                        Err(_) => noticed += 1,
                    }
                }
            }
        }
        fs::write(&object, &whole).unwrap();
    }
    assert!(noticed > 500, "{noticed}");
}

#[tokio::test]
async fn every_bit_of_a_range_counts_for_whoever_fetches_it() {
    let fixture = Fixture::new().await;
    let mut log = WalWriter::new(PgMajor::V15, 3);
    log.commit(1);
    log.switch();
    fixture.push_all(&log).await;
    let pg_wal = tempfile::tempdir().unwrap();
    let request = FetchRequest {
        lines: vec![fixture.archive.line().clone()],
        name: file_name(1, 3),
        destination: pg_wal.path().join("x"),
        path: None,
        standby: true,
    };
    fetch(&request).await.unwrap();
    let object = fixture.objects().remove(0);
    let whole = fs::read(&object).unwrap();
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 1 << (at % 8);
        fs::write(&object, &damaged).unwrap();
        let error = fetch(&request).await.unwrap_err();
        assert_eq!(error.code(), Code::ObjectDamaged, "{at}");
    }
}

#[tokio::test]
async fn a_second_repository_helps_and_none_answers_for_the_other() {
    let one = Setting::new().await;
    let two = Setting::new().await;
    let name = file_name(1, 4);
    let object = |setting: &Setting| {
        let objects = setting.fixture.objects();
        objects
            .into_iter()
            .find(|path| path.to_string_lossy().contains("/0000000000400000-"))
            .unwrap()
    };
    fs::write(object(&one), b"damaged").unwrap();
    let mut request = one.request(&name, Server::Standby);
    assert_eq!(one.run(&request).await, Err(Code::ObjectDamaged));
    request.lines.push(two.fixture.archive.line().clone());
    assert_eq!(one.run(&request).await, Ok(segment(&two.parent, 4)));

    let mut past = one.request(&file_name(2, 7), Server::Standby);
    past.lines.push(two.fixture.archive.line().clone());
    assert_eq!(one.run(&past).await, Err(Code::WalPastEnd));
    let about = two.fixture.directory.path().join(format!("c/main/i/{SYSTEM_ID}-0/about"));
    fs::write(about, b"damaged").unwrap();
    assert_eq!(one.run(&past).await, Err(Code::ObjectDamaged), "the other may have it");
    past.lines.clear();
    assert_eq!(one.run(&past).await, Err(Code::NotConfigured));
}

/// A request of a server that archives nothing can be had of now.
fn of_server(directory: &tempfile::TempDir, name: &str, standby: bool) -> FetchRequest {
    FetchRequest {
        lines: Vec::new(),
        name: name.to_owned(),
        destination: directory.path().join("pg_wal/RECOVERYXLOG"),
        path: None,
        standby,
    }
}

#[test]
fn while_the_archive_is_away_no_answer_ends_recovery_unless_a_person_said_so() {
    let decide = |directory: &tempfile::TempDir, name: &str, standby| {
        while_away(&of_server(directory, name, standby))
    };
    let (segment, own, next) = (file_name(2, 7), "00000002.history", "00000003.history");
    let running = server_that_is("standby", Lsn(0));
    for name in [segment.as_str(), next] {
        assert_eq!(decide(&running, name, true), WhileAway::Wait, "{name}");
        assert_eq!(decide(&running, name, false), WhileAway::Fail, "{name}");
    }
    // A history without what came before it would be written.
    assert_eq!(decide(&running, own, true), WhileAway::Fail);
    let starting = server_that_is("starting", Lsn(0));
    assert_eq!(decide(&starting, next, true), WhileAway::Fail);
    assert_eq!(decide(&starting, &segment, true), WhileAway::Wait);

    let server = PostmasterFile::read(running.path()).expect("it runs");
    PromotionNote::write(running.path(), &server).unwrap();
    for standby in [true, false] {
        assert_eq!(decide(&running, &segment, standby), WhileAway::GoWithout);
        assert_eq!(decide(&running, next, standby), WhileAway::GoWithout);
        assert_eq!(decide(&running, own, standby), WhileAway::Fail);
    }
    fs::write(running.path().join("pg_wal").join(own), "1\t0/3000000\tx\n").unwrap();
    assert_eq!(decide(&running, own, true), WhileAway::GoWithout);
    // It was for another run of the server.
    let other = PostmasterFile { started: server.started + 1, ..server };
    PromotionNote::write(running.path(), &other).unwrap();
    assert_eq!(decide(&running, &segment, true), WhileAway::Wait);

    fs::remove_file(running.path().join("postmaster.pid")).unwrap();
    assert_eq!(decide(&running, &segment, true), WhileAway::Fail, "nobody waits");
}

/// `DB_IN_ARCHIVE_RECOVERY` (pg_control.h).
const IN_ARCHIVE_RECOVERY: u32 = 5;

#[test]
fn what_recovery_asks_for_last_is_in_the_directory_s_own_keeping_and_so_is_its_signal() {
    let directory = server_that_is("standby", Lsn(0));
    let path = |name: &str| directory.path().join(name);
    let kept = b"1\t0/3000000\tx\n";
    fs::write(path("pg_wal/00000002.history"), kept).unwrap();
    let wanted = path("pg_wal/RECOVERYHISTORY");
    let mut control = control_on(2);
    control[16..20].copy_from_slice(&IN_ARCHIVE_RECOVERY.to_le_bytes());
    fs::write(path("global/pg_control"), sealed(control)).unwrap();
    assert_eq!(fetch_kept("00000001.history", &wanted).unwrap_err().code(), Code::WalPastEnd);

    // As long as recovery can be begun again, the archive is asked.
    fs::write(path("standby.signal"), "").unwrap();
    assert!(!fetch_kept("00000002.history", &wanted).unwrap() && !wanted.exists());
    assert_eq!(keep_recovering(directory.path(), true).unwrap(), None);

    fs::remove_file(path("standby.signal")).unwrap();
    assert!(fetch_kept("00000002.history", &wanted).unwrap());
    assert_eq!(fs::read(&wanted).unwrap(), kept);
    assert!(!fetch_kept("00000003.history", &wanted).unwrap(), "it is not kept");
    for (standby, signal) in [(true, "standby.signal"), (false, "recovery.signal")] {
        let made = keep_recovering(directory.path(), standby).unwrap();
        assert_eq!(made, Some(path(signal)));
        assert_eq!(keep_recovering(directory.path(), standby).unwrap(), None, "it is there");
        fs::remove_file(path(signal)).unwrap();
    }

    // A server that takes writes has removed it for good.
    fs::write(path("global/pg_control"), control_on(2)).unwrap();
    assert_eq!(keep_recovering(directory.path(), true).unwrap(), None);
}

/// `restore_command` is a process for each segment: all of it is asked of a store that may be far away.
#[tokio::test]
async fn a_segment_is_fetched_with_a_dozen_calls_to_the_store() {
    let setting = Setting::new().await;
    let url = setting.fixture.archive.line().store().url().clone();
    let store = seawall_store::open(&url, &OpenOptions::default()).await.unwrap();
    let store = Arc::new(Metered::new(store));
    let archive = setting.fixture.with_other_store(Arc::<Metered>::clone(&store)).await.unwrap();
    let request = setting.request(&file_name(1, 4), Server::Restored);
    let request = FetchRequest { lines: vec![archive.line().clone()], ..request };
    fetch(&request).await.unwrap();
    let counts = store.counts();
    assert!(counts.calls() <= 14, "{counts:?}");
}
