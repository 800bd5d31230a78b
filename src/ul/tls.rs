//! DICOM over TLS (PS3.15 B.12, "BCP 195 RFC 8996, 9325 TLS Secure Transport Connection Profile"):
//! TLS 1.2 and 1.3, with certificates on both sides.
//!
//! [`Tls`] holds what both directions need: the listener that peers call, and the connections that
//! C-MOVE opens to destinations. [`SharedTls`] can be replaced while the node runs.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::net::TcpStream;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{self, ALL_VERSIONS, ClientConfig, InconsistentKeys, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use crate::ul::certificates::{CertificateId, OfCaller, OfDestination, PeerCertificate, Trust, refusal};
use crate::ul::destination::Destination;
use crate::ul::stream::AcknowledgesAtOnce;
use crate::ul::stream::Stream;

/// Whether peers must present a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientCertificates {
    /// They must, as B.12 demands.
    Required,
    /// Only peers that the table binds to a certificate. The others are encrypted, but their
    /// identity is not proved.
    Optional,
}

/// The files of certificates, and how they are used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The certificate of this node, followed by the intermediate ones up to its authority. PEM.
    pub certificate: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
    /// The authorities that may issue the certificates of peers. PEM.
    pub authorities: PathBuf,
    /// Whether peers must present a certificate.
    pub client_certificates: ClientCertificates,
    /// The SHA-256 of certificates that the table of peers names. They need no authority.
    pub pinned: Vec<[u8; 32]>,
}

/// The reason why TLS cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read, or lacks what it should have.
    #[error("{} has no readable {what}{hint}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Content that it should have.
        what: &'static str,
        /// Advice on what to do, if the file shows it.
        hint: &'static str,
        /// The cause.
        source: pem::Error,
    },
    /// The certificate of an authority cannot be used.
    #[error("{} has a certificate that is not of an authority", path.display())]
    Authority {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: rustls::Error,
    },
    /// The authorities cannot be used for peers.
    #[error("the authorities cannot be used")]
    Authorities(#[source] rustls::server::VerifierBuilderError),
    /// The key belongs to another certificate.
    #[error("the key in {} is not that of the first certificate in {}", key.display(), certificate.display())]
    OtherKey {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file of the key.
        key: PathBuf,
    },
    /// No peer would take the certificate.
    #[error("the first certificate in {} {what}", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// Fault of the certificate.
        what: String,
    },
    /// The key is of a kind that TLS does not use any more.
    #[error(
        "the key in {} cannot be used; hint: it has to be RSA with 2,048 bits or more, ECDSA P-256 or P-384, or Ed25519",
        path.display()
    )]
    Key {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: rustls::Error,
    },
    /// Key and certificate cannot be used, or do not fit together.
    #[error("certificate and key cannot be used")]
    Identity(#[source] rustls::Error),
}

/// Certificates and key, read and checked.
#[derive(Clone)]
pub struct Tls {
    server: Arc<ServerConfig>,
    hl7: Arc<ServerConfig>,
    http: Arc<ServerConfig>,
    trust: Arc<Trust>,
    chain: Vec<CertificateDer<'static>>,
    key: Arc<PrivateKeyDer<'static>>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("trust", &self.trust).finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads certificates and key.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn load(options: &Options) -> Result<Self, Error> {
        let authorities = certificates(&options.authorities)?;
        let trust = |pinned| {
            Trust::new(&authorities, pinned)
                .map(Arc::new)
                .map_err(|source| Error::Authority { path: options.authorities.clone(), source })
        };
        // A certificate that is pinned is valid for the AE title of its peer alone.
        let (trust, of_authorities) = (trust(options.pinned.clone())?, trust(Vec::new())?);
        let chain = certificates(&options.certificate)?;
        let key = PrivateKeyDer::from_pem_file(&options.key)
            .map_err(|source| unreadable(&options.key, "private key", source))?;
        let optional = options.client_certificates == ClientCertificates::Optional;
        let identity = |error| match error {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                Error::OtherKey { certificate: options.certificate.clone(), key: options.key.clone() }
            }
            rustls::Error::InvalidCertificate(why) => {
                Error::Certificate { path: options.certificate.clone(), what: refusal(&why) }
            }
            source => Error::Identity(source),
        };
        let signing = trust.provider.key_provider.load_private_key(key.clone_key());
        signing.map_err(|source| Error::Key { path: options.key.clone(), source })?;
        let callers = |trust: &Arc<Trust>| {
            let verifier = OfCaller::new(Arc::clone(trust), optional).map_err(Error::Authorities)?;
            ServerConfig::builder_with_provider(Arc::clone(&trust.provider))
                .with_protocol_versions(ALL_VERSIONS)
                .map_err(Error::Identity)?
                .with_client_cert_verifier(Arc::new(verifier))
                .with_single_cert(chain.clone(), key.clone_key())
                .map_err(identity)
                .map(Arc::new)
        };
        let (server, hl7) = (callers(&trust)?, callers(&of_authorities)?);
        // Users of HTTP present a password or a token. Browsers and viewers rarely have
        // certificates.
        let mut http = ServerConfig::builder_with_provider(Arc::clone(&trust.provider))
            .with_protocol_versions(ALL_VERSIONS)
            .map_err(Error::Identity)?
            .with_no_client_auth()
            .with_single_cert(chain.clone(), key.clone_key())
            .map_err(Error::Identity)?;
        http.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let tls = Self { server, hl7, http: Arc::new(http), trust, chain, key: Arc::new(key) };
        // A wrong key is found now, and not at the first C-MOVE.
        tls.client(Vec::new())?;
        Ok(tls)
    }

    fn client(&self, certificates: Vec<CertificateId>) -> Result<ClientConfig, Error> {
        let verifier = OfDestination::new(certificates, Arc::clone(&self.trust));
        ClientConfig::builder_with_provider(Arc::clone(&self.trust.provider))
            .with_protocol_versions(ALL_VERSIONS)
            .map_err(Error::Identity)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_auth_cert(self.chain.clone(), self.key.clone_key())
            .map_err(Error::Identity)
    }

    /// Returns the settings for peers that call. They need certificates as the options say.
    #[must_use]
    pub fn server(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.server)
    }

    /// Returns the settings for senders of HL7 messages. A certificate that is pinned for an AE
    /// title is not valid for them.
    #[must_use]
    pub fn hl7(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.hl7)
    }

    /// Returns the settings for HTTP: the same certificate, HTTP/2 or HTTP/1.1, and no certificate
    /// from the client.
    #[must_use]
    pub fn http(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.http)
    }

    /// Does the handshake with a calling peer. The caller limits the time.
    pub(crate) async fn accept(&self, stream: TcpStream) -> io::Result<(Stream, Option<PeerCertificate>)> {
        let acceptor = TlsAcceptor::from(self.server());
        let stream = acceptor.accept(AcknowledgesAtOnce(stream)).await?;
        let shown = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let certificate = shown.split_first().map(|(own, others)| self.trust.shown(own, others)).transpose();
        let certificate = certificate.map_err(io::Error::other)?;
        Ok((Stream::Tls(Box::new(TlsStream::Server(stream))), certificate))
    }

    /// Does the handshake with a destination of C-MOVE. One of the authorities must have signed its
    /// certificate, or the certificate itself must be trusted. It must be bound to the AE title in
    /// the table of peers, or be one for the host. The caller limits the time.
    ///
    /// # Errors
    /// When the handshake fails: the certificate is not accepted, or the destination does not speak
    /// TLS.
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

