//! What `archive_command` and `restore_command` do, and what is archived.

mod away;
mod beside;
mod fetch;
mod keeping;
mod list;
mod places;
mod push;
mod reach;
mod server;
mod wanted;

pub use away::{WhileAway, while_away};
pub use fetch::{FetchRequest, fetch, fetch_kept};
pub use keeping::keep_recovering;
pub use list::{TimelineListing, WalListing, list};
pub use places::WalPlace;
pub use push::{PlacePushed, PushReport, PushRequest, push};
pub use reach::{BackupPlace, Look, Obstacle, Reach, reach};
pub use server::RecoveringServer;
pub use wanted::RestorePath;
