/// Bytes that are no text as one word that bash, ksh and zsh read as those bytes, so that what is
/// shown of a path can be typed.
#[must_use]
pub fn shell_escaped(bytes: &[u8]) -> String {
    let escaped = bytes.iter().map(|byte| match byte {
        b'\\' | b'\'' => format!("\\{}", char::from(*byte)),
        b' '..=b'~' => char::from(*byte).to_string(),
        other => format!("\\{other:03o}"),
    });
    format!("$'{}'", escaped.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_can_be_typed() {
        assert_eq!(shell_escaped(b"it's caf\xe9\n\\"), r"$'it\'s caf\351\012\\'");
    }
}
