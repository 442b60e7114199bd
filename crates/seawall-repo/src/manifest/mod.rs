//! Manifests, which list the files of backups, and commits, which make backups (format.md, 8).

mod commit;
mod entry;
mod page;
mod reader;
mod writer;

pub(crate) use commit::kind_at_commit;
pub use commit::{
    AuditShare, BackupInfo, BackupKind, BackupSource, Commit, Database, ExternalFile, INCLUDED,
    Incident, IncidentKind, Incidents, LeftOut, ManifestInfo, PackPageAddress, PageAddress,
    PageError, Parts,
};
pub use entry::{Content, Entry, EntryKind, is_path};
pub use page::Page;
pub use reader::ManifestReader;
pub use writer::ManifestWriter;

use crate::envelope::Section;

/// The footer of a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
struct ManifestFooter {
    /// Pages of entries.
    #[n(0)]
    pages: u32,
    /// Pages of lists of packs.
    #[n(1)]
    pack_pages: u32,
}

impl ManifestFooter {
    /// How many pages a section has.
    const fn pages_of(self, section: Section) -> u32 {
        match section {
            Section::FIRST => self.pages,
            Section::SECOND => self.pack_pages,
            Section(_) => 0,
        }
    }
}
