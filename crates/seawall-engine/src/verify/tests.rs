use std::sync::Arc;

use seawall_core::{BranchNumber, ExitClass, LineId, NoProgress, SystemId};
use seawall_repo::CreateOptions;
use seawall_repo::keys::{KeyFile, Unlock};
use seawall_repo::records::{About, Condemnation, Decision, HistoryFile};
use seawall_store::{OpenOptions, open_or_create};

use super::backups::Checked;
use super::*;
use crate::events::{Standings, Verdict, standings};

struct House {
    repository: Repository,
    line: Line,
    key: Unlock,
    directory: tempfile::TempDir,
}

impl House {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("file://{}", directory.path().display()).parse().unwrap();
        let key = Unlock::KeyFile(KeyFile::generate().unwrap());
        let options = CreateOptions { unlock: &key, label: "first", now: Timestamp::now() };
        let store = open_or_create(&url, &OpenOptions::default()).await.unwrap();
        let repository = Repository::create(Arc::clone(&store), &options).await.unwrap();
        let id = LineId { system_id: SystemId(7), branch: BranchNumber(0) };
        let line = repository.line(&"main".parse().unwrap(), id).unwrap();
        line.create(&about()).await.unwrap();
        Self { repository, line, key, directory }
    }

    async fn listed(&self) -> Vec<Listed> {
        list(&self.repository, &mut Findings::default()).await.unwrap()
    }

    fn path(&self, object: &LineObject) -> ObjectPath {
        self.line.paths().path(object).unwrap()
    }

    /// What the heads of a listing tell.
    async fn heads(&self, listed: &[Listed]) -> Vec<Finding> {
        let mut findings = Findings::default();
        let heads = Heads::of(&self.line, listed).await.unwrap();
        let condemned = self.line.condemnations().await.unwrap();
        heads::check(&self.line, listed, &heads, &condemned, &mut findings).await.unwrap();
        findings.into_list()
    }

    async fn history(&self, timeline: u32) -> ObjectPath {
        let path = self.path(&LineObject::History(seawall_core::TimelineId(timeline)));
        let name = format!("{timeline:08X}.history");
        let file = HistoryFile { name, content: b"1\t0/5000000\tx\n".to_vec().into() };
        self.repository.create_record(&path, &file).await.unwrap();
        path
    }

    /// Records a backup as verified that uses nothing but `objects`.
    async fn record(&self, objects: &[ObjectPath], findings: &Findings) -> usize {
        let read = self.listed().await.into_iter().map(|object| object.path).collect();
        let whole = vec![(backup(), objects.iter().cloned().collect())];
        let checked = Checked { whole, ..Checked::default() };
        let now = Timestamp::now();
        let recorded = record::record(&self.line, checked, Some(&read), findings, now).await;
        assert!(recorded.failure.is_none(), "{recorded:?}");
        recorded.whole.len()
    }
}

fn about() -> About {
    About {
        cluster: "main".to_owned(),
        system_id: SystemId(7),
        branch: BranchNumber(0),
        major: 15,
        catalog_version: 202_209_061,
        control_version: 1300,
        block_bytes: 8192,
        relation_segment_blocks: 131_072,
        wal_segment_bytes: 16 << 20,
        wal_block_bytes: 8192,
        data_checksum_version: 1,
        created_us: 0,
    }
}

fn backup() -> BackupId {
    BackupId::new(Timestamp::UNIX_EPOCH, 1).unwrap()
}

#[tokio::test]
async fn what_is_added_while_the_names_are_listed_is_not_missing() {
    let house = House::new().await;
    house.record(&[], &Findings::default()).await;
    let before = house.listed().await;
    house.history(2).await;
    assert_eq!(house.record(&[], &Findings::default()).await, 1);
    assert_eq!(house.heads(&before).await, [], "a head that is newer than the listing");

    // Names are listed in their order: a head may be seen, and what it tells of not.
    let mut torn = house.listed().await;
    torn.retain(|object| !matches!(&object.name, ObjectName::Line(_, _, LineObject::Event(..))));
    assert_eq!(house.heads(&torn).await, []);
}

#[tokio::test]
async fn what_a_head_tells_of_and_is_gone_is_found() {
    let house = House::new().await;
    let history = house.history(2).await;
    house.record(&[], &Findings::default()).await;
    house.line.store().delete(&history).await.unwrap();
    let findings = house.heads(&house.listed().await).await;
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert_eq!(
        (findings[0].object.as_str(), findings[0].code),
        (history.as_str(), Code::ObjectMissing)
    );
}

