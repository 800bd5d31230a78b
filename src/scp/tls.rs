//! DICOM over TLS (PS3.15 B.12, "BCP 195 RFC 8996, 9325 TLS Secure Transport Connection Profile"): TLS 1.2 and 1.3, both sides
//! with certificates, nothing older.
//!
//! [`Tls`] holds what both directions need: the listener that peers call, and the connections that C-MOVE opens to
//! destinations. [`SharedTls`] can be replaced while the node runs.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::str::FromStr;
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll};

use ring::digest;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::client::verify_server_name;
use tokio_rustls::rustls::crypto::{self, CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use tokio_rustls::rustls::{
    self, ALL_VERSIONS, CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig,
    SignatureScheme,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use super::peers::Destination;
use super::wire::{Stream, acknowledge_at_once};

/// Whether peers have to show a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientCertificates {
    /// Yes, as B.12 has it.
    Required,
    /// Only those that the table of peers binds to one: the others are encrypted, not known.
    Optional,
}

/// Where certificates are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Our certificate and those between it and its authority, PEM.
    pub certificate: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
    /// The authorities whose certificates peers may have, PEM.
    pub authorities: PathBuf,
    /// Whether peers have to have one.
    pub client_certificates: ClientCertificates,
}

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read, or has not what is wanted of it.
    #[error("{} has no {what} that can be read", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What it should have.
        what: &'static str,
        /// Why.
        source: pem::Error,
    },
    /// An authority's certificate cannot be used.
    #[error("{} has a certificate that is none of an authority", path.display())]
    Authority {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// Authorities cannot be used for peers.
    #[error("the authorities cannot be used")]
    Authorities(#[source] rustls::server::VerifierBuilderError),
    /// Key and certificate cannot be used, or not together.
    #[error("certificate and key cannot be used")]
    Identity(#[source] rustls::Error),
}

/// What is needed to speak TLS, read and checked.
#[derive(Clone)]
pub struct Tls {
    server: Arc<ServerConfig>,
    provider: Arc<CryptoProvider>,
    roots: Arc<RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    key: Arc<PrivateKeyDer<'static>>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("authorities", &self.roots.len()).finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads certificates and key.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn load(options: &Options) -> Result<Self, Error> {
        let provider = Arc::new(crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&options.authorities)? {
            let added = roots.add(certificate);
            added.map_err(|source| Error::Authority { path: options.authorities.clone(), source })?;
        }
        let roots = Arc::new(roots);
        let chain = certificates(&options.certificate)?;
        let key = PrivateKeyDer::from_pem_file(&options.key).map_err(|source| Error::File {
            path: options.key.clone(),
            what: "private key",
            source,
        })?;
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider));
        let verifier = match options.client_certificates {
            ClientCertificates::Required => verifier,
            ClientCertificates::Optional => verifier.allow_unauthenticated(),
        };
        let verifier = verifier.build().map_err(Error::Authorities)?;
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(ALL_VERSIONS)
            .map_err(Error::Identity)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain.clone(), key.clone_key())
            .map_err(Error::Identity)?;
        let tls = Self { server: Arc::new(server), provider, roots, chain, key: Arc::new(key) };
        // So that a wrong key is found now, not at the first C-MOVE.
        tls.client(Vec::new())?;
        Ok(tls)
    }

    fn client(&self, certificates: Vec<CertificateId>) -> Result<ClientConfig, Error> {
        let verifier =
            OfDestination { certificates, roots: Arc::clone(&self.roots), provider: Arc::clone(&self.provider) };
        ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(ALL_VERSIONS)
            .map_err(Error::Identity)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_auth_cert(self.chain.clone(), self.key.clone_key())
            .map_err(Error::Identity)
    }

    /// The handshake of a peer that called. The caller sets the time for it.
    pub(super) async fn accept(&self, stream: TcpStream) -> io::Result<(Stream, Option<PeerCertificate>)> {
        let acceptor = TlsAcceptor::from(Arc::clone(&self.server));
        let stream = acceptor.accept(AcknowledgesAtOnce(stream)).await?;
        let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let certificate = shown.map(PeerCertificate::of).transpose().map_err(io::Error::other)?;
        Ok((Stream::Tls(Box::new(TlsStream::Server(stream))), certificate))
    }

    /// The handshake with a destination of C-MOVE. Its certificate has to come from one of the authorities, and to be bound to
    /// its AE title in the table of peers or else to be that of its host. The caller sets the time for it.
    ///
    /// # Errors
    /// When the handshake fails: a certificate that is not right, or a destination that does not speak TLS.
    pub async fn connect(
        &self,
        destination: &Destination,
        stream: TcpStream,
    ) -> io::Result<TlsStream<AcknowledgesAtOnce>> {
        let client = self.client(destination.certificates.clone()).map_err(io::Error::other)?;
        let name = ServerName::try_from(destination.address.host.clone()).map_err(io::Error::other)?;
        let stream = TlsConnector::from(Arc::new(client)).connect(name, AcknowledgesAtOnce(stream)).await?;
        Ok(TlsStream::Client(stream))
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let failed = |source| Error::File { path: path.to_owned(), what: "certificate", source };
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).map_err(failed)?.collect();
    let found = found.map_err(failed)?;
    if found.is_empty() { Err(failed(pem::Error::NoItemsFound)) } else { Ok(found) }
}

/// The certificates in use now.
#[derive(Clone, Debug)]
pub struct SharedTls(Arc<RwLock<Arc<Tls>>>);

