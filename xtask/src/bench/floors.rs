//! What no tool can be faster than: the disk, the compressor.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::measure::{Taken, measure};

/// Reads every file of the cluster with two readers.
pub fn read(data: &Path) -> Result<Taken> {
    let script = "find \"$0\" -path \"$0/pg_wal\" -prune -o -type f -print0 | \
                  xargs -0 -n 32 -P 2 cat > /dev/null";
    measure(Command::new("sh").args(["-c", script]).arg(data)).map(|(taken, _)| taken)
}

/// Compresses every file of the cluster as one stream, with zstd's level 1 and two threads; what
/// comes out counts as added.
pub fn compress(data: &Path) -> Result<Taken> {
    let script = "find \"$0\" -path \"$0/pg_wal\" -prune -o -type f -print0 | \
                  xargs -0 -n 32 cat | zstd -q -1 -T2 -c | wc -c";
    let (mut taken, printed) = measure(Command::new("sh").args(["-c", script]).arg(data))?;
    taken.bytes_added = printed.trim().parse()?;
    Ok(taken)
}

/// Writes as many bytes as the cluster has, past the page cache in large pieces, and syncs them.
pub fn write(file: &Path, bytes: u64) -> Result<Taken> {
    const PIECE_BYTES: u64 = 4 << 20;
    let count = bytes.div_ceil(PIECE_BYTES);
    let mut dd = Command::new("dd");
    dd.args(["if=/dev/zero", "bs=4M", "oflag=direct", "conv=fsync", "status=none"]);
    dd.arg(format!("count={count}")).arg(format!("of={}", file.display()));
    let taken = measure(&mut dd).map(|(taken, _)| taken);
    std::fs::remove_file(file)?;
    taken
}
