//! Every interleaving of two collectors with a writer that leads on from a backup, or with a reader.
//!
//! The steps are those of the protocol (docs/format.md, 10), each a call to the store; between two of
//! them anybody may stand still for as long as it likes. A collector may take the writer for dead at
//! any time, and whoever plans changes his mind. What each rule is for is shown by leaving it out.

use std::collections::{HashSet, VecDeque};

/// Objects, as bits: a backup's commit and its pack, and those of the one that leads on from it.
const OLD_COMMIT: u8 = 1;
const OLD_PACK: u8 = 2;
const NEW_COMMIT: u8 = 4;
const NEW_PACK: u8 = 8;

/// A rule that is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Without {
    Nothing,
    /// What was condemned is deleted when its grace has passed, whoever needs it by then.
    LookingAgain,
    /// A writer that is taken for dead is not fenced.
    Fence,
    /// Each collector goes by what it saw itself.
    OneDecision,
    /// Commits are listed before pins.
    PinsFirst,
    /// A collector looks at condemnations only when it has listed pins.
    CondemnationsBeforePins,
    /// A writer looks for objects first, and for condemnations then.
    CondemnationsFirst,
    /// What is in no pin is taken for garbage, however young it is.
    YoungObjects,
    /// What a condemned commit names is decided without it.
    CommitsFirst,
}

/// What is condemned together: by a collector, commits apart from packs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
struct Gc {
    /// The name of one that was taken away is given to no other one.
    id: u8,
    names: u8,
    /// What goes of it, once that is decided.
    decided: Option<u8>,
}

impl Gc {
    /// What nobody may rely on.
    fn condemned(self) -> u8 {
        self.decided.unwrap_or(self.names)
    }
}

/// Collector 0 has the first two, collector 1 the others.
type Gcs = [Gc; 4];

fn condemned(gcs: &Gcs) -> u8 {
    gcs.iter().fold(0, |all, gc| all | gc.condemned())
}

fn decided(gcs: &Gcs) -> u8 {
    gcs.iter().fold(0, |all, gc| all | gc.decided.unwrap_or(0))
}

/// Where a collector is in its run, and what it saw.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
struct Collector {
    runs: u8,
    step: u8,
    /// The new pack was there before this run began.
    is_old: bool,
    /// An attempt that may have stored what it has not listed.
    attempt: bool,
    /// What pins rely on or list.
    pinned: u8,
    commits: u8,
    going: bool,
    gcs: Gcs,
    decided: u8,
    /// Those that it takes away.
    done: [Option<u8>; 4],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct State {
    objects: u8,
    tombstone: bool,
    gcs: Gcs,
    /// Whether the old backup is to go.
    going: bool,
    changes_of_mind: u8,
    collectors: [Collector; 2],
    /// The step of the writer, and what its pin names.
    writer: u8,
    writers_pin: u8,
    is_pinned: bool,
    reader: u8,
    readers_pin: u8,
}

const ENDED: u8 = 9;

struct Model {
    without: Without,
    has_writer: bool,
    /// How often each collector runs.
    runs: [u8; 2],
}

impl Model {
    fn begin(&self) -> State {
        State {
            objects: OLD_COMMIT | OLD_PACK,
            tombstone: false,
            gcs: Gcs::default(),
            going: true,
            changes_of_mind: 1,
            collectors: [Collector::default(); 2],
            writer: if self.has_writer { 0 } else { ENDED },
            writers_pin: 0,
            is_pinned: false,
            reader: if self.has_writer { ENDED } else { 0 },
            readers_pin: 0,
        }
    }

    /// What comes next, whoever takes a step.
    fn next(&self, state: &State) -> Vec<State> {
        let mut next = Vec::new();
        if state.changes_of_mind > 0 {
            let changes_of_mind = state.changes_of_mind - 1;
            next.push(State { going: !state.going, changes_of_mind, ..*state });
        }
        self.write(state, &mut next);
        self.read(state, &mut next);
        for which in 0..2 {
            self.collect(state, which, &mut next);
        }
        next
    }

