//! Certificates of peers that are accepted, in both directions, and the messages about others.
//!
//! A certificate is accepted if one of the authorities signed it (PS3.15 B.12), or if the
//! certificate itself is trusted. It is trusted if it is in the file of authorities, or if the
//! table of peers names its SHA-256. This is meant for self-signed certificates. `openssl req
//! -x509` marks them as certificates of an authority. A chain must not end with such a certificate,
//! so they are not checked as chains.
//!
//! A trusted certificate must be equal byte for byte. Its dates and purposes are checked, and the
//! peer proves in the handshake that it has the key. It vouches for no other certificate, unless it
//! is one of an authority (RFC 5280 4.2.1.9).

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::str::FromStr;
use std::sync::Arc;

use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::client::verify_server_name;
use tokio_rustls::rustls::crypto::{self, CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use tokio_rustls::rustls::server::{ParsedCertificate, VerifierBuilderError, WebPkiClientVerifier};
use tokio_rustls::rustls::{
    self, AlertDescription, CertificateError, DigitallySignedStruct, DistinguishedName, InvalidMessage, OtherError,
    RootCertStore, SignatureScheme,
};

use crate::model::checksum::sha256;
use crate::ul::x509::{Certificate, Purpose, Unfit};

/// Name of a certificate in the table of peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateId {
    /// The SHA-256 of the whole certificate.
    Sha256([u8; 32]),
    /// The Common Name of its subject.
    CommonName(String),
    /// A DNS name among the alternative names of its subject, in lower case.
    DnsName(String),
}

/// The text does not name a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a certificate is named as sha256:… (64 hexadecimal digits), cn:… or dns:…")]
pub struct CertificateIdError;

impl FromStr for CertificateId {
    type Err = CertificateIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (kind, name) = text.trim().split_once(':').ok_or(CertificateIdError)?;
        match kind.to_ascii_lowercase().as_str() {
            "sha256" => {
                // As openssl prints it, with or without colons.
                let digits: Vec<u8> = name.bytes().filter(|byte| *byte != b':').collect();
                let mut bytes = [0; 32];
                if digits.len() != 64 || !digits.iter().all(u8::is_ascii_hexdigit) {
                    return Err(CertificateIdError);
                }
                for (byte, digits) in bytes.iter_mut().zip(digits.chunks(2)) {
                    let digits = std::str::from_utf8(digits).map_err(|_| CertificateIdError)?;
                    *byte = u8::from_str_radix(digits, 16).map_err(|_| CertificateIdError)?;
                }
                Ok(Self::Sha256(bytes))
            }
            "cn" if !name.is_empty() => Ok(Self::CommonName(name.to_owned())),
            "dns" if !name.is_empty() => Ok(Self::DnsName(name.to_ascii_lowercase())),
            _ => Err(CertificateIdError),
        }
    }
}

/// A certificate that a peer presented. Its chain and its dates were checked in the handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerCertificate {
    sha256: [u8; 32],
    /// Names count only if an authority has signed them.
    common_names: Vec<String>,
    dns_names: Vec<String>,
    /// Whether it is accepted only for its SHA-256.
    pinned_only: bool,
}

impl PeerCertificate {
    fn of(certificate: &CertificateDer<'_>) -> Result<Self, Unfit> {
        let parsed = Certificate::parse(certificate)?;
        let (common_names, dns_names) = (parsed.common_names(), parsed.dns_names());
        Ok(Self { sha256: sha256(certificate), common_names, dns_names, pinned_only: false })
    }

    /// Whether it is one of these. A certificate that is accepted only for its SHA-256 could claim
    /// any name.
    #[must_use]
    pub fn is_one_of(&self, known: &[CertificateId]) -> bool {
        known.iter().any(|known| match known {
            CertificateId::Sha256(bytes) => *bytes == self.sha256,
            CertificateId::CommonName(name) => !self.pinned_only && self.common_names.contains(name),
            CertificateId::DnsName(name) => !self.pinned_only && self.dns_names.contains(name),
        })
    }

