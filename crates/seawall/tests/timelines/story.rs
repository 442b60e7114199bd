//! A story told to servers on one timeline after another: transactions of every kind, one at a
//! time, so that nobody has to guess in which order they ended.

use anyhow::{Context, Result, bail};
use seawall_core::Lsn;
use seawall_testkit::faults::Random;
use seawall_testkit::{PgCluster, PsqlSession};

/// A time as PostgreSQL and Seawall read it, to the microsecond.
const TIME: &str = "AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"+00:00\"'";

/// What a step does. Each leaves records of its own kind in WAL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plain,
    Subtransactions,
    Ddl,
    RolledBack,
    Prepare,
    CommitPrepared,
    RollbackPrepared,
}

const KINDS: [Kind; 9] = [
    Kind::Plain,
    Kind::Prepare,
    Kind::Subtransactions,
    Kind::CommitPrepared,
    Kind::RolledBack,
    Kind::Prepare,
    Kind::Ddl,
    Kind::RollbackPrepared,
    Kind::Plain,
];

/// A transaction that is over.
#[derive(Debug, Clone)]
pub struct End {
    /// Its number, then those of the subtransactions that share its fate.
    pub xids: Vec<u64>,
    /// When, as in its record; `None` if it was rolled back.
    pub committed: Option<String>,
}

/// A prepared transaction that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    pub gid: String,
    xids: Vec<u64>,
    rows: Vec<u64>,
}

/// One step of the story, and the moment after it.
#[derive(Debug, Clone)]
pub struct Step {
    /// The restore point that follows.
    pub name: String,
    /// The transaction that ended, if one did.
    pub end: Option<End>,
    /// What that transaction left in the table.
    pub rows: Vec<u64>,
    /// The prepared transactions that wait now.
    pub waiting: Vec<Prepared>,
    /// Where the restore point begins.
    pub lsn: Lsn,
    /// The server's clock.
    pub time: String,
}

impl Step {
    /// The transaction that committed: its number and its time.
    pub fn commit(&self) -> Option<(u64, &str)> {
        let end = self.end.as_ref()?;
        Some((*end.xids.first()?, end.committed.as_deref()?))
    }
}

/// What one timeline saw.
#[derive(Debug)]
pub struct Chapter {
    pub steps: Vec<Step>,
    /// How many of them its child timeline took over.
    pub kept: Option<usize>,
}

/// The story so far: chapter `n` happened on timeline `n + 1`.
#[derive(Debug, Default)]
pub struct Story {
    pub chapters: Vec<Chapter>,
}

impl Story {
    /// Makes the table of the story.
    pub fn begin(pg: &PgCluster) -> Result<Self> {
        pg.psql("CREATE TABLE story (id bigint)")?;
        Ok(Self::default())
    }

    /// The steps as somebody sees them who follows a timeline, oldest first.
    pub fn line(&self, timeline: u32) -> Vec<&Step> {
        let last = timeline as usize;
        let chapters = self.chapters.iter().take(last).enumerate();
        let part = |(index, chapter): (usize, &Chapter)| {
            if index + 1 < last { chapter.kept } else { None }.unwrap_or(chapter.steps.len())
        };
        chapters.flat_map(|at| at.1.steps.iter().take(part(at))).collect()
    }

    /// The newest timeline.
    pub fn timeline(&self) -> u32 {
        u32::try_from(self.chapters.len()).unwrap_or(u32::MAX)
    }

    /// Begins a chapter on a server that took over the first `kept` steps of the one before.
    pub fn turn_page(&mut self, kept: usize) {
        if let Some(last) = self.chapters.last_mut() {
            last.kept = Some(kept);
        }
        self.chapters.push(Chapter { steps: Vec::new(), kept: None });
    }

    /// Goes on with the last chapter: each kind of step in turn, then kinds by lot.
    pub fn tell(&mut self, pg: &PgCluster, count: usize, random: &mut Random) -> Result<()> {
        let mut session = pg.connection().session()?;
        for _ in 0..count {
            let chapter = self.timeline();
            let line = self.line(chapter);
            let waiting = line.last().map(|step| step.waiting.clone()).unwrap_or_default();
            let number = self.chapters.iter().map(|chapter| chapter.steps.len() as u64).sum();
            let last = self.chapters.last_mut().context("no chapter")?;
            let at = last.steps.len();
            let by_lot = usize::try_from(random.below(KINDS.len() as u64))?;
            let kind = *KINDS.get(at).or(KINDS.get(by_lot)).context("no kind")?;
            let mut scribe = Scribe { session: &mut session, number, waiting };
            last.steps.push(scribe.step(kind, random)?);
        }
        Ok(())
    }
}

/// Writes one step.
struct Scribe<'a> {
    session: &'a mut PsqlSession,
    number: u64,
    waiting: Vec<Prepared>,
}

