//! What a server is told while its archive cannot be asked. Away is not absent: whatever it takes
//! for "there is no such file" may end its recovery.

use seawall_core::{TimelineId, WalFileName, WalSegmentSize};

use super::FetchRequest;
use super::fetch::path_in_force;
use super::keeping::{kept_history, timeline_of_history};
use super::server::RecoveringServer;
use super::wanted::{RestorePath, Wanted};
use crate::restored::PromotionNote;

/// What to do about a file that cannot be had now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhileAway {
    /// Fail: the server stops, and the next start is a recovery again.
    Fail,
    /// Ask again, and answer nothing until then: any answer could end recovery.
    Wait,
    /// Say that there is none for now: the server has another way to its WAL.
    NotNow,
    /// Say that there is none: a person said that the server shall do without the archive.
    GoWithout,
}

/// Decides about a file that no archive could be asked for.
///
/// A standby that is told "none" tries its primary, and asks again; if it was promoted meanwhile, it
/// takes that for the end. Whether it was cannot be seen for certain. So one that has no primary to
/// stream from is told nothing.
#[must_use]
pub fn while_away(request: &FetchRequest) -> WhileAway {
    let server = RecoveringServer::at(&request.destination);
    let Some(running) = &server.running else { return WhileAway::Fail };
    let history = timeline_of_history(&request.name);
    // A new history that lacks what came before it would be written.
    let comes_from = history.is_some_and(|it| server.timeline().is_none_or(|own| it <= own));
    let kept = |timeline: TimelineId| kept_history(&request.destination, timeline).is_some();
    if comes_from && !history.is_some_and(kept) {
        return WhileAway::Fail;
    }
    if PromotionNote::holds_for(&server.data_directory, running) {
        return WhileAway::GoWithout;
    }
    if !request.standby || (history.is_some() && server.is_starting) {
        return WhileAway::Fail;
    }
    let path = path_in_force(request, &server);
    let is_wanted = path.is_some_and(|path| wants(&path, &server, &request.name));
    if is_wanted || server.is_to_be_promoted() || !server.streams() {
        WhileAway::Wait
    } else {
        WhileAway::NotNow
    }
}

/// Whether the file lies short of the planned end.
fn wants(path: &RestorePath, server: &RecoveringServer, name: &str) -> bool {
    let size = server.control.as_ref().map(|control| control.wal_segment_size);
    match WalFileName::parse(name, size.unwrap_or(WalSegmentSize::DEFAULT)) {
        Some(WalFileName::Segment(segment)) => {
            matches!(path.wants(segment), Wanted::Needed { .. })
        }
        Some(WalFileName::TimelineHistory(timeline)) => path.needs_history_of(timeline),
        _ => false,
    }
}
