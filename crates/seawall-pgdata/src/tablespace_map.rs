//! `tablespace_map`: where a backup's tablespaces lay, and where a restore puts them.

use seawall_core::Oid;

use crate::decimal::positive_decimal;

/// The tablespaces of a backup that are links, in the order PostgreSQL listed them. In-place ones
/// are directories of PGDATA and not listed.
///
/// One line each, `<oid> <path>`. A newline, carriage return or backslash in a path has a backslash
/// before it (`do_pg_backup_start`, xlog.c; `read_tablespace_map`, xlogrecovery.c; 12–18). Paths
/// are bytes: nothing says which encoding they have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TablespaceMap {
    tablespaces: Vec<Tablespace>,
}

/// A tablespace outside PGDATA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tablespace {
    /// The name of its link in `pg_tblspc`.
    pub oid: Oid,
    /// What the link points to.
    pub path: Vec<u8>,
}

/// Why a map cannot be read or changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TablespaceMapError {
    /// The line is not `<oid> <path>`, or the last one has no end.
    #[error("tablespace_map line {0} is not \"<oid> <path>\"")]
    InvalidLine(usize),
    /// Two lines are about the same tablespace.
    #[error("tablespace_map has tablespace {0} twice")]
    Duplicate(Oid),
    /// The backup has no such tablespace.
    #[error("there is no tablespace {0} in the backup")]
    NoSuchTablespace(Oid),
    /// A link cannot point there.
    #[error("{0:?} is not an absolute path")]
    InvalidPath(String),
}

impl TablespaceMap {
    /// Reads a `tablespace_map`; no bytes at all are a map without tablespaces.
    ///
    /// # Errors
    /// [`TablespaceMapError`] where PostgreSQL would refuse the file too, and for a tablespace that
    /// appears twice.
    pub fn parse(bytes: &[u8]) -> Result<Self, TablespaceMapError> {
        let mut map = Self::default();
        for (index, line) in unescaped_lines(bytes)?.iter().enumerate() {
            let tablespace = parse_line(line).ok_or(TablespaceMapError::InvalidLine(index + 1))?;
            if map.get(tablespace.oid).is_some() {
                return Err(TablespaceMapError::Duplicate(tablespace.oid));
            }
            map.tablespaces.push(tablespace);
        }
        Ok(map)
    }

    /// The bytes PostgreSQL would write for the map.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for Tablespace { oid, path } in &self.tablespaces {
            bytes.extend_from_slice(format!("{oid} ").as_bytes());
            for byte in path {
                if matches!(byte, b'\n' | b'\r' | b'\\') {
                    bytes.push(b'\\');
                }
                bytes.push(*byte);
            }
            bytes.push(b'\n');
        }
        bytes
    }

    /// The tablespaces, in the map's order.
    #[must_use]
    pub fn tablespaces(&self) -> &[Tablespace] {
        &self.tablespaces
    }

    /// Where a tablespace lies.
    #[must_use]
    pub fn get(&self, oid: Oid) -> Option<&[u8]> {
        self.tablespaces.iter().find(|it| it.oid == oid).map(|it| it.path.as_slice())
    }

    /// Gives a tablespace another place.
    ///
    /// # Errors
    /// If the map does not have it, or `path` is not absolute or holds a zero byte; the map is then
    /// unchanged.
    pub fn remap(&mut self, oid: Oid, path: impl Into<Vec<u8>>) -> Result<(), TablespaceMapError> {
        let path = path.into();
        if !path.starts_with(b"/") || path.contains(&0) {
            let text = String::from_utf8_lossy(&path).into_owned();
            return Err(TablespaceMapError::InvalidPath(text));
        }
        let found = self.tablespaces.iter_mut().find(|it| it.oid == oid);
        found.ok_or(TablespaceMapError::NoSuchTablespace(oid))?.path = path;
        Ok(())
    }
}

