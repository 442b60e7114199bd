use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{
    WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
    verify_tls13_signature_with_raw_key,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::certificate;

/// What of a server's certificate is checked.
#[derive(Debug)]
pub(super) enum Verification {
    /// Nothing: TLS keeps listeners out, not impostors.
    Nothing,
    /// That one of these signed it, or that it is one of them.
    Authority(Vec<CertificateDer<'static>>),
    /// And that it is for the host.
    AuthorityAndName(Vec<CertificateDer<'static>>),
}

/// Checks a server's certificate as `sslmode` asks for, with libpq's ideas of a name.
#[derive(Debug)]
pub(super) struct ServerVerifier {
    verification: Verification,
    store: RootCertStore,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerVerifier {
    pub(super) fn new(verification: Verification, algorithms: WebPkiSupportedAlgorithms) -> Self {
        let mut store = RootCertStore::empty();
        match &verification {
            Verification::Nothing => {}
            Verification::Authority(roots) | Verification::AuthorityAndName(roots) => {
                store.add_parsable_certificates(roots.iter().cloned());
            }
        }
        Self { verification, store, algorithms }
    }

    /// A certificate that is itself among the trusted ones needs no signature: self-signed server
    /// certificates are distributed that way, and webpki takes none of them as an end entity.
    fn check_authority(
        &self,
        roots: &[CertificateDer<'_>],
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        if !roots.contains(leaf) {
            let parsed = ParsedCertificate::try_from(leaf)?;
            return verify_server_cert_signed_by_trust_anchor(
                &parsed,
                &self.store,
                intermediates,
                now,
                self.algorithms.all,
            );
        }
        let unix_time = std::time::Duration::from_secs(now.as_secs());
        match certificate::is_valid_at(leaf, unix_time) {
            Some(true) => Ok(()),
            Some(false) => Err(CertificateError::Expired.into()),
            None => Err(CertificateError::BadEncoding.into()),
        }
    }
}

fn check_name(leaf: &CertificateDer<'_>, name: &ServerName<'_>) -> Result<(), Error> {
    let parsed = ParsedCertificate::try_from(leaf)?;
    verify_server_name(&parsed, name).or_else(|error| {
        let common_name = certificate::sole_common_name(leaf);
        if common_name.is_some_and(|common| certificate::name_matches(&common, &name.to_str())) {
            Ok(())
        } else {
            Err(error)
        }
    })
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match &self.verification {
            Verification::Nothing => {}
            Verification::Authority(roots) => {
                self.check_authority(roots, end_entity, intermediates, now)?;
            }
            Verification::AuthorityAndName(roots) => {
                self.check_authority(roots, end_entity, intermediates, now)?;
                check_name(end_entity, server_name)?;
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match verify_tls13_signature(message, cert, dss, &self.algorithms) {
            // What `openssl x509 -req` of OpenSSL 3.0 issues by default. webpki trusts no such
            // certificate, but where none is to be trusted its key is good enough.
            Err(error) => {
                let key = certificate::version_1_key(cert).ok_or(error)?;
                verify_tls13_signature_with_raw_key(message, &key, dss, &self.algorithms)
            }
            verified => verified,
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
