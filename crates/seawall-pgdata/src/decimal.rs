/// Reads a positive number as PostgreSQL writes OIDs, timelines and segment numbers: in decimal,
/// without sign or leading zeros.
pub(crate) fn positive_decimal(digits: &str) -> Option<u32> {
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.starts_with('0');
    plain.then(|| digits.parse().ok()).flatten()
}
