//! Maps of changed blocks.

mod wal_support;

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use seawall_core::BlockNumber;
use seawall_pgdata::PgMajor;
use seawall_pgdata::relation_path::Fork;
use seawall_pgdata::wal::{
    BrokenReason, ChangedBlocks, DatabaseDirectory, RelFileLocator, RelationState, WalReader,
};
use wal_support::{WalWriter, start_at};

const REL: RelFileLocator = RelFileLocator { tablespace: 1663, database: 5, relation: 16_384 };

fn words(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// The map of records (rmgr, info, main data).
fn map_of(major: PgMajor, records: &[(u8, u8, Vec<u8>)]) -> ChangedBlocks {
    let mut log = WalWriter::new(major, 3);
    for (rmgr, info, data) in records {
        log.append(*rmgr, *info, 9, data);
    }
    let mut reader = WalReader::new(start_at(1, log.start)).unwrap();
    let (mut changes, mut input) = (ChangedBlocks::new(), &log.bytes[..]);
    while let Some(record) = reader.next(&mut input) {
        changes.apply(&record);
    }
    assert_eq!(reader.end(), None);
    changes
}

fn broken(major: PgMajor, rmgr: u8, info: u8, data: &[u8]) -> Option<BrokenReason> {
    map_of(major, &[(rmgr, info, data.to_vec())]).broken().map(|broken| broken.reason)
}

#[test]
fn a_truncation_drops_marks_and_later_ones_count_again() {
    let mut changes = ChangedBlocks::new();
    for block in [3, 10, 11] {
        changes.mark(REL, Fork::Main, block);
    }
    changes.truncate(REL, Fork::Main, 10);
    changes.mark(REL, Fork::Main, 11);
    let RelationState::Changed(state) = changes.relation_state(REL, Fork::Main) else { panic!() };
    assert_eq!(state.limit, Some(10));
    assert_eq!(state.blocks.iter().collect::<Vec<_>>(), [3, 11]);
    // Everything from the limit on is new, marked or not.
    assert!(changes.touches(REL, Fork::Main, 12..13));
    assert!(!changes.touches(REL, Fork::Main, 4..10));
    assert!(!changes.touches(REL, Fork::Main, 20..20));
}

#[test]
fn free_space_and_visibility_maps_are_left_out() {
    let mut changes = ChangedBlocks::new();
    changes.mark(REL, Fork::Fsm, 1);
    changes.mark(REL, Fork::Vm, 1);
    changes.truncate(REL, Fork::Fsm, 0);
    assert!(changes.is_empty());
}

#[test]
fn creating_cutting_and_dropping_relations_set_the_limit() {
    let spc_db_rel = [1663, 5, 16_384];
    let limit = |rmgr, info, data: Vec<u8>| match map_of(PgMajor::V13, &[(rmgr, info, data)])
        .relation_state(REL, Fork::Main)
    {
        RelationState::Changed(changes) => changes.limit,
        _ => None,
    };
    assert_eq!(limit(2, 0x11, words(&[1663, 5, 16_384, 0])), Some(0));
    assert_eq!(limit(2, 0x21, words(&[40, 1663, 5, 16_384, 7])), Some(40));
    // Only the maps are cut.
    assert_eq!(limit(2, 0x21, words(&[40, 1663, 5, 16_384, 6])), None);
    let dropping = |flags: u32| {
        let mut body = words(&[0, 0, flags, 1]);
        body.extend(words(&spc_db_rel));
        body
    };
    assert_eq!(limit(1, 0x80, dropping(4)), Some(0));
    assert_eq!(limit(1, 0xA0, dropping(4)), Some(0));
}

#[test]
fn a_new_database_covers_all_its_relations() {
    let directory = DatabaseDirectory { tablespace: 1663, database: 5 };
    let create = (4, 0x01, words(&[5, 1663, 1, 1663]));
    let changes = map_of(PgMajor::V16, &[create]);
    assert_eq!(changes.new_databases().collect::<Vec<_>>(), [directory]);
    assert_eq!(changes.relation_state(REL, Fork::Main), RelationState::DatabaseIsNew);
    assert!(changes.touches(REL, Fork::Main, 0..1));
    let elsewhere = RelFileLocator { tablespace: 99, ..REL };
    assert_eq!(changes.relation_state(elsewhere, Fork::Main), RelationState::Untouched);
}

#[test]
fn dropping_a_database_is_read_as_its_major_writes_it() {
    let new = |major, info, data: &[u32]| {
        let changes = map_of(major, &[(4, info, words(data))]);
        assert_eq!(changes.broken(), None);
        changes.new_databases().map(|directory| directory.tablespace).collect::<Vec<_>>()
    };
    assert_eq!(new(PgMajor::V12, 0x11, &[5, 1663]), [1663]);
    assert_eq!(new(PgMajor::V14, 0x11, &[5, 2, 1663, 99]), [99, 1663]);
    assert_eq!(new(PgMajor::V15, 0x21, &[5, 2, 1663, 99]), [99, 1663]);
    // The number that means "drop" in 14 means "create" in 15.
    assert_eq!(new(PgMajor::V15, 0x11, &[5, 1663]), [1663]);
}

#[test]
fn what_is_not_understood_breaks_the_map() {
    // Special records of extensions and of kinds that are not special.
    for (rmgr, info) in [(128, 0x01), (10, 0x01), (0, 0xB1)] {
        let reason = broken(PgMajor::V16, rmgr, info, &[]);
        assert!(matches!(reason, Some(BrokenReason::UnknownRecord { .. })), "{rmgr} {info:02X}");
    }
    // Resource managers and operations that do not exist.
    for (major, rmgr, info) in [
        (PgMajor::V16, 22, 0),
        (PgMajor::V16, 127, 0),
        (PgMajor::V14, 128, 0),
        (PgMajor::V16, 0, 0xE0),
        (PgMajor::V13, 1, 0x60),
        (PgMajor::V12, 11, 0x60),
    ] {
        let reason = broken(major, rmgr, info, &[]);
        assert!(matches!(reason, Some(BrokenReason::UnknownRecord { .. })), "{rmgr} {info:02X}");
    }
    // Known records with other content.
    for (rmgr, info, length) in
        [(2, 0x11, 15), (2, 0x11, 17), (4, 0x21, 4), (1, 0x00, 7), (1, 0, 9)]
    {
        let reason = broken(PgMajor::V16, rmgr, info, &vec![0; length]);
        assert!(matches!(reason, Some(BrokenReason::Undecodable { .. })), "{rmgr} {info:02X}");
    }
    // Ordinary records of extensions name their pages.
    assert_eq!(broken(PgMajor::V16, 128, 0x00, &[1]), None);
}

#[test]
fn minimal_wal_breaks_the_map_wherever_it_is_told() {
    let parameters = |level: u32| {
        let mut body = words(&[100, 8, 10, 0, 64, level]);
        body.extend([1, 0, 0, 0]);
        body
    };
    for major in PgMajor::ALL {
        assert_eq!(broken(major, 0, 0x60, &parameters(0)), Some(BrokenReason::MinimalWal));
        assert_eq!(broken(major, 0, 0x60, &parameters(1)), None);
    }
    let mut checkpoint = words(&[0, 0, 1, 1, 1, 0]);
    checkpoint.resize(88, 0);
    let end = words(&[0, 0, 2, 1, 0, 0]);
    for (info, body) in
        [(0x00, &checkpoint), (0x10, &checkpoint), (0x90, &end), (0xE0, &words(&[0]))]
    {
        assert_eq!(broken(PgMajor::V18, 0, info, body), Some(BrokenReason::MinimalWal));
    }
    assert_eq!(broken(PgMajor::V16, 0, 0x00, &checkpoint), None);
    assert_eq!(broken(PgMajor::V16, 0, 0x90, &end[..16]), None);
}

#[test]
fn the_first_reason_a_map_broke_stays() {
    let mut earlier = map_of(PgMajor::V16, &[(22, 0, vec![])]);
    let reason = earlier.broken();
    earlier.merge_after(&map_of(PgMajor::V16, &[(23, 0, vec![])]));
    assert_eq!(earlier.broken(), reason);
    let mut whole = ChangedBlocks::new();
    whole.merge_after(&earlier);
    assert_eq!(whole.broken(), reason);
}

#[test]
fn dropped_statistics_have_the_size_of_their_major() {
    let commit = |item_bytes: usize| {
        let mut body = words(&[0, 0, 0x100 | 0x10, 2]);
        body.extend(vec![1; 2 * item_bytes]);
        body.extend(words(&[777]));
        body
    };
    for (major, item_bytes) in [(PgMajor::V15, 12), (PgMajor::V17, 12), (PgMajor::V18, 16)] {
        assert_eq!(broken(major, 1, 0xB0, &commit(item_bytes)), None, "{major}");
        assert!(broken(major, 1, 0xB0, &commit(28 - item_bytes)).is_some(), "{major}");
    }
    assert!(broken(PgMajor::V14, 1, 0xB0, &commit(12)).is_some(), "14 has none");
}

/// What a map is told, over a small world so that things meet.
#[derive(Debug, Clone, Copy)]
enum Step {
    Mark(u32, Fork, BlockNumber),
    Truncate(u32, Fork, BlockNumber),
    Renew(u32),
}

fn locator(number: u32) -> RelFileLocator {
    RelFileLocator { tablespace: 1663, database: number % 2, relation: number }
}

fn step() -> impl Strategy<Value = Step> {
    let fork = prop::sample::select(vec![Fork::Main, Fork::Init, Fork::Vm, Fork::Fsm]);
    let block = prop_oneof![0_u32..40, 65_530_u32..65_550, Just(u32::MAX)];
    prop_oneof![
        8 => (0_u32..6, fork.clone(), block.clone()).prop_map(|(r, f, b)| Step::Mark(r, f, b)),
        3 => (0_u32..6, fork, block).prop_map(|(r, f, b)| Step::Truncate(r, f, b)),
        1 => (0_u32..2).prop_map(Step::Renew),
    ]
}

fn build(steps: &[Step]) -> ChangedBlocks {
    let mut changes = ChangedBlocks::new();
    for step in steps {
        match *step {
            Step::Mark(relation, fork, block) => changes.mark(locator(relation), fork, block),
            Step::Truncate(relation, fork, limit) => {
                changes.truncate(locator(relation), fork, limit);
            }
            Step::Renew(database) => {
                changes.renew_database(DatabaseDirectory { tablespace: 1663, database });
            }
        }
    }
    changes
}

/// The same by the plainest means.
#[derive(Default)]
struct Model {
    blocks: BTreeMap<(u32, Fork), BTreeSet<BlockNumber>>,
    limits: BTreeMap<(u32, Fork), BlockNumber>,
    new: BTreeSet<u32>,
}

impl Model {
    fn of(steps: &[Step]) -> Self {
        let mut model = Self::default();
        for step in steps {
            match *step {
                Step::Mark(relation, fork, block) => {
                    model.blocks.entry((relation, fork)).or_default().insert(block);
                }
                Step::Truncate(relation, fork, limit) => {
                    let blocks = model.blocks.entry((relation, fork)).or_default();
                    blocks.retain(|block| *block < limit);
                    let least = model.limits.entry((relation, fork)).or_insert(limit);
                    *least = limit.min(*least);
                }
                Step::Renew(database) => {
                    model.new.insert(database);
                }
            }
        }
        model
    }
}

proptest! {
    #[test]
    fn a_map_is_what_the_plain_model_says(steps in prop::collection::vec(step(), 0..80)) {
        let (changes, model) = (build(&steps), Model::of(&steps));
        for (relation, fork) in (0..6).flat_map(|r| [(r, Fork::Main), (r, Fork::Init)]) {
            let known = model.blocks.get(&(relation, fork));
            match changes.relation_state(locator(relation), fork) {
                RelationState::DatabaseIsNew => {
                    prop_assert!(model.new.contains(&(relation % 2)));
                }
                RelationState::Untouched => {
                    prop_assert!(!model.new.contains(&(relation % 2)) && known.is_none());
                }
                RelationState::Changed(state) => {
                    prop_assert!(!model.new.contains(&(relation % 2)));
                    prop_assert_eq!(state.limit, model.limits.get(&(relation, fork)).copied());
                    prop_assert!(known.unwrap().iter().copied().eq(state.blocks.iter()));
                    let runs = state.blocks.runs();
                    let unrolled = runs.flat_map(|(first, n)| (0..n).map(move |i| first + i as u32));
                    prop_assert!(known.unwrap().iter().copied().eq(unrolled));
                }
            }
        }
    }

    #[test]
    fn merged_maps_are_the_map_of_all(
        steps in prop::collection::vec(step(), 0..80),
        cuts in (any::<prop::sample::Index>(), any::<prop::sample::Index>()),
    ) {
        let (a, b) = (cuts.0.index(steps.len() + 1), cuts.1.index(steps.len() + 1));
        let (a, b) = (a.min(b), a.max(b));
        let parts = [build(&steps[..a]), build(&steps[a..b]), build(&steps[b..])];
        let whole = build(&steps);

        let mut from_left = parts[0].clone();
        from_left.merge_after(&parts[1]);
        from_left.merge_after(&parts[2]);
        prop_assert_eq!(&from_left, &whole);

        let mut right = parts[1].clone();
        right.merge_after(&parts[2]);
        let mut from_right = parts[0].clone();
        from_right.merge_after(&right);
        prop_assert_eq!(&from_right, &whole);
    }

    #[test]
    fn a_map_is_rebuilt_from_what_it_lists(steps in prop::collection::vec(step(), 0..80)) {
        let changes = build(&steps);
        let mut rebuilt = ChangedBlocks::new();
        for directory in changes.new_databases() {
            rebuilt.renew_database(directory);
        }
        for (locator, fork, state) in changes.relations() {
            rebuilt.add_relation(locator, fork, state);
        }
        prop_assert_eq!(rebuilt, changes);
    }
}
