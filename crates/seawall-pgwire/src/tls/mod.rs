//! TLS for a session, as libpq's `ssl...` keywords ask for it.

mod certificate;
mod verifier;

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::client::WantsClientCert;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ConfigBuilder, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;

use crate::PgError;
use crate::config::{ClientCertificate, RevocationList, RootCertificates, SslMode, TlsSettings};
use crate::transport::{Address, Stream};
use verifier::{ServerVerifier, Verification};

/// What PostgreSQL 17 and later call themselves in ALPN.
const ALPN: &[u8] = b"postgresql";

/// What became of asking a server for TLS.
pub(crate) enum Negotiated {
    /// TLS stands. With it the hash that SCRAM binds to, if the certificate has one.
    Encrypted { stream: Stream, endpoint: Option<Vec<u8>> },
    /// The server has no TLS, and the stream is as it was.
    Plain(Stream),
}

/// Reads the files the settings name. Blocking.
pub(crate) fn client_config(settings: &TlsSettings) -> Result<ClientConfig, PgError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut versions = Vec::new();
    if settings.versions.tls13 {
        versions.push(&TLS13);
    }
    if settings.versions.tls12 {
        versions.push(&TLS12);
    }
    let verifier = verifier(settings, &provider)?;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&versions)
        .map_err(|error| tls(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = with_client_certificate(builder, settings.client.as_ref())?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.enable_sni = settings.sni;
    Ok(config)
}

fn tls(message: impl Into<String>) -> PgError {
    PgError::Tls(message.into())
}

fn verifier(
    settings: &TlsSettings,
    provider: &Arc<CryptoProvider>,
) -> Result<ServerVerifier, PgError> {
    let required = settings.mode >= SslMode::VerifyCa;
    let roots = match &settings.roots {
        RootCertificates::System => Some(system_roots()?),
        // libpq checks the authority whenever the file is there, whatever the mode.
        RootCertificates::File(path) if required || path.exists() => Some(read_roots(path)?),
        RootCertificates::None if required => {
            return Err(tls(
                "sslmode asks for a checked certificate, and sslrootcert names no file",
            ));
        }
        RootCertificates::File(_) | RootCertificates::None => None,
    };
    let revoked = match (&roots, &settings.revoked) {
        // libpq reads it beside the certificates of a file only.
        (Some(_), Some(list)) if settings.roots != RootCertificates::System => read_revoked(list)?,
        _ => Vec::new(),
    };
    let verification = match (roots, settings.mode) {
        (None, _) => Verification::Nothing,
        (Some(roots), SslMode::VerifyFull) => Verification::AuthorityAndName(roots),
        (Some(roots), _) => Verification::Authority(roots),
    };
    ServerVerifier::new(verification, revoked, provider)
}

fn system_roots() -> Result<Vec<CertificateDer<'static>>, PgError> {
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        let errors: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
        return Err(tls(format!("the system has no root certificates: {}", errors.join("; "))));
    }
    Ok(found.certs)
}

fn read_roots(path: &Path) -> Result<Vec<CertificateDer<'static>>, PgError> {
    let certificates = read_certificates(path, "root certificate file")?;
    let mut store = RootCertStore::empty();
    if store.add_parsable_certificates(certificates.iter().cloned()).0 == 0 {
        return Err(tls(format!("no usable certificate in \"{}\"", path.display())));
    }
    Ok(certificates)
}

/// Like libpq, an absent `root.crl` is none; unlike it, a file that was named must be there.
fn read_revoked(
    list: &RevocationList,
) -> Result<Vec<CertificateRevocationListDer<'static>>, PgError> {
    let unreadable = |problem: String| {
        tls(format!("certificate revocation list \"{}\": {problem}", list.file.display()))
    };
    let pem = match std::fs::read(&list.file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && !list.explicit => {
            return Ok(Vec::new());
        }
        read => read.map_err(|error| unreadable(error.to_string()))?,
    };
    let lists: Vec<CertificateRevocationListDer<'static>> =
        CertificateRevocationListDer::pem_slice_iter(&pem)
            .collect::<Result<_, _>>()
            .map_err(|error| unreadable(error.to_string()))?;
    if lists.is_empty() {
        return Err(unreadable("no list in it".to_owned()));
    }
    Ok(lists)
}

fn read_certificates(path: &Path, what: &str) -> Result<Vec<CertificateDer<'static>>, PgError> {
    let unreadable = |problem: String| tls(format!("{what} \"{}\": {problem}", path.display()));
    let pem = std::fs::read(path).map_err(|error| unreadable(error.to_string()))?;
    let certificates: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|error| unreadable(error.to_string()))?;
    if certificates.is_empty() {
        return Err(unreadable("no certificate in it".to_owned()));
    }
    Ok(certificates)
}

