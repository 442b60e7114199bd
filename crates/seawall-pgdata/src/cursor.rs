use std::fmt;

/// The bytes ended before the value did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Truncated {
    /// Where the value begins.
    pub offset: usize,
    /// How many bytes it needs.
    pub need: usize,
}

impl fmt::Display for Truncated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "truncated: {} bytes needed at offset {}", self.need, self.offset)
    }
}

impl std::error::Error for Truncated {}

/// Reads little-endian values one after another. Every read is checked.
///
/// PostgreSQL writes its files in the byte order of the machine; only little-endian clusters are
/// supported, which `pg_control`'s version field proves before anything else is read.
#[derive(Debug, Clone)]
pub struct Cursor<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Cursor<'a> {
    /// Starts at the first byte.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, offset: 0 }
    }

    /// How many bytes were read.
    #[must_use]
    pub const fn offset(&self) -> usize {
        self.offset
    }

    /// The bytes not read yet.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.offset..).unwrap_or_default()
    }

    /// Takes the next `count` bytes.
    ///
    /// # Errors
    /// [`Truncated`] if fewer are left; the cursor stays.
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], Truncated> {
        let taken =
            self.rest().get(..count).ok_or(Truncated { offset: self.offset, need: count })?;
        self.offset += count;
        Ok(taken)
    }

    /// Takes the next `N` bytes as an array.
    ///
    /// # Errors
    /// [`Truncated`] if fewer are left; the cursor stays.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Truncated> {
        let truncated = Truncated { offset: self.offset, need: N };
        self.take(N)?.try_into().map_err(|_| truncated)
    }

    /// The next byte.
    ///
    /// # Errors
    /// [`Truncated`]; the cursor stays.
    pub fn u8(&mut self) -> Result<u8, Truncated> {
        self.array().map(u8::from_le_bytes)
    }

    /// The next two bytes.
    ///
    /// # Errors
    /// [`Truncated`]; the cursor stays.
    pub fn u16(&mut self) -> Result<u16, Truncated> {
        self.array().map(u16::from_le_bytes)
    }

    /// The next four bytes.
    ///
    /// # Errors
    /// [`Truncated`]; the cursor stays.
    pub fn u32(&mut self) -> Result<u32, Truncated> {
        self.array().map(u32::from_le_bytes)
    }

    /// The next eight bytes.
    ///
    /// # Errors
    /// [`Truncated`]; the cursor stays.
    pub fn u64(&mut self) -> Result<u64, Truncated> {
        self.array().map(u64::from_le_bytes)
    }

    /// The next eight bytes, signed.
    ///
    /// # Errors
    /// [`Truncated`]; the cursor stays.
    pub fn i64(&mut self) -> Result<i64, Truncated> {
        self.array().map(i64::from_le_bytes)
    }
}
