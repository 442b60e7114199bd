//! Logging in: cleartext, MD5, SCRAM-SHA-256 and SCRAM-SHA-256-PLUS (fe-auth.c).

use std::time::Duration;

use fallible_iterator::FallibleIterator;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::message::backend::{AuthenticationSaslBody, Message};
use postgres_protocol::message::frontend;
use seawall_core::Secret;

use crate::PgError;
use crate::config::{AllowedAuth, ChannelBinding};
use crate::message::{BackendMessage, MessageStream};
use crate::scram::{self, SCRAM_SHA_256, SCRAM_SHA_256_PLUS};
use crate::server_message::server_error;
use crate::transport::Stream;

/// Who logs in, and how they may.
pub(crate) struct Login<'a> {
    pub(crate) user: &'a str,
    pub(crate) password: Option<&'a Secret>,
    pub(crate) allowed: AllowedAuth,
    pub(crate) channel_binding: ChannelBinding,
    pub(crate) encrypted: bool,
    /// The hash of the server's certificate, if the session has one.
    pub(crate) endpoint: Option<&'a [u8]>,
    /// What the login may take, of which hashing a password is the only long part.
    pub(crate) time: Duration,
}

/// How far the login is.
enum Progress {
    /// The server has asked for nothing yet.
    Begun,
    /// A password was sent, in clear or as MD5.
    PasswordSent,
    /// SCRAM is under way.
    ScramBegun { exchange: scram::ClientFirst, bound: bool },
    /// The client has proven that it knows the password.
    ClientProven { exchange: scram::ClientFinal, bound: bool },
    /// The server has proven that it knows the password.
    ServerProven { bound: bool },
}

/// Answers the server's requests until it is satisfied.
pub(crate) async fn authenticate(
    wire: &mut MessageStream<Stream>,
    login: &Login<'_>,
) -> Result<(), PgError> {
    let mut progress = Progress::Begun;
    loop {
        let BackendMessage::Standard(message) = wire.read().await? else {
            // NegotiateProtocolVersion: 3.0 is the oldest version, so an option was not taken.
            return Err(PgError::Protocol("the server does not know protocol 3.0".to_owned()));
        };
        progress = match message {
            Message::AuthenticationOk => return finish(&progress, login),
            Message::ErrorResponse(body) => {
                return Err(PgError::Server(Box::new(server_error(body.fields()))));
            }
            Message::NoticeResponse(_) => progress,
            message => answer(wire, progress, login, message).await?,
        };
        wire.flush().await?;
    }
}

fn auth(message: impl Into<String>) -> PgError {
    PgError::Auth(message.into())
}

/// Queues the answer to one request.
async fn answer(
    wire: &mut MessageStream<Stream>,
    progress: Progress,
    login: &Login<'_>,
    message: Message,
) -> Result<Progress, PgError> {
    match (message, progress) {
        (Message::AuthenticationCleartextPassword, Progress::Begun) => {
            allow(login.allowed.password, "a cleartext password", login)?;
            send_password(wire, password(login)?.as_bytes())
        }
        (Message::AuthenticationMd5Password(body), Progress::Begun) => {
            allow(login.allowed.md5, "an MD5 password", login)?;
            let hash = md5_hash(login.user.as_bytes(), password(login)?.as_bytes(), body.salt());
            send_password(wire, hash.as_bytes())
        }
        (Message::AuthenticationSasl(body), Progress::Begun) => {
            allow(login.allowed.scram, "SCRAM", login)?;
            begin_scram(wire, login, &body)
        }
        (Message::AuthenticationSaslContinue(body), Progress::ScramBegun { exchange, bound }) => {
            let exchange = exchange.answer(body.data(), password(login)?, login.time).await?;
            frontend::sasl_response(exchange.message().as_bytes(), wire.outgoing())
                .map_err(|error| unsendable(&error))?;
            Ok(Progress::ClientProven { exchange, bound })
        }
        (Message::AuthenticationSaslFinal(body), Progress::ClientProven { exchange, bound }) => {
            exchange.check(body.data())?;
            Ok(Progress::ServerProven { bound })
        }
        (Message::AuthenticationGss | Message::AuthenticationSspi, _) => {
            Err(auth("the server asks for GSSAPI or SSPI, which Seawall does not speak"))
        }
        (Message::AuthenticationKerberosV5 | Message::AuthenticationScmCredential, _) => {
            Err(auth("the server asks for an authentication PostgreSQL has removed"))
        }
        _ => Err(PgError::Protocol("a message out of order during the login".to_owned())),
    }
}