/// Splits at line ends that have no backslash before them. Empty lines do not count, so that
/// `\r\n` is one line end.
fn unescaped_lines(bytes: &[u8]) -> Result<Vec<Vec<u8>>, TablespaceMapError> {
    let mut lines = Vec::new();
    let mut line = Vec::new();
    let mut escaped = false;
    for byte in bytes {
        match byte {
            b'\n' | b'\r' if !escaped => {
                if !line.is_empty() {
                    lines.push(std::mem::take(&mut line));
                }
            }
            b'\\' if !escaped => escaped = true,
            _ => {
                line.push(*byte);
                escaped = false;
            }
        }
    }
    if line.is_empty() && !escaped {
        Ok(lines)
    } else {
        Err(TablespaceMapError::InvalidLine(lines.len() + 1))
    }
}

/// Exactly one space ends the number; the path may begin with more of them.
fn parse_line(line: &[u8]) -> Option<Tablespace> {
    let space = line.iter().position(|byte| *byte == b' ')?;
    let digits = std::str::from_utf8(line.get(..space)?).ok()?;
    let oid = positive_decimal(digits)?;
    let path = line.get(space + 1..)?.to_vec();
    (!path.is_empty() && !path.contains(&0)).then_some(Tablespace { oid, path })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_postgres_writes_is_read_and_written_back() {
        let bytes = b"16390 /srv/fast disk\n16391 /odd\\\\na\\\nme\\\r\n";
        let map = TablespaceMap::parse(bytes);
        assert_eq!(map.as_ref().map(TablespaceMap::to_bytes).as_deref(), Ok(bytes.as_slice()));
        let map = map.unwrap_or_default();
        assert_eq!(map.get(16_390), Some(b"/srv/fast disk".as_slice()));
        assert_eq!(map.get(16_391), Some(b"/odd\\na\nme\r".as_slice()));
        assert_eq!(map.get(1), None);
    }

    #[test]
    fn carriage_returns_end_lines_too() {
        let map = TablespaceMap::parse(b"1 /a\r\n2 /b\r\n").unwrap_or_default();
        assert_eq!(map.to_bytes(), b"1 /a\n2 /b\n");
    }

    #[test]
    fn damaged_maps_are_refused() {
        for (bytes, line) in [
            (b"1 /a".as_slice(), 1),
            (b"1 /a\n2 /b\\", 2),
            (b"1 /a\\\n", 1),
            (b"1\n", 1),
            (b"1 \n", 1),
            (b" /a\n", 1),
            (b"x /a\n", 1),
            (b"-1 /a\n", 1),
            (b"4294967296 /a\n", 1),
            (b"1 /a\n\n0 /b\n", 2),
            (b"1 /a\0b\n", 1),
        ] {
            let expected = Err(TablespaceMapError::InvalidLine(line));
            assert_eq!(TablespaceMap::parse(bytes), expected, "{bytes:?}");
        }
        let twice = TablespaceMap::parse(b"7 /a\n7 /b\n");
        assert_eq!(twice, Err(TablespaceMapError::Duplicate(7)));
    }

    #[test]
    fn a_tablespace_can_be_put_elsewhere() {
        let mut map = TablespaceMap::parse(b"7 /a\n8 /b\n").unwrap_or_default();
        assert_eq!(map.remap(8, "/new place"), Ok(()));
        assert_eq!(map.remap(9, "/c"), Err(TablespaceMapError::NoSuchTablespace(9)));
        let relative = map.remap(7, "c");
        assert_eq!(relative, Err(TablespaceMapError::InvalidPath("c".to_owned())));
        assert_eq!(map.to_bytes(), b"7 /a\n8 /new place\n");
    }

    proptest! {
        #[test]
        fn every_path_survives(
            paths in proptest::collection::btree_map(1u32.., "/[ -~\n\r\\\\é]{0,20}", 0..5),
        ) {
            let mut map = TablespaceMap::default();
            for (oid, path) in paths {
                map.tablespaces.push(Tablespace { oid, path: path.into_bytes() });
            }
            prop_assert_eq!(TablespaceMap::parse(&map.to_bytes()), Ok(map));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            if let Ok(map) = TablespaceMap::parse(&bytes) {
                prop_assert_eq!(TablespaceMap::parse(&map.to_bytes()), Ok(map));
            }
        }
    }
}
