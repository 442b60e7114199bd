//! What `archive_command` and `restore_command` do, and what is archived.

mod beside;
mod fetch;
mod list;
mod places;
mod push;
mod reach;
mod server;
mod wanted;

pub use fetch::{FetchRequest, fetch};
pub use list::{TimelineListing, WalListing, list};
pub use places::WalPlace;
pub use push::{PlacePushed, PushReport, PushRequest, push};
pub use reach::{BackupPlace, Obstacle, Reach, reach};
pub use server::RecoveringServer;
pub use wanted::RestorePath;
