//! Records as `pg_waldump` shows them, and as the reader does.
//!
//! One parser reads the text of 15 to 18. From 16 on descriptions say more, always behind the
//! operation's name, and the names themselves are those of `operation_name` for that major. Block
//! references are the same throughout: `fork main` is left out of the short form.

use seawall_core::{Lsn, PgTimestamp};
use seawall_pgdata::relation_path::Fork;
use seawall_pgdata::wal::rmgr::operation_name;
use seawall_pgdata::wal::{
    BlockRef, DatabaseCreate, DatabaseDrop, Operation, Record, RelFileLocator, XactEnd, XactEndKind,
};

/// A record as both sides show it.
#[derive(Debug, PartialEq, Eq)]
pub struct Line {
    pub rmgr: String,
    /// Bytes without and with page images.
    pub lengths: (u64, u64),
    pub xid: u32,
    pub lsn: String,
    pub prev: String,
    pub operation: String,
    pub blocks: Vec<String>,
    /// What records say that restores depend on: ends of transactions with ids and times,
    /// restore points, what happens to relation files, databases and tablespaces.
    pub says: Vec<String>,
}

impl Line {
    /// Reads `rmgr: Heap len (rec/tot): 59/ 59, tx: 734, lsn: 0/0150, prev 0/0110, desc:
    /// INSERT+INIT off 1, blkref #0: rel 1663/5/16384 fork vm blk 0 FPW`.
    pub fn parse(line: &str) -> Self {
        let (head, tail) = line.split_once("desc:").unwrap_or_else(|| panic!("{line}"));
        let after =
            |label: &str| head.split_once(label).unwrap_or_else(|| panic!("{line}")).1.trim();
        let word = |label: &str| after(label).split([' ', ',']).next().unwrap().to_owned();
        let (without, with) = after("(rec/tot):").split_once('/').unwrap();
        let with = with.trim().split(',').next().unwrap();
        let mut parts = tail.split(", blkref #");
        let description = parts.next().unwrap().trim();
        let operation = description.split([' ', ',', ';', '+']).next().unwrap_or_default();
        let rmgr = word("rmgr:");
        Self {
            lengths: (without.trim().parse().unwrap(), with.parse().unwrap()),
            xid: word("tx:").parse().unwrap(),
            lsn: word("lsn:"),
            prev: word("prev "),
            operation: operation.to_owned(),
            blocks: parts.map(parse_blkref).collect(),
            says: said(&rmgr, operation, description[operation.len()..].trim()),
            rmgr,
        }
    }

    /// Shows one of ours.
    pub fn of(record: &Record<'_>) -> Self {
        let header = &record.header;
        let total = u64::from(header.total_bytes);
        let padded = |lsn: Lsn| format!("{:X}/{:08X}", lsn.0 >> 32, lsn.0 & 0xFFFF_FFFF);
        let operation = operation_name(header.rmgr, header.info, record.major);
        Self {
            rmgr: header.rmgr.to_string(),
            lengths: (total - record.image_bytes(), total),
            xid: header.xid,
            lsn: padded(record.lsn),
            prev: padded(header.prev),
            operation: operation.unwrap_or("no operation of this major").to_owned(),
            blocks: record.blocks.iter().map(show_blkref).collect(),
            says: says(record),
        }
    }
}

/// Reads `0: rel 1663/5/16384 fork vm blk 0 FPW for WAL verification`.
fn parse_blkref(text: &str) -> String {
    text.trim_end_matches([',', ' ']).replace("fork main ", "").replace(" (FPW)", " FPW")
}

fn show_blkref(block: &BlockRef) -> String {
    let fork = match block.fork {
        Fork::Main => "",
        Fork::Fsm => "fork fsm ",
        Fork::Vm => "fork vm ",
        Fork::Init => "fork init ",
    };
    let image = match block.image {
        None => "",
        Some(image) if image.apply => " FPW",
        Some(_) => " FPW for WAL verification",
    };
    format!("{}: rel {} {fork}blk {}{image}", block.id, block.locator, block.block)
}

