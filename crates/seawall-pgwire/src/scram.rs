//! SCRAM-SHA-256 (RFC 5802 and 7677; fe-auth-scram.c, 18).
//!
//! The server says how often its password is hashed, and the client has to do it before it knows
//! who asks. postgres-protocol stops at 100 000 and takes 0; `scram_iterations`, a setting since
//! PostgreSQL 16, may be more. Here it is bounded by time instead of by number.

use std::time::{Duration, Instant};

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use aws_lc_rs::{digest, hmac};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use seawall_core::Secret;
use tokio::task::spawn_blocking;
use zeroize::Zeroizing;

use crate::PgError;

pub(crate) const SCRAM_SHA_256: &str = "SCRAM-SHA-256";
pub(crate) const SCRAM_SHA_256_PLUS: &str = "SCRAM-SHA-256-PLUS";

/// `SCRAM_RAW_NONCE_LEN` (scram-common.h)
const NONCE_BYTES: usize = 18;

/// How many iterations are counted between two looks at the clock.
const STRIDE: u32 = 4096;

/// What the messages say of the TLS session below.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ChannelBinding {
    /// The client could, and the server does not offer it.
    Unrequested,
    /// The client cannot.
    Unsupported,
    /// The hash of the server's certificate.
    TlsServerEndPoint(Vec<u8>),
}

impl ChannelBinding {
    fn gs2_header(&self) -> &'static str {
        match self {
            Self::Unrequested => "y,,",
            Self::Unsupported => "n,,",
            Self::TlsServerEndPoint(_) => "p=tls-server-end-point,,",
        }
    }

    /// `c=`: the header once more, and what binds.
    fn input(&self) -> String {
        let mut input = self.gs2_header().as_bytes().to_vec();
        if let Self::TlsServerEndPoint(hash) = self {
            input.extend_from_slice(hash);
        }
        STANDARD.encode(input)
    }
}

/// The client's first message has been made.
pub(crate) struct ClientFirst {
    binding: ChannelBinding,
    nonce: String,
}

/// The client has proven itself, and waits for the server to do so.
pub(crate) struct ClientFinal {
    message: String,
    salted_password: Zeroizing<[u8; 32]>,
    auth_message: String,
}

impl ClientFirst {
    pub(crate) fn new(binding: ChannelBinding) -> Result<Self, PgError> {
        let mut nonce = [0; NONCE_BYTES];
        SystemRandom::new().fill(&mut nonce).map_err(|_| failed("the system has no randomness"))?;
        Ok(Self { binding, nonce: STANDARD.encode(nonce) })
    }

    /// PostgreSQL takes the user from the startup packet, and none here.
    fn bare(&self) -> String {
        format!("n=,r={}", self.nonce)
    }

    pub(crate) fn message(&self) -> String {
        format!("{}{}", self.binding.gs2_header(), self.bare())
    }

    /// Answers the server's first message. The password is hashed beside the runtime, for `time` at
    /// most.
    pub(crate) async fn answer(
        self,
        server_first: &[u8],
        password: &Secret,
        time: Duration,
    ) -> Result<ClientFinal, PgError> {
        let challenge = Challenge::parse(server_first, &self.nonce)?;
        let without_proof = format!("c={},r={}", self.binding.input(), challenge.nonce);
        let auth_message = format!("{},{},{without_proof}", self.bare(), challenge.text);
        let (password, salt) = (normalized(password.as_bytes()), challenge.salt);
        let iterations = challenge.iterations;
        let salted = spawn_blocking(move || salted_password(&password, &salt, iterations, time));
        let salted_password = salted.await.map_err(|error| failed(error.to_string()))??;
        let proof = client_proof(&salted_password, &auth_message);
        let message = format!("{without_proof},p={}", STANDARD.encode(proof));
        Ok(ClientFinal { message, salted_password, auth_message })
    }
}

impl ClientFinal {
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// Whether the server knows the password too.
    pub(crate) fn check(&self, server_final: &[u8]) -> Result<(), PgError> {
        let text = std::str::from_utf8(server_final).map_err(|_| malformed())?;
        let attribute = text.split(',').next().unwrap_or_default();
        let signature = match attribute.split_once('=') {
            Some(("v", signature)) => STANDARD.decode(signature).map_err(|_| malformed())?,
            Some(("e", error)) => return Err(failed(seawall_core::printable(error))),
            _ => return Err(malformed()),
        };
        let server_key = mac(self.salted_password.as_slice(), b"Server Key");
        let key = hmac::Key::new(hmac::HMAC_SHA256, server_key.as_ref());
        hmac::verify(&key, self.auth_message.as_bytes(), &signature)
            .map_err(|_| failed("the server could not prove that it knows the password"))
    }
}

/// The server's first message.
struct Challenge {
    text: String,
    nonce: String,
    salt: Vec<u8>,
    iterations: u32,
}