impl Scribe<'_> {
    fn step(&mut self, kind: Kind, random: &mut Random) -> Result<Step> {
        let (end, rows) = match kind {
            Kind::Plain => self.transaction("SELECT", "COMMIT")?,
            Kind::Subtransactions => self.transaction(&self.subtransactions(), "COMMIT")?,
            Kind::Ddl => self.transaction(
                "CREATE TABLE made (i int); INSERT INTO made SELECT 1; TRUNCATE made; \
                 DROP TABLE made",
                "COMMIT",
            )?,
            Kind::RolledBack => self.transaction(&self.subtransactions(), "ROLLBACK")?,
            Kind::Prepare => (self.prepare()?, Vec::new()),
            Kind::CommitPrepared | Kind::RollbackPrepared if self.waiting.is_empty() => {
                (self.prepare()?, Vec::new())
            }
            Kind::CommitPrepared => self.decide(random, true)?,
            Kind::RollbackPrepared => self.decide(random, false)?,
        };
        let name = format!("after {}", self.number);
        let sql = format!(
            "SELECT pg_current_wal_insert_lsn(); SELECT to_char(clock_timestamp() {TIME}); \
             SELECT pg_create_restore_point('{name}')"
        );
        let answers = self.session.run(&sql)?;
        let [lsn, time, _] = answers.as_slice() else { bail!("{answers:?}") };
        let (lsn, time) = (lsn.parse()?, time.clone());
        Ok(Step { name, end, rows, waiting: self.waiting.clone(), lsn, time })
    }

    /// Something that stays, something that does not, and something below what stays.
    fn subtransactions(&self) -> String {
        let row = |n: u64| format!("INSERT INTO story VALUES ({})", self.number * 10 + n);
        format!(
            "SAVEPOINT a; {}; ROLLBACK TO a; SAVEPOINT b; {}; SAVEPOINT c; {}; RELEASE c",
            row(1),
            row(2),
            row(3)
        )
    }

    fn transaction(&mut self, body: &str, how: &str) -> Result<(Option<End>, Vec<u64>)> {
        let (xids, rows) = self.write(body, how)?;
        if how == "ROLLBACK" {
            return Ok((Some(End { xids, committed: None }), Vec::new()));
        }
        let committed = Some(self.time_of(&xids)?);
        Ok((Some(End { xids, committed }), rows))
    }

    fn prepare(&mut self) -> Result<Option<End>> {
        let gid = format!("prepared {}", self.number);
        let body = self.subtransactions();
        let (xids, rows) = self.write(&body, &format!("PREPARE TRANSACTION '{gid}'"))?;
        self.waiting.push(Prepared { gid, xids, rows });
        Ok(None)
    }

    /// One that waits, perhaps from a timeline before, is committed or rolled back.
    fn decide(&mut self, random: &mut Random, commit: bool) -> Result<(Option<End>, Vec<u64>)> {
        let chosen = usize::try_from(random.below(self.waiting.len() as u64))?;
        let Prepared { gid, xids, rows } = self.waiting.remove(chosen);
        let verb = if commit { "COMMIT" } else { "ROLLBACK" };
        self.session.run(&format!("{verb} PREPARED '{gid}'"))?;
        if !commit {
            return Ok((Some(End { xids, committed: None }), Vec::new()));
        }
        let committed = Some(self.time_of(&xids)?);
        Ok((Some(End { xids, committed }), rows))
    }

    /// Runs a transaction; tells its numbers, top first, and its rows just before it ended.
    fn write(&mut self, body: &str, how: &str) -> Result<(Vec<u64>, Vec<u64>)> {
        let first = self.number * 10;
        let own = format!("FROM story WHERE id / 10 = {}", self.number);
        let answers = self.session.run(&format!(
            "BEGIN; INSERT INTO story VALUES ({first}); {body}; SELECT txid_current(); \
             SELECT DISTINCT xmin {own} AND xmin <> txid_current()::text::xid; SELECT 'rows'; \
             SELECT id {own}; {how}"
        ))?;
        let mut parts = answers.split(|line| line == "rows");
        let mut numbers = || -> Result<Vec<u64>> {
            let part = parts.next().context("no answer")?.iter();
            Ok(part.filter(|line| !line.is_empty()).map(|n| n.parse()).collect::<Result<_, _>>()?)
        };
        Ok((numbers()?, numbers()?))
    }

    fn time_of(&mut self, xids: &[u64]) -> Result<String> {
        let xid = xids.first().context("no transaction")?;
        let sql = format!("SELECT to_char(pg_xact_commit_timestamp('{xid}'::xid) {TIME})");
        self.session.run(&sql)?.pop().context("no time")
    }
}