    /// Whether it is accepted only for the AE titles to which it is bound.
    #[must_use]
    pub fn is_pinned_only(&self) -> bool {
        self.pinned_only
    }
}

/// The trusted certificates.
pub(crate) struct Trust {
    pub(crate) provider: Arc<CryptoProvider>,
    /// Authorities, which sign other certificates.
    roots: Arc<RootCertStore>,
    /// The certificates of the file of authorities, byte for byte.
    listed: HashSet<Vec<u8>>,
    /// Subjects of the listed certificates that are no authorities.
    subjects: Vec<DistinguishedName>,
    pinned: HashSet<[u8; 32]>,
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trust").field("listed", &self.listed.len()).finish_non_exhaustive()
    }
}

impl Trust {
    /// # Errors
    /// When a certificate cannot be used.
    pub(crate) fn new(authorities: &[CertificateDer<'static>], pinned: Vec<[u8; 32]>) -> Result<Self, rustls::Error> {
        let mut roots = RootCertStore::empty();
        let mut subjects = Vec::new();
        for certificate in authorities {
            let parsed = Certificate::parse(certificate).map_err(|_| CertificateError::BadEncoding)?;
            if parsed.may_sign_others() {
                roots.add(certificate.clone())?;
            } else {
                subjects.push(parsed.subject().to_vec().into());
            }
        }
        let listed = authorities.iter().map(|certificate| certificate.to_vec()).collect();
        let (roots, provider) = (Arc::new(roots), Arc::new(crypto::ring::default_provider()));
        Ok(Self { provider, roots, listed, subjects, pinned: pinned.into_iter().collect() })
    }

    /// Returns the certificate that a calling peer presented, after the handshake.
    pub(crate) fn shown(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
    ) -> Result<PeerCertificate, Unfit> {
        let shown = PeerCertificate::of(certificate)?;
        let is_pinned = self.pinned.contains(&shown.sha256) && !self.listed.contains(certificate.as_ref());
        let pinned_only = is_pinned && !self.has_signed(certificate, others);
        Ok(PeerCertificate { pinned_only, ..shown })
    }

    /// Whether an authority vouches for the certificate of a calling peer.
    fn has_signed(&self, certificate: &CertificateDer<'_>, others: &[CertificateDer<'_>]) -> bool {
        let verifier = self.chains().ok().flatten();
        verifier.is_some_and(|verifier| verifier.verify_client_cert(certificate, others, UnixTime::now()).is_ok())
    }

    /// Returns the verifier for chains of calling peers. `None` without an authority.
    fn chains(&self) -> Result<Option<Arc<dyn ClientCertVerifier>>, VerifierBuilderError> {
        if self.roots.is_empty() {
            return Ok(None);
        }
        WebPkiClientVerifier::builder_with_provider(Arc::clone(&self.roots), Arc::clone(&self.provider))
            .build()
            .map(Some)
    }
}

/// Checks the dates and the purpose of a trusted certificate.
fn check(certificate: &CertificateDer<'_>, now: UnixTime, purpose: Purpose) -> Result<(), rustls::Error> {
    let checked = Certificate::parse(certificate).and_then(|parsed| parsed.check(now.as_secs(), purpose));
    checked.map_err(|unfit| match unfit {
        Unfit::Expired => CertificateError::Expired.into(),
        Unfit::NotYetValid => CertificateError::NotValidYet.into(),
        Unfit::Encoding => CertificateError::BadEncoding.into(),
        Unfit::Purpose => CertificateError::InvalidPurpose.into(),
        unfit @ (Unfit::Signature | Unfit::Key) => CertificateError::Other(OtherError(Arc::new(unfit))).into(),
    })
}

/// The methods that both verifiers of rustls need for signatures. The provider does the work.
macro_rules! checks_signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            verify_tls12_signature(
                message,
                certificate,
                signature,
                &self.trust.provider.signature_verification_algorithms,
            )
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            verify_tls13_signature(
                message,
                certificate,
                signature,
                &self.trust.provider.signature_verification_algorithms,
            )
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.trust.provider.signature_verification_algorithms.supported_schemes()
        }
    };
}

