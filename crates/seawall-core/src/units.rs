use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A number of bytes. Reads and shows `128MiB`, `4MB`, `512`.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(into = "String", try_from = "String")]
pub struct ByteSize(pub u64);

/// The text is not a size such as `128MiB`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidByteSize(pub String);

impl fmt::Display for InvalidByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\" is not a size such as 128MiB or 4MB", self.0)
    }
}

impl std::error::Error for InvalidByteSize {}

const UNITS: [(&str, u64); 11] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("B", 1),
    ("", 1),
];

impl FromStr for ByteSize {
    type Err = InvalidByteSize;

    fn from_str(text: &str) -> Result<Self, InvalidByteSize> {
        let invalid = || InvalidByteSize(text.to_owned());
        let trimmed = text.trim();
        let digits = trimmed.find(|c: char| !c.is_ascii_digit()).unwrap_or(trimmed.len());
        let (number, unit) = trimmed.split_at(digits);
        let number: u64 = number.parse().map_err(|_| invalid())?;
        let (_, factor) =
            UNITS.iter().find(|(name, _)| *name == unit.trim()).ok_or_else(invalid)?;
        number.checked_mul(*factor).map(Self).ok_or_else(invalid)
    }
}

impl fmt::Display for ByteSize {
    /// One decimal in the largest binary unit that fits: `1.4 GiB`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, factor) in
            [("TiB", 1u64 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)]
        {
            if self.0 >= factor {
                let tenths = u128::from(self.0) * 10 / u128::from(factor);
                return write!(f, "{}.{} {name}", tenths / 10, tenths % 10);
            }
        }
        write!(f, "{} B", self.0)
    }
}

impl From<ByteSize> for String {
    /// Exact, so that a size survives being written to a file and read back.
    fn from(size: ByteSize) -> Self {
        format!("{}B", size.0)
    }
}

impl TryFrom<String> for ByteSize {
    type Error = InvalidByteSize;

    fn try_from(text: String) -> Result<Self, InvalidByteSize> {
        text.parse()
    }
}

/// A number with its noun: `1 backup`, `2 backups`. The noun's plural is formed with an s.
#[must_use]
pub fn counted<N: Copy + fmt::Display + PartialEq + From<u8>>(count: N, noun: &str) -> String {
    let plural = if count == N::from(1) { "" } else { "s" };
    format!("{count} {noun}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_not_many() {
        let shown = [0_u64, 1, 2].map(|count| counted(count, "backup"));
        assert_eq!(shown, ["0 backups", "1 backup", "2 backups"]);
        assert_eq!(counted(1_usize, "other key"), "1 other key");
    }

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in
            [("512", 512), ("4MiB", 4 << 20), ("50MB", 50_000_000), (" 1 GiB ", 1 << 30), ("7B", 7)]
        {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
        for text in ["", "MiB", "-1", "1.5GiB", "1XB", "99999999999TiB"] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_shown_with_one_decimal() {
        assert_eq!(ByteSize(1023).to_string(), "1023 B");
        assert_eq!(ByteSize(1536).to_string(), "1.5 KiB");
        assert_eq!(ByteSize(u64::MAX).to_string(), "16777215.9 TiB");
    }
}
