//! The PostgreSQL majors Seawall knows. A new major enters here; where something about it has to be
//! known besides, the code does not compile before it is.

use std::fmt;

/// A PostgreSQL major version, 12 to 18.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum PgMajor {
    /// PostgreSQL 12.
    V12 = 12,
    /// PostgreSQL 13.
    V13 = 13,
    /// PostgreSQL 14.
    V14 = 14,
    /// PostgreSQL 15.
    V15 = 15,
    /// PostgreSQL 16.
    V16 = 16,
    /// PostgreSQL 17.
    V17 = 17,
    /// PostgreSQL 18.
    V18 = 18,
}

/// What tells a major's files apart.
struct Traits {
    /// `XLOG_PAGE_MAGIC` (xlog_internal.h).
    wal_page_magic: u16,
    /// `PG_CONTROL_VERSION` (pg_control.h).
    control_version: u32,
    /// `CATALOG_VERSION_NO` (catversion.h) of the release.
    catalog_version: u32,
}

impl PgMajor {
    /// All known majors, oldest first.
    pub const ALL: [Self; 7] =
        [Self::V12, Self::V13, Self::V14, Self::V15, Self::V16, Self::V17, Self::V18];

    const fn traits(self) -> Traits {
        let (wal_page_magic, control_version, catalog_version) = match self {
            Self::V12 => (0xD101, 1201, 201_909_212),
            Self::V13 => (0xD106, 1300, 202_007_201),
            Self::V14 => (0xD10D, 1300, 202_107_181),
            Self::V15 => (0xD110, 1300, 202_209_061),
            Self::V16 => (0xD113, 1300, 202_307_071),
            Self::V17 => (0xD116, 1700, 202_406_281),
            Self::V18 => (0xD118, 1800, 202_506_291),
        };
        Traits { wal_page_magic, control_version, catalog_version }
    }

    /// The number, 12 to 18.
    #[must_use]
    pub const fn number(self) -> u32 {
        self as u32
    }

    /// `XLOG_PAGE_MAGIC`: the first two bytes of every WAL page.
    #[must_use]
    pub const fn wal_page_magic(self) -> u16 {
        self.traits().wal_page_magic
    }

    /// `PG_CONTROL_VERSION`: which layout `pg_control` has.
    #[must_use]
    pub const fn control_version(self) -> u32 {
        self.traits().control_version
    }

    /// `CATALOG_VERSION_NO`: part of every tablespace's directory name.
    #[must_use]
    pub const fn catalog_version(self) -> u32 {
        self.traits().catalog_version
    }

    /// The major of a number such as 15, or of `server_version_num` such as 150018.
    #[must_use]
    pub fn from_number(number: u32) -> Option<Self> {
        let major = if number >= 10_000 { number / 10_000 } else { number };
        Self::ALL.into_iter().find(|known| known.number() == major)
    }

    /// The major whose WAL pages begin with `magic`.
    #[must_use]
    pub fn from_wal_page_magic(magic: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.wal_page_magic() == magic)
    }

    /// The major whose `pg_control` carries these two versions.
    #[must_use]
    pub fn from_control(control_version: u32, catalog_version: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|known| {
            known.control_version() == control_version && known.catalog_version() == catalog_version
        })
    }
}

impl fmt::Display for PgMajor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.number())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_major_is_found_by_what_its_files_carry() {
        for major in PgMajor::ALL {
            assert_eq!(PgMajor::from_number(major.number()), Some(major));
            assert_eq!(PgMajor::from_number(major.number() * 10_000 + 4), Some(major));
            assert_eq!(PgMajor::from_wal_page_magic(major.wal_page_magic()), Some(major));
            let found = PgMajor::from_control(major.control_version(), major.catalog_version());
            assert_eq!(found, Some(major));
        }
    }

    #[test]
    fn unknown_majors_are_refused() {
        assert_eq!(PgMajor::from_number(11), None);
        assert_eq!(PgMajor::from_number(190_000), None);
        assert_eq!(PgMajor::from_wal_page_magic(0xD121), None);
        assert_eq!(PgMajor::from_control(1300, 202_506_291), None);
    }
}