/// Verifies the certificate of a calling peer.
#[derive(Debug)]
pub(crate) struct OfCaller {
    trust: Arc<Trust>,
    chains: Option<Arc<dyn ClientCertVerifier>>,
    optional: bool,
    hints: Vec<DistinguishedName>,
}

impl OfCaller {
    /// # Errors
    /// When the authorities cannot be used.
    pub(crate) fn new(trust: Arc<Trust>, optional: bool) -> Result<Self, VerifierBuilderError> {
        let chains = trust.chains()?;
        // RFC 8446 4.2.4: without names, the peer presents any certificate. The names of pinned
        // certificates are not known.
        let hints = if trust.pinned.is_empty() {
            let authorities = chains.as_ref().map(|chains| chains.root_hint_subjects()).unwrap_or_default();
            [authorities, &trust.subjects].concat()
        } else {
            Vec::new()
        };
        Ok(Self { trust, chains, optional, hints })
    }
}

impl ClientCertVerifier for OfCaller {
    fn client_auth_mandatory(&self) -> bool {
        !self.optional
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        if self.trust.listed.contains(end_entity.as_ref()) || self.trust.pinned.contains(&sha256(end_entity)) {
            check(end_entity, now, Purpose::Client)?;
            return Ok(ClientCertVerified::assertion());
        }
        match &self.chains {
            Some(chains) => chains.verify_client_cert(end_entity, intermediates, now),
            None => Err(CertificateError::UnknownIssuer.into()),
        }
    }

    checks_signatures!();
}

/// Verifies the certificate of a destination.
#[derive(Debug)]
pub(crate) struct OfDestination {
    certificates: Vec<CertificateId>,
    trust: Arc<Trust>,
}

impl OfDestination {
    pub(crate) fn new(certificates: Vec<CertificateId>, trust: Arc<Trust>) -> Self {
        Self { certificates, trust }
    }
}

impl ServerCertVerifier for OfDestination {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let pin = CertificateId::Sha256(sha256(end_entity));
        if self.certificates.contains(&pin) {
            check(end_entity, now, Purpose::Server)?;
            return Ok(ServerCertVerified::assertion());
        }
        let parsed = ParsedCertificate::try_from(end_entity)?;
        if self.trust.listed.contains(end_entity.as_ref()) {
            check(end_entity, now, Purpose::Server)?;
        } else {
            rustls::client::verify_server_cert_signed_by_trust_anchor(
                &parsed,
                &self.trust.roots,
                intermediates,
                now,
                self.trust.provider.signature_verification_algorithms.all,
            )?;
        }
        if self.certificates.is_empty() {
            verify_server_name(&parsed, server_name)?;
        } else {
            let shown = PeerCertificate::of(end_entity).map_err(|_| CertificateError::BadEncoding)?;
            if !shown.is_one_of(&self.certificates) {
                return Err(CertificateError::NotValidForName.into());
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    checks_signatures!();
}

/// The text for a peer without TLS.
pub(crate) const SPEAKS_NO_TLS: &str = "the peer does not speak TLS; without TLS it needs another port";

/// Whether a handshake failed because the peer does not speak TLS.
pub(crate) fn speaks_no_tls(error: &io::Error) -> bool {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(tls, Some(rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType)))
}

/// Whether a connection was closed before the handshake, as a check of an open port does.
pub(crate) fn is_only_closed(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset)
}

/// Describes why a handshake failed, for the operator of the node. Nothing of it comes from the
/// peer.
pub(crate) fn handshake_failure(error: &io::Error) -> String {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(why)) => format!("the certificate of the peer {}", refusal(why)),
        Some(rustls::Error::NoCertificatesPresented) => "the peer showed no certificate".to_owned(),
        Some(rustls::Error::AlertReceived(alert)) => match alert {
            AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateExpired
            | AlertDescription::UnsupportedCertificate => {
                format!("the peer does not take our certificate ({alert:?}); `dcmdex config check` tries it")
            }
            alert => format!("the peer ended it ({alert:?})"),
        },
        Some(rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType)) => SPEAKS_NO_TLS.to_owned(),
        Some(other) => other.to_string(),
        None => error.to_string(),
    }
}

