use seawall_core::{Code, Error, Result};

use super::{Secret, random_bytes};

const PREFIX: &str = "seawall-key-1-";

/// The text form of a repository key, as it stands in a key file or a recovery kit.
#[derive(Debug, Clone)]
pub struct KeyFile {
    secret: Secret,
}

impl KeyFile {
    /// A new random key.
    ///
    /// # Errors
    /// [`Code::Internal`] if the operating system has no randomness to give.
    pub fn generate() -> Result<Self> {
        Ok(Self { secret: Secret::new(random_bytes()?) })
    }

    /// The secret that opens a slot.
    #[must_use]
    pub const fn secret(&self) -> &Secret {
        &self.secret
    }

    /// The one line that is the key.
    #[must_use]
    pub fn line(&self) -> String {
        let bytes = self.secret.bytes();
        format!("{PREFIX}{}-{}", hex::encode(bytes), checksum(bytes))
    }

    /// Finds the key in a text: the only line that begins as a key does.
    ///
    /// # Errors
    /// [`Code::KeyUnreadable`] if there is none, more than one, or its check digits do not match.
    pub fn parse(text: &str) -> Result<Self> {
        let mut lines = text.lines().map(str::trim).filter(|line| line.starts_with(PREFIX));
        let unreadable = |what: &str| {
            Error::new(Code::KeyUnreadable, what.to_owned()).with_hint(
                "A Seawall key is one line that begins with `seawall-key-1-`; copy it whole from the key file or the recovery kit.",
            )
        };
        let line = lines.next().ok_or_else(|| unreadable("the file holds no Seawall key"))?;
        if lines.next().is_some() {
            return Err(unreadable("the file holds more than one Seawall key"));
        }
        let digits = line.strip_prefix(PREFIX).unwrap_or_default();
        let (key, check) = digits.split_once('-').unwrap_or((digits, ""));
        let bytes = hex::decode(key)
            .ok()
            .and_then(|bytes| <[u8; 32]>::try_from(bytes).ok())
            .ok_or_else(|| unreadable("the key is not 64 hexadecimal digits"))?;
        if checksum(&bytes) == check {
            Ok(Self { secret: Secret::new(bytes) })
        } else {
            Err(unreadable("the key's check digits do not match: it was mistyped or cut"))
        }
    }
}

fn checksum(bytes: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    hex::encode(digest.as_ref().get(..4).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_being_written_among_comments() {
        let key = KeyFile::generate().ok();
        let line = key.as_ref().map(KeyFile::line).unwrap_or_default();
        let read = KeyFile::parse(&format!("# keep this safe\n\n  {line}\n")).ok();
        assert_eq!(read.map(|key| *key.secret.bytes()), key.map(|key| *key.secret.bytes()));
    }

    #[test]
    fn a_mistyped_key_is_told_from_a_wrong_one() {
        let line = KeyFile::generate().map(|key| key.line()).unwrap_or_default();
        let digit = if line.as_bytes().get(20) == Some(&b'0') { "1" } else { "0" };
        let mut typo = line.clone();
        typo.replace_range(20..21, digit);
        let twice = format!("{line}\n{line}");
        for text in ["", "hello", &line[..40], &typo, &twice] {
            let code = KeyFile::parse(text).err().map(|error| error.code());
            assert_eq!(code, Some(Code::KeyUnreadable), "{text}");
        }
    }
}
