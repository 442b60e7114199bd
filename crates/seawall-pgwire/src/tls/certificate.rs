//! What is read from a server's certificate beyond what rustls checks.

use std::time::Duration;

use aws_lc_rs::digest::{Algorithm, SHA256, SHA384, SHA512, digest};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, SubjectPublicKeyInfoDer};
use x509_cert::certificate::{Certificate, Rfc5280, Version};
use x509_cert::crl::CertificateList;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::{Decode, Encode, Reader, TagMode, TagNumber};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::spki::AlgorithmIdentifierOwned;

const RSASSA_PSS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.10");

/// `tls-server-end-point` of RFC 5929: the certificate hashed as its signature hashes it, but with
/// SHA-256 for MD5 and SHA-1. `None` for signatures that have no separate hash, such as Ed25519.
pub(super) fn endpoint_hash(certificate: &CertificateDer<'_>) -> Option<Vec<u8>> {
    let parsed = Certificate::from_der(certificate).ok()?;
    let algorithm = signature_hash(parsed.signature_algorithm())?;
    Some(digest(algorithm, certificate).as_ref().to_vec())
}

fn signature_hash(signature: &AlgorithmIdentifierOwned) -> Option<&'static Algorithm> {
    if signature.oid == RSASSA_PSS {
        return pss_hash(signature);
    }
    match signature.oid.to_string().as_str() {
        // MD5, SHA-1 and SHA-256 with RSA; SHA-1 and SHA-256 with ECDSA
        "1.2.840.113549.1.1.4" | "1.2.840.113549.1.1.5" | "1.2.840.113549.1.1.11" => Some(&SHA256),
        "1.2.840.10045.4.1" | "1.2.840.10045.4.3.2" => Some(&SHA256),
        "1.2.840.113549.1.1.12" | "1.2.840.10045.4.3.3" => Some(&SHA384),
        "1.2.840.113549.1.1.13" | "1.2.840.10045.4.3.4" => Some(&SHA512),
        _ => None,
    }
}

/// The hash is a parameter of RSASSA-PSS (RFC 4055); absent it is SHA-1.
fn pss_hash(signature: &AlgorithmIdentifierOwned) -> Option<&'static Algorithm> {
    let hash = signature.parameters.as_ref()?.sequence(|reader| {
        let hash =
            reader.context_specific::<AlgorithmIdentifierOwned>(TagNumber(0), TagMode::Explicit)?;
        reader.drain(reader.remaining_len())?;
        Ok::<_, x509_cert::der::Error>(hash)
    });
    let Some(hash) = hash.ok()? else { return Some(&SHA256) };
    match hash.oid.to_string().as_str() {
        "1.3.14.3.2.26" | "2.16.840.1.101.3.4.2.1" => Some(&SHA256),
        "2.16.840.1.101.3.4.2.2" => Some(&SHA384),
        "2.16.840.1.101.3.4.2.3" => Some(&SHA512),
        _ => None,
    }
}

/// The public key, as DER, of a certificate of X.509 version 1.
pub(super) fn version_1_key(
    certificate: &CertificateDer<'_>,
) -> Option<SubjectPublicKeyInfoDer<'static>> {
    let parsed = Certificate::from_der(certificate).ok()?;
    let tbs = parsed.tbs_certificate();
    let key = (tbs.version() == Version::V1).then(|| tbs.subject_public_key_info().to_der())?;
    key.ok().map(SubjectPublicKeyInfoDer::from)
}

/// Whether `unix_time` lies within the certificate's validity; `None` if it cannot be read.
pub(super) fn is_valid_at(certificate: &CertificateDer<'_>, unix_time: Duration) -> Option<bool> {
    let parsed = Certificate::from_der(certificate).ok()?;
    let validity = parsed.tbs_certificate().validity();
    let begin = validity.not_before.to_unix_duration();
    Some((begin..=validity.not_after.to_unix_duration()).contains(&unix_time))
}

/// Whether there is a list of the certificate's own issuer, and the certificate is on none.
pub(super) fn is_spared(
    certificate: &CertificateDer<'_>,
    lists: &[CertificateRevocationListDer<'_>],
) -> bool {
    let Ok(parsed) = Certificate::from_der(certificate) else { return false };
    let tbs = parsed.tbs_certificate();
    let mut covered = false;
    for list in lists {
        let Ok(list) = CertificateList::<Rfc5280>::from_der(list) else { return false };
        let list = list.tbs_cert_list;
        if list.issuer != *tbs.issuer() {
            continue;
        }
        covered = true;
        let revoked = list.revoked_certificates.unwrap_or_default();
        if revoked.iter().any(|revoked| revoked.serial_number == *tbs.serial_number()) {
            return false;
        }
    }
    covered
}

/// The subject's common name, of a certificate that names hosts nowhere else.
///
/// libpq falls back to it (`pgtls_verify_peer_name_matches_certificate_guts`), and the
/// self-signed certificate of PostgreSQL's documentation has no other name.
pub(super) fn sole_common_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let parsed = Certificate::from_der(certificate).ok()?;
    let tbs = parsed.tbs_certificate();
    if let Some((_, names)) = tbs.get_extension::<SubjectAltName>().ok()? {
        let names_host = |name: &GeneralName| {
            matches!(name, GeneralName::DnsName(_) | GeneralName::IpAddress(_))
        };
        if names.0.iter().any(names_host) {
            return None;
        }
    }
    let name = tbs.subject().common_name().ok()??;
    Some(name.value().into_owned())
}

/// Whether a certificate's name fits a host: equal, or a wildcard for its first label
/// (`wildcard_certificate_match`, fe-secure-common.c).
pub(super) fn name_matches(pattern: &str, host: &str) -> bool {
    if pattern.eq_ignore_ascii_case(host) {
        return true;
    }
    match (pattern.strip_prefix("*."), host.split_once('.')) {
        (Some(domain), Some((label, rest))) => {
            !label.is_empty() && domain.contains('.') && domain.eq_ignore_ascii_case(rest)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_wildcard_stands_for_one_label() {
        assert!(name_matches("db.example.com", "DB.example.com"));
        assert!(name_matches("*.example.com", "db.example.com"));
        assert!(!name_matches("*.example.com", "a.db.example.com"));
        assert!(!name_matches("*.example.com", "example.com"));
        assert!(!name_matches("*.example.com", ".example.com"));
        assert!(!name_matches("*.com", "example.com"));
        assert!(!name_matches("d*.example.com", "db.example.com"));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in any::<Vec<u8>>()) {
            let certificate = CertificateDer::from(bytes);
            prop_assert!(endpoint_hash(&certificate).is_none());
            prop_assert!(is_valid_at(&certificate, Duration::ZERO).is_none());
            prop_assert!(sole_common_name(&certificate).is_none());
        }
    }
}