fn unsendable(error: &std::io::Error) -> PgError {
    PgError::Auth(format!("the password cannot be sent: {error}"))
}

/// Refuses what `require_auth` leaves out, and whatever cannot bind if `channel_binding` asks for
/// that.
fn allow(allowed: bool, method: &str, login: &Login<'_>) -> Result<(), PgError> {
    if !allowed {
        return Err(auth(format!(
            "require_auth does not allow {method}, which the server asks for"
        )));
    }
    if login.channel_binding == ChannelBinding::Require && method != "SCRAM" {
        return Err(auth(format!("channel_binding=require, and the server asks for {method}")));
    }
    Ok(())
}

fn password<'a>(login: &Login<'a>) -> Result<&'a Secret, PgError> {
    login.password.ok_or_else(|| {
        auth(format!("no password for \"{}\", and the server asks for one", login.user))
    })
}

fn send_password(wire: &mut MessageStream<Stream>, password: &[u8]) -> Result<Progress, PgError> {
    frontend::password_message(password, wire.outgoing()).map_err(|error| unsendable(&error))?;
    Ok(Progress::PasswordSent)
}

fn begin_scram(
    wire: &mut MessageStream<Stream>,
    login: &Login<'_>,
    body: &AuthenticationSaslBody,
) -> Result<Progress, PgError> {
    let (mut plain, mut plus) = (false, false);
    let mut mechanisms = body.mechanisms();
    while let Some(name) =
        mechanisms.next().map_err(|error| PgError::Protocol(error.to_string()))?
    {
        plain |= name == SCRAM_SHA_256;
        plus |= name == SCRAM_SHA_256_PLUS;
    }
    let (mechanism, binding) = choose_mechanism(login, plain, plus)?;
    let bound = mechanism == SCRAM_SHA_256_PLUS;
    password(login)?;
    let exchange = scram::ClientFirst::new(binding)?;
    frontend::sasl_initial_response(mechanism, exchange.message().as_bytes(), wire.outgoing())
        .map_err(|error| unsendable(&error))?;
    Ok(Progress::ScramBegun { exchange, bound })
}

/// `pg_SASL_init` (fe-auth.c). A client that could bind and was not offered to says so; the server
/// then notices if somebody in between removed the offer.
fn choose_mechanism(
    login: &Login<'_>,
    plain: bool,
    plus: bool,
) -> Result<(&'static str, scram::ChannelBinding), PgError> {
    if plus && !login.encrypted {
        return Err(auth("the server offers channel binding without TLS"));
    }
    let endpoint = login.endpoint.filter(|_| login.channel_binding != ChannelBinding::Disable);
    match endpoint {
        Some(hash) if plus => {
            let binding = scram::ChannelBinding::TlsServerEndPoint(hash.to_vec());
            Ok((SCRAM_SHA_256_PLUS, binding))
        }
        _ if login.channel_binding == ChannelBinding::Require => Err(auth(
            "channel_binding=require, and it is not possible: it needs TLS, a server that offers \
             SCRAM-SHA-256-PLUS, and a certificate whose signature has a hash (not Ed25519)",
        )),
        Some(_) if plain => Ok((SCRAM_SHA_256, scram::ChannelBinding::Unrequested)),
        None if plain => Ok((SCRAM_SHA_256, scram::ChannelBinding::Unsupported)),
        _ => Err(auth("the server offers no SASL mechanism that Seawall speaks")),
    }
}

/// Whether a server that says "welcome" has earned it.
fn finish(progress: &Progress, login: &Login<'_>) -> Result<(), PgError> {
    let bound = match progress {
        Progress::Begun if !login.allowed.none => {
            return Err(auth("require_auth asks for a login, and the server wants none"));
        }
        Progress::ScramBegun { .. } | Progress::ClientProven { .. } => {
            return Err(auth("the server ended SCRAM without proving that it knows the password"));
        }
        Progress::ServerProven { bound } => *bound,
        Progress::Begun | Progress::PasswordSent => false,
    };
    if login.channel_binding == ChannelBinding::Require && !bound {
        return Err(auth("channel_binding=require, and the server let us in without it"));
    }
    Ok(())
}

#[cfg(test)]
#[path = "auth_tests.rs"]
mod tests;