/// Maximum bytes of a file that are read to say why it cannot be used.
const CHECKED_BYTES: u64 = 64 << 10;

/// Says what to do about a file that is not PEM as it should be.
fn unreadable(path: &Path, what: &'static str, source: pem::Error) -> Error {
    let mut begin = Vec::new();
    if matches!(source, pem::Error::NoItemsFound) {
        // The file was read a moment ago. If it is gone now, there is no hint.
        let _read = File::open(path).and_then(|file| file.take(CHECKED_BYTES).read_to_end(&mut begin));
    }
    let has = |text: &str| begin.windows(text.len()).any(|part| part == text.as_bytes());
    let hint = if has("ENCRYPTED") {
        "; hint: it is encrypted; `openssl pkey -in FILE -out NEW` writes it without a password"
    } else if begin.first() == Some(&0x30) {
        // DER: a SEQUENCE (X.690 8.9).
        "; hint: it is DER; `openssl x509 -inform der` or `openssl pkey -inform der` writes PEM"
    } else {
        ""
    };
    Error::File { path: path.to_owned(), what, hint, source }
}

/// Files that systems keep the public authorities in: Debian, Red Hat, Alpine.
const SYSTEM_AUTHORITIES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// Reads what a client needs to call a server that is no DICOM peer. Without a file of authorities,
/// those of the system apply. The client presents the certificate and key of `identity`, if the
/// server asks for one.
///
/// # Errors
/// See [`Error`].
pub fn client_config(authorities: Option<&Path>, identity: Option<(&Path, &Path)>) -> Result<Arc<ClientConfig>, Error> {
    let of_system = || SYSTEM_AUTHORITIES.map(Path::new).into_iter().find(|path| path.exists());
    let path = authorities.or_else(of_system).unwrap_or(Path::new(SYSTEM_AUTHORITIES[0]));
    let mut roots = RootCertStore::empty();
    if authorities.is_some() {
        for certificate in certificates(path)? {
            roots.add(certificate).map_err(|source| Error::Authority { path: path.to_owned(), source })?;
        }
    } else {
        // Systems list old authorities that cannot be read any more.
        roots.add_parsable_certificates(certificates(path)?);
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(Error::Identity)?
        .with_root_certificates(roots);
    let Some((certificate, key)) = identity else { return Ok(Arc::new(builder.with_no_client_auth())) };
    let chain = certificates(certificate)?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(|source| unreadable(key, "private key", source))?;
    builder.with_client_auth_cert(chain, key).map(Arc::new).map_err(Error::Identity)
}

pub(crate) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let failed = |source| unreadable(path, "certificate", source);
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).map_err(failed)?.collect();
    let found = found.map_err(failed)?;
    if found.is_empty() { Err(failed(pem::Error::NoItemsFound)) } else { Ok(found) }
}

/// The transport by which a peer called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// Without TLS.
    #[default]
    Plain,
    /// With TLS. Has the certificate, if the peer had to present one.
    Tls(Option<PeerCertificate>),
}

/// A destination, and the certificates for it.
#[derive(Clone, Debug)]
pub struct PeerRoute {
    /// The destination.
    pub destination: Destination,
    /// The certificates of this node, if it has some.
    pub tls: Option<Arc<Tls>>,
}

/// The certificates in use. They can be replaced.
#[derive(Clone, Debug)]
pub struct SharedTls(Arc<ArcSwap<Tls>>);

impl SharedTls {
    /// Starts with these.
    #[must_use]
    pub fn new(tls: Tls) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(tls)))
    }

    /// Returns the present ones.
    #[must_use]
    pub fn current(&self) -> Arc<Tls> {
        self.0.load_full()
    }

    /// Replaces them. The next handshake uses the new ones.
    pub fn replace(&self, tls: Tls) {
        self.0.store(Arc::new(tls));
    }
}
