//! What a data directory that was restored says of itself, to whoever comes later: the note of the
//! restore with its plan, whose the places of its tablespaces are, and that it is being promoted.

mod asked;
mod directory;
mod onto;
mod own_places;
mod plan;
mod promotion_note;
mod state;
mod tablespace_note;

pub(crate) use directory::{is_mount_point, names, resolved};
pub(crate) use own_places::OwnPlaces;
pub(crate) use tablespace_note::{Noted, TablespaceNote};

pub use asked::{Asked, Mode, TablespaceMapping, TargetAction};
pub use directory::DirectoryIdentity;
pub use onto::{Listed, Onto};
pub use plan::{
    CommitPlace, LeftBehind, LivingServer, NamedDatabase, PathSpan, PlannedBackup, PlannedSetting,
    Removal, Removals, Removed, RequiredParameters, RestorePlan, Stop,
};
pub use promotion_note::PromotionNote;
pub use state::{RestoreProgress, RestoreState};
