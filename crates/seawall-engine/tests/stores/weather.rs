//! What a store does to those who ask it, drawn by lot.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use seawall_store::testing::{Call, Fault, Faulty};
use seawall_store::{RetryPolicy, Retrying, Store};
use seawall_testkit::faults::Random;

/// How a store behaves in one round.
#[derive(Debug, Clone, Copy)]
pub struct Weather {
    when: When,
    what: What,
    /// Whoever asks it, asks again.
    asked_again: bool,
    seed: u64,
}

/// Which calls suffer, by their number.
#[derive(Debug, Clone, Copy)]
enum When {
    Once(u64),
    From(u64),
    OneIn(u64),
}

/// What they suffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Always(Fault),
    /// The bytes of an object, or its length, cut anywhere.
    ShortBytes,
    /// A different thing each time.
    Anything,
}

const ERRORS: [Fault; 5] =
    [Fault::Full, Fault::Forbidden, Fault::Unavailable, Fault::Io, Fault::AnswerLost];

impl Weather {
    pub fn draw(seed: u64) -> Self {
        let random = &mut Random::new(seed);
        // Verbs make from ten to some hundred calls: early ones as often as late ones.
        let order = random.below(9);
        let number = 1 + random.below(2 << order);
        let when = match random.below(3) {
            0 => When::Once(number),
            1 => When::From(number),
            _ => When::OneIn(2 + number),
        };
        let error = ERRORS[random.below(ERRORS.len() as u64) as usize];
        let what = match random.below(8) {
            0 | 1 => What::Always(error),
            2 => What::Always(Fault::CrashBefore),
            3 => What::Always(Fault::CrashAfter),
            4 => What::Always(Fault::Delay(Duration::from_millis(20))),
            5 => What::ShortBytes,
            _ => What::Anything,
        };
        Self { when, what, asked_again: random.below(2) == 0, seed }
    }

    /// For the evidence.
    pub fn kind(&self) -> &'static str {
        match self.what {
            What::Always(Fault::Full) => "full",
            What::Always(Fault::Forbidden) => "refused",
            What::Always(Fault::Unavailable) => "not answering",
            What::Always(Fault::Io) => "broken",
            What::Always(Fault::AnswerLost) => "doing it and not answering",
            What::Always(Fault::CrashBefore | Fault::CrashAfter) => "a crash",
            What::Always(Fault::Delay(_)) => "slow",
            What::Always(Fault::Short(_)) | What::ShortBytes => "short answers",
            What::Anything => "anything",
        }
    }

    /// Whether it may answer what is not so.
    pub fn lies(&self) -> bool {
        matches!(self.what, What::ShortBytes | What::Anything)
    }

    /// Whether whatever is asked is done and answered, late at worst.
    pub fn is_fair(&self) -> bool {
        matches!(self.what, What::Always(Fault::Delay(_)))
    }

    /// A store in this weather.
    pub fn over(&self, inner: Arc<dyn Store>) -> (Arc<dyn Store>, Arc<Faulty>) {
        let weather = *self;
        let faulty = Faulty::new(inner).choose(move |call, _, number| weather.on(call, number));
        let faulty = Arc::new(faulty);
        let wait = Duration::from_millis(1);
        let policy = RetryPolicy { times: 3, first_wait: wait, longest_wait: wait };
        if self.asked_again {
            (Arc::new(Retrying::new(Arc::clone(&faulty) as _, policy)), faulty)
        } else {
            (Arc::clone(&faulty) as _, faulty)
        }
    }

    fn on(&self, call: Call, number: u64) -> Option<Fault> {
        let random = &mut Random::new(self.seed ^ number.wrapping_mul(0x9E37_79B9));
        let suffers = match self.when {
            When::Once(only) => number == only,
            When::From(first) => number >= first,
            When::OneIn(many) => random.below(many) == 0,
        };
        if !suffers {
            return None;
        }
        match self.what {
            What::Always(fault) => Some(fault),
            What::ShortBytes => short(call, random),
            What::Anything => match random.below(ERRORS.len() as u64 + 2) {
                0 => short(call, random),
                1 => Some(Fault::Delay(Duration::from_millis(random.below(20)))),
                error => ERRORS.get(error as usize - 2).copied(),
            },
        }
    }
}

/// A listing is never cut: where a store may leave out what it has, nothing can be said to be
/// missing or new, and no object store does it any more.
fn short(call: Call, random: &mut Random) -> Option<Fault> {
    match call {
        Call::Read | Call::ReadRange | Call::ReadEnd | Call::Stat => {
            let order = random.below(20);
            Some(Fault::Short(random.below(1 << order)))
        }
        _ => None,
    }
}

impl fmt::Display for Weather {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { when, what, asked_again, .. } = self;
        write!(f, "{what:?}, {when:?}, asked again: {asked_again}")
    }
}
