use seawall_core::{Lsn, printable};

/// A type that PostgreSQL's text output can be read as.
pub trait FromText: Sized {
    /// Reads a value; `None` is NULL.
    ///
    /// # Errors
    /// What was expected, such as `a boolean`.
    fn from_text(text: Option<&str>) -> Result<Self, &'static str>;
}

/// NULL is `None`.
impl<T: FromText> FromText for Option<T> {
    fn from_text(text: Option<&str>) -> Result<Self, &'static str> {
        text.map(|text| T::from_text(Some(text))).transpose()
    }
}

/// For people and comparisons: without control characters, see [`printable`]. What must be exact,
/// such as a path, is got with [`Row::bytes`](crate::Row::bytes).
impl FromText for String {
    fn from_text(text: Option<&str>) -> Result<Self, &'static str> {
        text.map(printable).ok_or("text")
    }
}

/// `t` and `f` of a column, `on` and `off` of a setting.
impl FromText for bool {
    fn from_text(text: Option<&str>) -> Result<Self, &'static str> {
        match text {
            Some("t" | "on") => Ok(true),
            Some("f" | "off") => Ok(false),
            _ => Err("a boolean"),
        }
    }
}

/// `pg_lsn`
impl FromText for Lsn {
    fn from_text(text: Option<&str>) -> Result<Self, &'static str> {
        text.and_then(|text| text.parse().ok()).ok_or("an LSN")
    }
}

/// `bytea` with `bytea_output = hex`, its default.
impl FromText for Vec<u8> {
    fn from_text(text: Option<&str>) -> Result<Self, &'static str> {
        const EXPECTED: &str = "a bytea in hex";
        let digits = text.and_then(|text| text.strip_prefix("\\x")).ok_or(EXPECTED)?;
        let nibble = |digit: u8| char::from(digit).to_digit(16).and_then(|n| u8::try_from(n).ok());
        let pairs = digits.as_bytes().chunks(2).map(|pair| match *pair {
            [high, low] => Some(nibble(high)? * 16 + nibble(low)?),
            _ => None,
        });
        pairs.collect::<Option<Self>>().ok_or(EXPECTED)
    }
}

macro_rules! numbers {
    ($($number:ty: $expected:literal),*) => {$(
        impl FromText for $number {
            fn from_text(text: Option<&str>) -> Result<Self, &'static str> {
                text.and_then(|text| text.parse().ok()).ok_or($expected)
            }
        }
    )*};
}

numbers! {
    i16: "a 16-bit integer", i32: "a 32-bit integer", i64: "a 64-bit integer",
    u16: "an unsigned 16-bit integer", u32: "an unsigned 32-bit integer",
    u64: "an unsigned 64-bit integer", f64: "a number"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_output_is_read() {
        assert_eq!(bool::from_text(Some("t")), Ok(true));
        assert_eq!(bool::from_text(Some("off")), Ok(false));
        assert_eq!(bool::from_text(Some("true")), Err("a boolean"));
        assert_eq!(Lsn::from_text(Some("0/1A")), Ok(Lsn(26)));
        assert_eq!(Vec::<u8>::from_text(Some("\\x00fF")), Ok(vec![0, 255]));
        assert_eq!(Vec::<u8>::from_text(Some("\\x0")), Err("a bytea in hex"));
        assert_eq!(Vec::<u8>::from_text(Some("\\x+1")), Err("a bytea in hex"));
        assert_eq!(i32::from_text(None), Err("a 32-bit integer"));
        assert_eq!(Option::<i32>::from_text(None), Ok(None));
        assert_eq!(f64::from_text(Some("Infinity")), Ok(f64::INFINITY));
    }
}
