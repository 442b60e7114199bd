use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use seawall_core::{Code, Result, ResultExt};

use crate::owner::Owner;

/// Root makes the directory where its owner could not, as below `/srv`. Anybody else makes it
/// later, as the restore writes.
///
/// # Errors
/// [`Code::LocalIo`]
pub fn make(into: &Path, owner: &Owner) -> Result<()> {
    if owner.is_current() || into.exists() {
        return Ok(());
    }
    DirBuilder::new()
        .mode(0o700)
        .create(into)
        .code(Code::LocalIo, || format!("cannot make the directory {}", into.display()))?;
    owner.give(into)
}