/// Describes what is wrong with a certificate, and what to do.
pub(crate) fn refusal(why: &CertificateError) -> String {
    // Some variants are deprecated, and new ones will come. The ones that peers meet have a text
    // here.
    let text = match why {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "has expired",
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => "is not valid yet",
        CertificateError::UnknownIssuer => {
            "comes from no authority of `tls.authorities`; add its authority there, or the certificate itself"
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "is for another name than its host, and `certificates` of the peer does not name it"
        }
        CertificateError::BadSignature => {
            "is signed wrongly, or has an RSA key of less than 2,048 bits, which is not taken (RFC 9325)"
        }
        CertificateError::UnsupportedSignatureAlgorithmContext { .. }
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            "is signed in a way that is not taken any more, such as SHA-1 (RFC 9325); it needs a new one"
        }
        CertificateError::BadEncoding => "cannot be read, or is of X.509 version 1",
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "is not made for this side of a connection (extended key usage)"
        }
        CertificateError::Other(OtherError(inner)) => match inner.downcast_ref::<webpki::Error>() {
            Some(webpki::Error::CaUsedAsEndEntity) => {
                "is one of an authority, as `openssl req -x509` makes them; add the certificate itself to \
                 `tls.authorities`, or its SHA-256 to `certificates` of the peer"
            }
            Some(webpki::Error::UnsupportedCertVersion) => {
                "is of X.509 version 1, which is not taken; `openssl x509 -req` makes version 3 only with -extfile"
            }
            _ => return format!("is refused: {inner}"),
        },
        other => return format!("is refused: {other}"),
    };
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_named_by_digest_common_name_or_dns_name() {
        let colons = vec!["AB"; 32].join(":");
        assert_eq!(format!("sha256:{colons}").parse(), Ok(CertificateId::Sha256([0xAB; 32])));
        assert_eq!(format!("SHA256:{}", "0c".repeat(32)).parse(), Ok(CertificateId::Sha256([0x0C; 32])));
        assert_eq!("cn:CT 1: north".parse(), Ok(CertificateId::CommonName("CT 1: north".into())));
        assert_eq!("dns:CT1.Example".parse(), Ok(CertificateId::DnsName("ct1.example".into())));
        for wrong in ["", "CT1", "cn:", "dns:", "sha1:00", "sha256:00", &format!("sha256:{}", "+1".repeat(32))] {
            assert_eq!(wrong.parse::<CertificateId>(), Err(CertificateIdError), "{wrong}");
        }
    }

    #[test]
    fn names_of_a_subject_are_found() {
        let mut params = rcgen::CertificateParams::new(vec!["A.example".to_owned()]).unwrap();
        params.distinguished_name.push(rcgen::DnType::OrganizationName, "North");
        params.distinguished_name.push(rcgen::DnType::CommonName, "CT1");
        let made = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
        let certificate = PeerCertificate::of(made.der()).unwrap();
        let known = |certificate: &PeerCertificate, text: &str| certificate.is_one_of(&[text.parse().unwrap()]);
        assert!(known(&certificate, "cn:CT1") && known(&certificate, "dns:a.EXAMPLE"));
        for other in ["cn:North", "cn:CT", "dns:CT1"] {
            assert!(!known(&certificate, other), "{other}");
        }
        let digest: String = sha256(made.der()).iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(known(&certificate, &format!("sha256:{digest}")));
        // A certificate that no authority signed may claim any name.
        let pinned = PeerCertificate { pinned_only: true, ..certificate };
        assert!(known(&pinned, &format!("sha256:{digest}")) && !known(&pinned, "cn:CT1"));
    }
}