#[tokio::test]
async fn a_damaged_note_of_a_verification_is_about_its_own_backup() {
    let house = House::new().await;
    house.record(&[], &Findings::default()).await;
    let other = BackupId::new(Timestamp::UNIX_EPOCH, 2).unwrap();
    let note = house.path(&LineObject::Event(other.0, 0));
    house.line.store().create(&note, "no note".into()).await.unwrap();
    let Standings { known, unread, undecided } = standings(&house.line).await;
    assert_eq!(known.keys().collect::<Vec<_>>(), [&backup()]);
    let verdict = known.get(&backup()).and_then(|standing| standing.verdict.as_ref());
    assert!(matches!(verdict, Some(Verdict::Whole { .. })), "{known:?}");
    assert!(undecided.is_some(), "it may have been a hold");
    let unread = unread.map(|error| error.exit_class());
    assert_eq!(unread, Some(ExitClass::Integrity));
}

#[tokio::test]
async fn a_key_slot_that_was_removed_is_not_missed() {
    let house = House::new().await;
    let second = Unlock::KeyFile(KeyFile::generate().unwrap());
    let options = CreateOptions { unlock: &second, label: "second", now: Timestamp::now() };
    let slots = house.repository.add_key(&options).await.unwrap();
    house.record(&[], &Findings::default()).await;
    house.repository.remove_key(1, slots[0]).await.unwrap();
    assert_eq!(house.heads(&house.listed().await).await, []);
}

#[tokio::test]
async fn a_pin_that_is_taken_away_meanwhile_is_no_damage() {
    let house = House::new().await;
    let path = house.path(&LineObject::Pin(backup().0, 3));
    let name = ObjectName::parse(&path).unwrap();
    let objects = vec![Listed { path, name, size_bytes: 1 }];
    let request = VerifyRequest { sample_percent: 100, jobs: 1, ..VerifyRequest::default() };
    let mut findings = Findings::default();
    let needed = BTreeSet::from([objects[0].path.clone()]);
    objects::read_all(&house.repository, &request, objects, &needed, &mut findings, &NoProgress)
        .await
        .unwrap();
    assert_eq!(findings.into_list(), []);
}

#[tokio::test]
async fn a_cluster_that_ought_to_be_there_is_missed() {
    let house = House::new().await;
    let found = async |cluster: &str| {
        let clusters = vec![cluster.parse().unwrap()];
        let request =
            VerifyRequest { clusters, sample_percent: 100, jobs: 1, ..VerifyRequest::default() };
        run(&house.repository, &request, &NoProgress).await.unwrap().findings
    };
    assert_eq!(found("main").await, []);
    let missed = found("other").await;
    assert_eq!(missed.len(), 1, "{missed:?}");
    let missed = (missed[0].object.as_str(), missed[0].code);
    assert_eq!(missed, ("cluster other", Code::NoSuchCluster));
}

#[tokio::test]
async fn a_backup_is_verified_only_if_all_of_it_was_read_and_nothing_about_it_found() {
    let house = House::new().await;
    let history = house.history(2).await;
    let newer = house.path(&LineObject::Map(backup().0));
    assert_eq!(house.record(&[newer], &Findings::default()).await, 0, "not read");
    for object in [subject(backup()), history.to_string()] {
        let mut findings = Findings::default();
        findings.add(object, Code::WalGap, "a hole");
        assert_eq!(house.record(std::slice::from_ref(&history), &findings).await, 0);
    }
    // A pin left by a verification that died keeps none from recording.
    let pin = house.path(&LineObject::Pin(backup().0, 0));
    house.line.store().create(&pin, bytes::Bytes::from_static(b"left")).await.unwrap();
    assert_eq!(house.record(&[history], &Findings::default()).await, 1);
    assert!(house.line.store().stat(&pin).await.is_err());
    assert_eq!(house.heads(&house.listed().await).await, []);
}

#[tokio::test]
async fn what_is_whole_is_told_also_where_it_cannot_be_recorded() {
    let house = House::new().await;
    let history = house.history(2).await;
    // As on storage that is mounted read-only: no head can be written, which root would be let.
    let line = house.directory.path().join("c/main/i").join(house.line.id().to_string());
    std::fs::write(line.join("head"), "in the way").unwrap();
    let read = BTreeSet::from([history.clone()]);
    let whole = vec![(backup(), [history].into_iter().collect())];
    let checked = Checked { whole, ..Checked::default() };
    let (findings, now) = (Findings::default(), Timestamp::now());
    let recorded = record::record(&house.line, checked, Some(&read), &findings, now).await;
    assert!(recorded.failure.is_some(), "{recorded:?}");
    assert_eq!(recorded.whole, [backup().to_string()]);
}