    fn write(&self, state: &State, next: &mut Vec<State>) {
        let mut then = *state;
        then.writer += 1;
        let given_up = State { writer: ENDED, writers_pin: 0, is_pinned: false, ..*state };
        let needs = OLD_COMMIT | OLD_PACK;
        let is_there = state.objects & needs == needs;
        let is_condemned = condemned(&state.gcs) & needs != 0;
        let existence_first = self.without == Without::CondemnationsFirst;
        match state.writer {
            // It sees a backup that can be led on from,
            0 if is_there && !is_condemned => next.push(then),
            // and pins it.
            1 => {
                (then.is_pinned, then.writers_pin) = (true, needs);
                next.push(then);
            }
            2 | 3 => {
                let looks_for_objects = (state.writer == 2) == existence_first;
                let is_fit = if looks_for_objects { is_there } else { !is_condemned };
                next.push(if is_fit { then } else { given_up });
            }
            4 => {
                then.objects |= NEW_PACK;
                next.push(then);
            }
            5 => {
                then.writers_pin |= NEW_PACK;
                next.push(then);
            }
            6 if state.tombstone => next.push(given_up),
            6 => {
                then.objects |= NEW_COMMIT;
                next.push(then);
            }
            7 => next.push(given_up),
            _ => {}
        }
    }

    fn read(&self, state: &State, next: &mut Vec<State>) {
        let mut then = *state;
        then.reader += 1;
        let ended = State { reader: ENDED, readers_pin: 0, ..*state };
        let needs = OLD_COMMIT | OLD_PACK;
        match state.reader {
            0 => {
                then.readers_pin = needs;
                next.push(then);
            }
            1 if condemned(&state.gcs) & OLD_COMMIT != 0 => next.push(ended),
            2 if state.objects & needs != needs => next.push(ended),
            1 | 2 => next.push(then),
            // It reads, which is what the invariant is about.
            3 => next.push(ended),
            _ => {}
        }
    }

    fn collect(&self, state: &State, which: usize, next: &mut Vec<State>) {
        let mut then = *state;
        let own = &mut then.collectors[which];
        let seen = state.collectors[which];
        own.step += 1;
        match seen.step {
            0 if seen.runs == self.runs[which] => return,
            0 => {
                *own = Collector { runs: seen.runs + 1, step: 1, ..Collector::default() };
                own.is_old = state.objects & NEW_PACK != 0;
                own.going = state.going;
                if self.without != Without::CondemnationsBeforePins {
                    own.gcs = state.gcs;
                }
            }
            1 | 2 if (seen.step == 1) == (self.without == Without::PinsFirst) => {
                own.commits = state.objects & (OLD_COMMIT | NEW_COMMIT);
            }
            1 | 2 => return self.look_at_pins(state, which, then, next),
            3 if self.without == Without::OneDecision => {
                // It decides for itself what becomes of all that is due.
                let stays = seen.stays(seen.going);
                own.decided = 0;
                for (at, gc) in seen.gcs.iter().enumerate().filter(|(_, gc)| gc.names != 0) {
                    own.decided |= gc.names & !stays;
                    own.done[at] = Some(gc.id);
                }
                own.step = 5;
            }
            3 => {
                let mut seen = seen;
                if self.without == Without::CondemnationsBeforePins {
                    (seen.gcs, own.gcs) = (state.gcs, state.gcs);
                }
                self.decide(&mut then, &seen, OLD_COMMIT, 0);
                then.collectors[which].decided = decided(&then.gcs);
            }
            4 => {
                let is_there = seen.commits & OLD_COMMIT != 0 && seen.decided & OLD_COMMIT == 0;
                let is_needed = is_there && self.without != Without::CommitsFirst;
                let there = if is_needed { OLD_PACK } else { 0 };
                self.decide(&mut then, &seen, OLD_PACK | NEW_PACK, there);
                let own = &mut then.collectors[which];
                own.decided = decided(&then.gcs);
                for (at, gc) in then.gcs.iter().enumerate() {
                    own.done[at] = gc.decided.map(|_| gc.id);
                }
            }
            5 => then.objects &= !(seen.decided & OLD_COMMIT),
            6 => then.objects &= !(seen.decided & (OLD_PACK | NEW_PACK)),
            7 => {
                for (at, gc) in then.gcs.iter_mut().enumerate() {
                    if gc.names != 0 && seen.done[at] == Some(gc.id) {
                        *gc = Gc { id: gc.id + 1, ..Gc::default() };
                    }
                }
            }
            8 => self.condemn(&mut then, &seen, which, OLD_COMMIT),
            9 => {
                self.condemn(&mut then, &seen, which, OLD_PACK | NEW_PACK);
                let own = &mut then.collectors[which];
                *own = Collector { runs: seen.runs, ..Collector::default() };
            }
            _ => return,
        }
        next.push(then);
    }