impl SharedTls {
    /// These, until they are replaced.
    #[must_use]
    pub fn new(tls: Tls) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(tls))))
    }

    /// Those of now.
    #[must_use]
    pub fn current(&self) -> Arc<Tls> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes others from the next handshake on.
    pub fn replace(&self, tls: Tls) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(tls);
    }
}

/// By what a certificate is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateId {
    /// The SHA-256 of the whole certificate.
    Sha256([u8; 32]),
    /// The Common Name of its subject.
    CommonName(String),
    /// A DNS name among the alternative names of its subject; case does not count.
    DnsName(String),
}

/// Why a text does not say by what a certificate is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a certificate is named as sha256:… (64 hexadecimal digits), cn:… or dns:…")]
pub struct CertificateIdError;

impl FromStr for CertificateId {
    type Err = CertificateIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (kind, name) = text.trim().split_once(':').ok_or(CertificateIdError)?;
        match kind.to_ascii_lowercase().as_str() {
            "sha256" => {
                // As openssl prints it, or without the colons.
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

/// What a peer has shown. Its chain and its dates were checked in the handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerCertificate {
    sha256: [u8; 32],
    common_names: Vec<String>,
    dns_names: Vec<String>,
}

impl PeerCertificate {
    fn of(certificate: &CertificateDer<'_>) -> Result<Self, webpki::Error> {
        let parsed = webpki::EndEntityCert::try_from(certificate)?;
        let digest = digest::digest(&digest::SHA256, certificate);
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(digest.as_ref());
        Ok(Self {
            sha256,
            common_names: common_names(parsed.subject()),
            dns_names: parsed.valid_dns_names().map(str::to_ascii_lowercase).collect(),
        })
    }

    /// Whether it is one of these.
    #[must_use]
    pub fn is_one_of(&self, known: &[CertificateId]) -> bool {
        known.iter().any(|known| match known {
            CertificateId::Sha256(bytes) => *bytes == self.sha256,
            CertificateId::CommonName(name) => self.common_names.contains(name),
            CertificateId::DnsName(name) => self.dns_names.contains(name),
        })
    }
}

/// The Common Names in the content of an X.501 Name: a sequence of sets of sequences of an object identifier and a text.
fn common_names(mut name: &[u8]) -> Vec<String> {
    const SET: u8 = 0x31;
    const SEQUENCE: u8 = 0x30;
    const OBJECT_IDENTIFIER: u8 = 0x06;
    /// 2.5.4.3
    const COMMON_NAME: [u8; 3] = [0x55, 0x04, 0x03];
    /// UTF8String, PrintableString, TeletexString and IA5String. Of the others ASCII is not written as such.
    const TEXTS: [u8; 4] = [0x0C, 0x13, 0x14, 0x16];
    let mut names = Vec::new();
    while let Some((SET, mut set, rest)) = der(name) {
        name = rest;
        while let Some((SEQUENCE, pair, rest)) = der(set) {
            set = rest;
            if let Some((OBJECT_IDENTIFIER, kind, value)) = der(pair)
                && kind == COMMON_NAME
                && let Some((tag, text, _)) = der(value)
                && TEXTS.contains(&tag)
                && let Ok(text) = std::str::from_utf8(text)
            {
                names.push(text.to_owned());
            }
        }
    }
    names
}

/// The tag and the content of the first element, and what follows it. Definite lengths up to 64 KiB.
fn der(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (length, rest) = match rest {
        [length @ 0..=0x7F, rest @ ..] => (usize::from(*length), rest),
        [0x81, length, rest @ ..] => (usize::from(*length), rest),
        [0x82, high, low, rest @ ..] => (usize::from(u16::from_be_bytes([*high, *low])), rest),
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// Checks the certificate of a destination.
#[derive(Debug)]
struct OfDestination {
    certificates: Vec<CertificateId>,
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
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
        let parsed = ParsedCertificate::try_from(end_entity)?;
        rustls::client::verify_server_cert_signed_by_trust_anchor(
            &parsed,
            &self.roots,
            intermediates,
            now,
            self.provider.signature_verification_algorithms.all,
        )?;
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

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// A connection on which the kernel acknowledges at once, below TLS: see `acknowledge_at_once` of `wire`.
#[derive(Debug)]
pub struct AcknowledgesAtOnce(pub(super) TcpStream);

impl AsyncRead for AcknowledgesAtOnce {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        acknowledge_at_once(&self.0);
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for AcknowledgesAtOnce {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
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
    fn names_of_a_subject_are_found_and_nothing_is_read_past_the_end() {
        let mut params = rcgen::CertificateParams::new(vec!["A.example".to_owned()]).unwrap();
        params.distinguished_name.push(rcgen::DnType::OrganizationName, "North");
        params.distinguished_name.push(rcgen::DnType::CommonName, "CT1");
        let key = rcgen::KeyPair::generate().unwrap();
        let made = params.self_signed(&key).unwrap();
        let certificate = PeerCertificate::of(made.der()).unwrap();
        let known = |text: &str| certificate.is_one_of(&[text.parse().unwrap()]);
        assert!(
            known("cn:CT1") && known("dns:a.EXAMPLE") && !known("cn:North") && !known("cn:CT") && !known("dns:CT1")
        );
        let digest = digest::digest(&digest::SHA256, made.der());
        let digest: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(known(&format!("sha256:{digest}")));
        let parsed = webpki::EndEntityCert::try_from(made.der()).unwrap();
        assert_eq!(common_names(parsed.subject()), ["CT1"]);
        // Cut anywhere: the whole name or none.
        for cut in 0..parsed.subject().len() {
            let names = common_names(&parsed.subject()[..cut]);
            assert!(names.is_empty() || names == ["CT1"], "{names:?}");
        }
    }
}