#[tokio::test]
async fn a_verification_that_a_rotation_overtakes_reads_what_is_new_and_records_under_the_new_key()
{
    let house = House::new().await;
    let options = CreateOptions { unlock: &house.key, label: "next", now: Timestamp::now() };
    house.repository.rotate(&[options]).await.unwrap();
    // Opened before, as by a verification that runs for hours. The rotation wrote a head.
    let report = run(&house.repository, &VerifyRequest::default(), &NoProgress).await.unwrap();
    assert!(report.unrecorded.is_none(), "{:?}", report.unrecorded);
    let of_heads = |finding: &&Finding| finding.object.contains("/head/");
    assert_eq!(report.findings.iter().find(of_heads), None);
}

#[tokio::test]
async fn nothing_is_recorded_under_an_old_key_after_a_rotation_to_another() {
    let house = House::new().await;
    let other = Unlock::KeyFile(KeyFile::generate().unwrap());
    let options = CreateOptions { unlock: &other, label: "next", now: Timestamp::now() };
    house.repository.rotate(&[options]).await.unwrap();
    let report = run(&house.repository, &VerifyRequest::default(), &NoProgress).await.unwrap();
    let unrecorded = report.unrecorded.as_ref().map(Error::code);
    assert_eq!(unrecorded, Some(Code::WrongKey), "{:?}", report.findings);
    let head = report.findings.iter().find(|finding| finding.object.contains("/head/"));
    assert_eq!(head.map(|head| head.code), Some(Code::WrongKey), "{:?}", report.findings);
    assert!(!report.findings.iter().any(|finding| finding.object.starts_with("epochs/")));
}

impl House {
    /// Condemns objects, and says so if it is decided that they go.
    async fn condemn(&self, objects: &[LineObject], is_decided: bool) {
        let id = seawall_repo::new_ulid(Timestamp::now()).unwrap();
        let names = objects.iter().map(|object| self.line.paths().name(object).unwrap()).collect();
        let condemnation = Condemnation { time_us: 0, names, grace_s: 900 };
        let path = |number| self.path(&LineObject::Gc(id, number));
        let condemned = path(LineObject::CONDEMNED);
        self.repository.create_record(&condemned, &condemnation).await.unwrap();
        if is_decided {
            let decision = Decision { time_us: 0, spared: Vec::new() };
            let decided = path(LineObject::DECIDED);
            self.repository.create_record(&decided, &decision).await.unwrap();
        }
    }
}

#[tokio::test]
async fn what_was_decided_to_go_is_not_missed_and_what_is_only_condemned_is() {
    let house = House::new().await;
    house.record(&[], &Findings::default()).await;
    house.record(&[], &Findings::default()).await;
    let event = LineObject::Event(backup().0, 0);
    house.condemn(std::slice::from_ref(&event), false).await;
    house.line.store().delete(&house.path(&event)).await.unwrap();
    let findings = house.heads(&house.listed().await).await;
    assert_eq!(findings.len(), 1, "nobody has decided it: {findings:?}");
    house.condemn(&[event], true).await;
    assert_eq!(house.heads(&house.listed().await).await, []);
}

#[tokio::test]
async fn a_head_may_go_that_another_one_stands_for_and_what_vanishes_after_that_is_found() {
    let house = House::new().await;
    let history = house.history(2).await;
    house.record(&[], &Findings::default()).await;
    house.record(&[], &Findings::default()).await;
    let before = house.listed().await;
    house.line.replace_heads(Timestamp::now()).await.unwrap();
    assert_eq!(house.heads(&before).await, [], "they went after they were listed");
    assert_eq!(house.line.heads().await.unwrap().len(), 1);
    assert_eq!(house.heads(&house.listed().await).await, [], "the events name heads that went");

    house.record(&[], &Findings::default()).await;
    let newest = house.line.heads().await.unwrap().pop().unwrap();
    house.line.store().delete(&history).await.unwrap();
    house.line.store().delete(&house.path(&LineObject::Head(newest))).await.unwrap();
    let findings = house.heads(&house.listed().await).await;
    let found: Vec<&str> = findings.iter().map(|finding| finding.object.as_str()).collect();
    let head = house.path(&LineObject::Head(newest));
    assert_eq!(found, [head.as_str(), history.as_str()]);
}