/// What `pg_waldump` says behind the operation's name, as far as it is compared. Times are in UTC,
/// to the microsecond.
fn said(rmgr: &str, operation: &str, text: &str) -> Vec<String> {
    match (rmgr, operation) {
        ("Transaction", "PREPARE") => {
            let (gid_and_time, _) = text.split_once(" UTC").unwrap();
            vec![format!("{gid_and_time} UTC")]
        }
        ("Transaction", "COMMIT" | "ABORT" | "COMMIT_PREPARED" | "ABORT_PREPARED") => {
            let mut parts = text.split("; ");
            let end = parts.next().unwrap().to_owned();
            let compared = ["rels: ", "subxacts: ", "origin: "];
            let parts = parts.filter(|part| compared.iter().any(|label| part.starts_with(label)));
            let mut said: Vec<String> = [end].into_iter().chain(parts.map(end_part)).collect();
            // The same parts come in another order from 16 on.
            said[1..].sort_unstable();
            said
        }
        ("XLOG", "RESTORE_POINT" | "OVERWRITE_CONTRECORD") | ("Database" | "Tablespace", _) => {
            vec![text.to_owned()]
        }
        ("Storage", "CREATE") => vec![file_name(text)],
        ("Storage", "TRUNCATE") => {
            let (path, rest) = text.split_once(" to ").unwrap();
            vec![file_name(path), rest.split(' ').next().unwrap().to_owned()]
        }
        _ => Vec::new(),
    }
}

/// One of the parts of an end of a transaction; of relations' paths only the files' names.
fn end_part(part: &str) -> String {
    match part.split_once("rels: ") {
        Some(("", paths)) => {
            let names: Vec<String> = paths.split_whitespace().map(file_name).collect();
            format!("rels: {}", names.join(" "))
        }
        _ => match part.split_once(", ") {
            // Which node it is stands in the record's header, not in its data.
            Some((node, rest)) if node.starts_with("origin: ") => format!("origin: {rest}"),
            _ => part.trim_end().to_owned(),
        },
    }
}

fn file_name(path: &str) -> String {
    path.trim().rsplit('/').next().unwrap_or_default().to_owned()
}

fn says(record: &Record<'_>) -> Vec<String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match Operation::of(record).unwrap_or_else(|fault| panic!("{}: {fault}", record.lsn)) {
        Operation::XactEnd(end) => end_says(&end),
        Operation::XactPrepare(prepare) => {
            vec![format!("gid {}: {}", text(prepare.gid), time(prepare.time))]
        }
        Operation::RestorePoint(point) => vec![text(point.name)],
        Operation::Overwritten(given_up) => {
            vec![format!("lsn {}; time {}", given_up.lsn, time(given_up.time))]
        }
        Operation::RelationCreate(create) => vec![file_of(create.locator, create.fork)],
        Operation::RelationTruncate(cut) => {
            vec![file_of(cut.locator, Fork::Main), cut.block.to_string()]
        }
        Operation::DatabaseCreate(create) => vec![database_create_says(&create)],
        Operation::DatabaseDrop(drop) => vec![database_drop_says(&drop)],
        Operation::TablespaceCreate(create) => {
            vec![format!("{} \"{}\"", create.tablespace, text(create.path))]
        }
        Operation::TablespaceDrop(tablespace) => vec![tablespace.to_string()],
        Operation::Unknown => vec!["unknown to the reader".to_owned()],
        _ => Vec::new(),
    }
}

fn end_says(end: &XactEnd<'_>) -> Vec<String> {
    // Only of a prepared transaction is the id another than the record's.
    let prepared = matches!(end.kind, XactEndKind::CommitPrepared | XactEndKind::AbortPrepared);
    let xid = if prepared { format!("{}: ", end.xid) } else { String::new() };
    let mut said = vec![format!("{xid}{}", time(end.time))];
    let listed = |items: Vec<String>, label: &str| {
        (!items.is_empty()).then(|| format!("{label}: {}", items.join(" ")))
    };
    let origin =
        end.origin.map(|origin| format!("origin: lsn {}, at {}", origin.lsn, time(origin.time)));
    let files = end.dropped_relations.iter().map(|locator| file_of(*locator, Fork::Main));
    said.extend(origin);
    said.extend(listed(files.collect(), "rels"));
    said.extend(listed(end.subxids.iter().map(u32::to_string).collect(), "subxacts"));
    said
}

fn file_of(locator: RelFileLocator, fork: Fork) -> String {
    let suffix = match fork {
        Fork::Main => "",
        Fork::Fsm => "_fsm",
        Fork::Vm => "_vm",
        Fork::Init => "_init",
    };
    format!("{}{suffix}", locator.relation)
}

fn database_create_says(create: &DatabaseCreate) -> String {
    let to = format!("{}/{}", create.tablespace, create.database);
    match create.copied_from {
        Some((database, tablespace)) => format!("copy dir {tablespace}/{database} to {to}"),
        None => format!("create dir {to}"),
    }
}

fn database_drop_says(drop: &DatabaseDrop) -> String {
    let directories =
        drop.tablespaces.iter().map(|tablespace| format!(" {tablespace}/{}", drop.database));
    format!("dir{}", directories.collect::<String>())
}

fn time(time: PgTimestamp) -> String {
    time.to_timestamp().strftime("%Y-%m-%d %H:%M:%S%.6f UTC").to_string()
}