impl Challenge {
    /// `r=`, `s=` and `i=` in this order. Extensions may follow, and none is known.
    fn parse(message: &[u8], client_nonce: &str) -> Result<Self, PgError> {
        let text = std::str::from_utf8(message).map_err(|_| malformed())?;
        let mut attributes = text.split(',').map(|attribute| attribute.split_once('='));
        let mut value = |name| match attributes.next().flatten() {
            Some((found, value)) if found == name => Ok(value),
            _ => Err(malformed()),
        };
        let nonce = value("r")?;
        if !nonce.starts_with(client_nonce) {
            return Err(failed("the server's nonce does not continue ours"));
        }
        let salt = STANDARD.decode(value("s")?).map_err(|_| malformed())?;
        let iterations = value("i")?;
        let count = iterations.parse().ok().filter(|count| (1..=i32::MAX as u32).contains(count));
        let iterations = count.ok_or_else(|| {
            failed(format!(
                "{:.20} is no number of iterations",
                seawall_core::printable(iterations)
            ))
        })?;
        Ok(Self { text: text.to_owned(), nonce: nonce.to_owned(), salt, iterations })
    }
}

fn failed(problem: impl Into<String>) -> PgError {
    PgError::Auth(format!("SCRAM failed: {}", problem.into()))
}

fn malformed() -> PgError {
    failed("the server's message cannot be understood")
}

/// `SASLprep` where it applies; PostgreSQL takes any other bytes as they are.
fn normalized(password: &[u8]) -> Zeroizing<Vec<u8>> {
    let prepared =
        std::str::from_utf8(password).ok().and_then(|text| stringprep::saslprep(text).ok());
    Zeroizing::new(prepared.map_or_else(|| password.to_vec(), |text| text.as_bytes().to_vec()))
}

fn mac(key: &[u8], message: &[u8]) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message)
}

fn xor(into: &mut [u8; 32], other: &[u8]) {
    into.iter_mut().zip(other).for_each(|(byte, other)| *byte ^= other);
}

fn bytes(tag: &hmac::Tag) -> [u8; 32] {
    let mut bytes = [0; 32];
    xor(&mut bytes, tag.as_ref());
    bytes
}

/// `Hi` of RFC 5802, PBKDF2 with one block. Given up as soon as it is clear that `time` will not do.
fn salted_password(
    password: &[u8],
    salt: &[u8],
    iterations: u32,
    time: Duration,
) -> Result<Zeroizing<[u8; 32]>, PgError> {
    let begun = Instant::now();
    let key = hmac::Key::new(hmac::HMAC_SHA256, password);
    let mut last = bytes(&hmac::sign(&key, &[salt, [0, 0, 0, 1].as_slice()].concat()));
    let mut salted = Zeroizing::new(last);
    for done in 1..iterations {
        last = bytes(&hmac::sign(&key, &last));
        xor(&mut salted, &last);
        if done % STRIDE == 0
            && begun.elapsed().mul_f64(f64::from(iterations) / f64::from(done)) > time
        {
            return Err(PgError::ScramTooSlow { iterations, limit: time });
        }
    }
    Ok(salted)
}

fn client_proof(salted_password: &[u8; 32], auth_message: &str) -> [u8; 32] {
    let client_key = mac(salted_password, b"Client Key");
    let stored_key = digest::digest(&digest::SHA256, client_key.as_ref());
    let mut proof = bytes(&client_key);
    xor(&mut proof, mac(stored_key.as_ref(), auth_message.as_bytes()).as_ref());
    proof
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 7677, section 3, without the user name that PostgreSQL leaves out.
    #[tokio::test]
    async fn the_published_example_comes_out() {
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let salted = salted_password(b"pencil", &salt, 4096, Duration::MAX).unwrap();
        let auth_message = "n=user,r=rOprNGfwEbeRWgbNEkqO,\
             r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,\
             c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        let proof = STANDARD.encode(client_proof(&salted, auth_message));
        assert_eq!(proof, "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=");
        let last = ClientFinal {
            message: String::new(),
            salted_password: salted,
            auth_message: auth_message.to_owned(),
        };
        last.check(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=").unwrap();
        assert!(last.check(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G5=").is_err());
        assert!(last.check(b"e=other-error\n").is_err());
    }

    #[test]
    fn passwords_are_prepared_as_postgresql_does() {
        // A soft hyphen goes, a wide letter becomes a plain one; what is forbidden stays as it is.
        assert_eq!(*normalized("I\u{ad}X".as_bytes()), b"IX");
        assert_eq!(*normalized("\u{2168}".as_bytes()), b"IX");
        assert_eq!(*normalized(b"\x07"), b"\x07");
        assert_eq!(*normalized(b"\xff"), b"\xff");
    }

    #[test]
    fn the_clock_bounds_the_iterations() {
        let short = Duration::from_millis(1);
        let error = salted_password(b"x", b"salt", u32::MAX, short).unwrap_err();
        assert!(matches!(error, PgError::ScramTooSlow { iterations: u32::MAX, .. }), "{error}");
    }
}
