use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
    verify_tls13_signature_with_raw_key,
};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::certificate;
use crate::PgError;

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
    /// Checks who signed a certificate, and whether that was taken back; `None` if nothing is to be
    /// checked.
    authority: Option<Arc<WebPkiServerVerifier>>,
    revoked: Vec<CertificateRevocationListDer<'static>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerVerifier {
    /// Every certificate of a chain must be covered by one of the lists `revoked`, none of which may
    /// have expired, as with OpenSSL's `X509_V_FLAG_CRL_CHECK_ALL`. No list means no such check.
    pub(super) fn new(
        verification: Verification,
        revoked: Vec<CertificateRevocationListDer<'static>>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, PgError> {
        let authority = match &verification {
            Verification::Nothing => None,
            Verification::Authority(roots) | Verification::AuthorityAndName(roots) => {
                let mut store = RootCertStore::empty();
                store.add_parsable_certificates(roots.iter().cloned());
                let builder =
                    WebPkiServerVerifier::builder_with_provider(store.into(), Arc::clone(provider))
                        .with_crls(revoked.iter().cloned())
                        .enforce_revocation_expiration();
                let built = builder.build();
                Some(built.map_err(|error| {
                    PgError::Tls(format!(
                        "checking certificates: {error} (a revocation list must be of version 2, as \
                         `openssl ca -gencrl` makes it with crlnumber)"
                    ))
                })?)
            }
        };
        let algorithms = provider.signature_verification_algorithms;
        Ok(Self { verification, authority, revoked, algorithms })
    }

    /// A certificate that is itself among the trusted ones needs no signature: self-signed server
    /// certificates are distributed that way, and webpki takes none of them as an end entity.
    fn check_authority(
        &self,
        roots: &[CertificateDer<'_>],
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), Error> {
        if let (false, Some(authority)) = (roots.contains(leaf), &self.authority) {
            return match authority.verify_server_cert(leaf, intermediates, name, &[], now) {
                // The name comes last, and is checked apart from this if it is to be checked.
                Ok(_)
                | Err(Error::InvalidCertificate(
                    CertificateError::NotValidForName
                    | CertificateError::NotValidForNameContext { .. },
                )) => Ok(()),
                Err(error) => Err(error),
            };
        }
        if !self.revoked.is_empty() && !certificate::is_spared(leaf, &self.revoked) {
            return Err(CertificateError::Revoked.into());
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
                self.check_authority(roots, end_entity, intermediates, server_name, now)?;
            }
            Verification::AuthorityAndName(roots) => {
                self.check_authority(roots, end_entity, intermediates, server_name, now)?;
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