/// A certificate in `~/.postgresql` is optional, one named in the connection string is not.
fn with_client_certificate(
    builder: ConfigBuilder<ClientConfig, WantsClientCert>,
    client: Option<&ClientCertificate>,
) -> Result<ClientConfig, PgError> {
    match client {
        Some(client) if client.explicit || client.certificate.exists() => {
            let chain = read_certificates(&client.certificate, "certificate file")?;
            let key = read_key(&client.key)?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| tls(format!("client certificate: {error}")))
        }
        _ => Ok(builder.with_no_client_auth()),
    }
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, PgError> {
    let unusable =
        |problem: String| tls(format!("private key file \"{}\": {problem}", path.display()));
    check_key_mode(path)
        .map_err(|error| unusable(error.to_string()))?
        .map_or(Ok(()), |problem| Err(unusable(problem)))?;
    PrivateKeyDer::from_pem_file(path)
        .map_err(|error| unusable(format!("no unencrypted private key: {error}")))
}

/// A key of root's may be readable by its group, any other only by its owner
/// (`initialize_SSL`, fe-secure-openssl.c).
fn check_key_mode(path: &Path) -> io::Result<Option<String>> {
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::metadata(path)?;
    let (forbidden, allowed) = if metadata.uid() == 0 { (0o037, "0640") } else { (0o077, "0600") };
    let mode = metadata.mode() & 0o7777;
    Ok((mode & forbidden != 0)
        .then(|| format!("its mode is {mode:04o}, and {allowed} or less is required")))
}

/// Asks for TLS (or, if `direct`, just starts it) and shakes hands.
pub(crate) async fn negotiate(
    mut stream: Stream,
    address: &Address,
    settings: &TlsSettings,
    config: Arc<ClientConfig>,
) -> Result<Negotiated, PgError> {
    if !settings.direct && !request(&mut stream).await? {
        if settings.mode >= SslMode::Require {
            return Err(tls("sslmode asks for TLS, and the server has none (SHOW ssl)"));
        }
        return Ok(Negotiated::Plain(stream));
    }
    let name = server_name(address, settings.mode)?;
    let stream = TlsConnector::from(config)
        .connect(name, stream)
        .await
        .map_err(|error| tls(format!("TLS handshake failed: {error}")))?;
    let session = stream.get_ref().1;
    if settings.direct && session.alpn_protocol() != Some(ALPN) {
        return Err(tls("the server does not know direct TLS, which needs PostgreSQL 17"));
    }
    let leaf = session.peer_certificates().and_then(<[_]>::first);
    let endpoint = leaf.and_then(certificate::endpoint_hash);
    Ok(Negotiated::Encrypted { stream: Box::new(stream), endpoint })
}

/// Sends `SSLRequest` and says whether the server agrees. Exactly one byte is read, so that
/// nothing a stranger injected before the handshake can pass for the server's words.
async fn request(stream: &mut Stream) -> Result<bool, PgError> {
    let mut request = bytes::BytesMut::new();
    postgres_protocol::message::frontend::ssl_request(&mut request);
    stream.write_all(&request).await.map_err(PgError::Unreachable)?;
    stream.flush().await.map_err(PgError::Unreachable)?;
    match stream.read_u8().await {
        Ok(b'S') => Ok(true),
        Ok(b'N') => Ok(false),
        // An error message in clear could be anybody's, and is not shown.
        Ok(b'E') => Err(tls("the server answered the request for TLS with an error")),
        Ok(other) => Err(PgError::Protocol(format!("answer {other:#04x} to the request for TLS"))),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Err(PgError::lost("the server closed the connection when asked for TLS"))
        }
        Err(error) => Err(PgError::Unreachable(error)),
    }
}

/// The name a certificate is checked against and, unless it is an address, sent as SNI.
fn server_name(address: &Address, mode: SslMode) -> Result<ServerName<'static>, PgError> {
    let Address::Tcp { name, socket } = address else {
        return Err(tls("there is no TLS over Unix sockets"));
    };
    match ServerName::try_from(name.clone()) {
        Ok(name) => Ok(name),
        Err(_) if mode < SslMode::VerifyFull => Ok(ServerName::from(socket.ip())),
        Err(_) => Err(tls(format!("\"{name}\" is no name a certificate can have"))),
    }
}
