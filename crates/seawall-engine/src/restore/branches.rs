//! The timeline that a restore follows, and what is archived beside it.

use std::ops::ControlFlow;

use seawall_core::{Action, Code, Error, Lsn, Result, TimelineId, hint};
use seawall_pgdata::history::Ancestry;

use super::plan::{Branch, Chosen};
use super::{Fact, WalSource};
use crate::restored::{CommitPlace, LeftBehind};

/// Every other timeline with what is archived of it from where it goes its own way.
pub(super) async fn branches(
    wal: &dyn WalSource,
    chosen: &Chosen,
    ancestries: &[Ancestry],
) -> Result<Vec<Branch>> {
    let mut branches = Vec::new();
    for other in ancestries.iter().filter(|it| it.tip() != chosen.ancestry.tip()) {
        let begin = other.span(other.tip()).map_or(Lsn::INVALID, |span| span.begin);
        let fork = chosen.ancestry.fork_lsn_of(other.tip()).unwrap_or(begin);
        let left = archived_from(wal, other, fork).await?;
        let first_commit_followed = first_commit(wal, &chosen.ancestry, fork).await?;
        let first_commit_followed = first_commit_followed.map(|commit| commit.time);
        branches.push(Branch { left, first_commit_followed });
    }
    Ok(branches)
}

/// A timeline that was decided on, with its ancestors.
pub(super) async fn ancestry_of(wal: &dyn WalSource, timeline: TimelineId) -> Result<Ancestry> {
    wal.ancestries().await?.of(timeline)?.cloned().ok_or_else(|| {
        let what = format!("timeline {timeline} is not in the repository any more");
        Error::new(Code::WalGap, what).with_hint(hint![Action::ListWal, " shows what is archived."])
    })
}

/// What is archived of the newest timeline of an ancestry, from `after` on.
pub(super) async fn archived_from(
    wal: &dyn WalSource,
    ancestry: &Ancestry,
    after: Lsn,
) -> Result<LeftBehind> {
    let mut left = LeftBehind {
        timeline: ancestry.tip(),
        after,
        commits: 0,
        perhaps_more: false,
        last_commit: None,
    };
    let mut sink = |fact: &Fact| {
        if let Some(commit) = commit_from(fact, after) {
            left.commits += 1;
            left.last_commit = Some(commit);
        }
        left.perhaps_more |= matches!(fact, Fact::Unreadable(_));
        ControlFlow::Continue(())
    };
    wal.facts(ancestry, after, &mut sink).await?;
    Ok(left)
}

async fn first_commit(
    wal: &dyn WalSource,
    ancestry: &Ancestry,
    after: Lsn,
) -> Result<Option<CommitPlace>> {
    let mut first = None;
    let mut sink = |fact: &Fact| {
        first = commit_from(fact, after);
        if first.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    wal.facts(ancestry, after, &mut sink).await?;
    Ok(first)
}

fn commit_from(fact: &Fact, after: Lsn) -> Option<CommitPlace> {
    match fact {
        Fact::Xact(xact) if xact.kind.is_commit() && xact.place.lsn >= after => {
            Some(CommitPlace { xid: xact.xid, lsn: xact.place.lsn, time: xact.time })
        }
        _ => None,
    }
}