    fn look_at_pins(&self, state: &State, which: usize, then: State, next: &mut Vec<State>) {
        let mut alive = then;
        let own = &mut alive.collectors[which];
        own.pinned = state.readers_pin;
        let has_ended = state.objects & NEW_COMMIT != 0 || state.tombstone;
        if state.is_pinned && !has_ended {
            own.pinned |= state.writers_pin;
            own.attempt = true;
            // It may as well be taken for dead.
            let mut dead = then;
            dead.collectors[which].pinned = state.readers_pin;
            dead.tombstone = self.without != Without::Fence;
            next.push(dead);
        }
        next.push(alive);
    }

    /// Decides what was seen and is undecided, once. That a grace has to pass before makes no
    /// difference: the collector may be late as it likes.
    fn decide(&self, then: &mut State, seen: &Collector, kinds: u8, there: u8) {
        for (at, gc) in seen.gcs.iter().enumerate() {
            let is_open = gc.decided.is_none() && gc.names & kinds != 0;
            let now = then.gcs[at];
            if !is_open || now.names == 0 || now.id != gc.id || now.decided.is_some() {
                continue;
            }
            let stays = match self.without {
                Without::LookingAgain => 0,
                _ => seen.stays(seen.going) | there,
            };
            then.gcs[at].decided = Some(gc.names & !stays);
        }
    }

    fn condemn(&self, then: &mut State, seen: &Collector, which: usize, kinds: u8) {
        let at = which * 2 + usize::from(kinds != OLD_COMMIT);
        let mut garbage = kinds & !seen.stays(seen.going) & !condemned(&seen.gcs);
        garbage &= then.objects;
        let may_be_young = seen.attempt || !seen.is_old;
        if may_be_young && self.without != Without::YoungObjects {
            garbage &= !NEW_PACK;
        }
        if garbage != 0 && then.gcs[at].names == 0 {
            then.gcs[at] = Gc { id: then.gcs[at].id, names: garbage, ..Gc::default() };
        }
    }

    /// What is wrong with a state.
    fn wrong(&self, state: &State) -> Option<&'static str> {
        let has = |objects: u8| state.objects & objects == objects;
        let is_usable = has(OLD_COMMIT) && condemned(&state.gcs) & OLD_COMMIT == 0;
        if has(NEW_COMMIT) && !has(OLD_PACK | NEW_PACK) {
            return Some("a published backup lacks a pack");
        }
        if is_usable && !has(OLD_PACK) {
            return Some("a backup that can be used lacks its pack");
        }
        (state.reader == 3 && !has(OLD_COMMIT | OLD_PACK)).then_some("a reader lacks what it reads")
    }

    /// Looks at every state there is. Gives how many, or what is wrong with one.
    fn explore(&self) -> Result<usize, &'static str> {
        let begin = self.begin();
        let (mut seen, mut open) = (HashSet::from([begin]), VecDeque::from([begin]));
        while let Some(state) = open.pop_front() {
            if let Some(wrong) = self.wrong(&state) {
                return Err(wrong);
            }
            for next in self.next(&state) {
                if seen.insert(next) {
                    open.push_back(next);
                }
            }
        }
        Ok(seen.len())
    }
}

impl Collector {
    /// What stays, by what it saw.
    fn stays(&self, going: bool) -> u8 {
        let mut stays = self.pinned;
        if self.commits & NEW_COMMIT != 0 {
            stays |= OLD_PACK | NEW_PACK | NEW_COMMIT;
        }
        let is_pinned = self.pinned & OLD_COMMIT != 0;
        if self.commits & OLD_COMMIT != 0 && (is_pinned || !going) {
            stays |= OLD_COMMIT | OLD_PACK;
        }
        stays
    }
}

#[test]
fn no_published_backup_and_no_reader_ever_lacks_an_object() {
    for has_writer in [true, false] {
        let model = Model { without: Without::Nothing, has_writer, runs: [2, 1] };
        let states = model.explore();
        eprintln!("writer {has_writer}: {states:?}");
        assert!(states.is_ok_and(|states| states > 10_000), "{states:?}");
    }
}

#[test]
fn each_rule_is_needed() {
    for without in [
        Without::LookingAgain,
        Without::Fence,
        Without::OneDecision,
        Without::PinsFirst,
        Without::CondemnationsBeforePins,
        Without::CondemnationsFirst,
        Without::YoungObjects,
        Without::CommitsFirst,
    ] {
        let model = Model { without, has_writer: true, runs: [2, 1] };
        assert!(model.explore().is_err(), "nothing is wrong without {without:?}");
    }
}
