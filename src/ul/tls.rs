//! DICOM over TLS (PS3.15 B.12, "BCP 195 RFC 8996, 9325 TLS Secure Transport Connection Profile"): TLS 1.2 and 1.3, both sides
//! with certificates, nothing older.
//!
//! [`Tls`] holds what both directions need: the listener that peers call, and the connections that C-MOVE opens to
//! destinations. [`SharedTls`] can be replaced while the node runs.

use crate::ul::stream::AcknowledgesAtOnce;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::net::TcpStream;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{self, ALL_VERSIONS, ClientConfig, InconsistentKeys, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use crate::ul::certificates::{CertificateId, OfCaller, OfDestination, PeerCertificate, Trust};
use crate::ul::destination::Destination;
use crate::ul::stream::Stream;

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
    /// The SHA-256 of certificates that the table of peers names. They need no authority.
    pub pinned: Vec<[u8; 32]>,
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
    /// The key is that of another certificate.
    #[error("the key in {} is not that of the first certificate in {}", key.display(), certificate.display())]
    OtherKey {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file of the key.
        key: PathBuf,
    },
    /// Key and certificate cannot be used, or not together.
    #[error("certificate and key cannot be used")]
    Identity(#[source] rustls::Error),
}

/// What is needed to speak TLS, read and checked.
#[derive(Clone)]
pub struct Tls {
    server: Arc<ServerConfig>,
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
        let trust = Trust::new(&authorities, options.pinned.clone())
            .map_err(|source| Error::Authority { path: options.authorities.clone(), source })?;
        let trust = Arc::new(trust);
        let chain = certificates(&options.certificate)?;
        let key = PrivateKeyDer::from_pem_file(&options.key).map_err(|source| Error::File {
            path: options.key.clone(),
            what: "private key",
            source,
        })?;
        let optional = options.client_certificates == ClientCertificates::Optional;
        let verifier = OfCaller::new(Arc::clone(&trust), optional).map_err(Error::Authorities)?;
        let identity = |error| match error {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                Error::OtherKey { certificate: options.certificate.clone(), key: options.key.clone() }
            }
            error => Error::Identity(error),
        };
        let server = ServerConfig::builder_with_provider(Arc::clone(&trust.provider))
            .with_protocol_versions(ALL_VERSIONS)
            .map_err(Error::Identity)?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_single_cert(chain.clone(), key.clone_key())
            .map_err(identity)?;
        // Who asks over HTTP shows a password or a token: browsers and viewers rarely have certificates.
        let mut http = ServerConfig::builder_with_provider(Arc::clone(&trust.provider))
            .with_protocol_versions(ALL_VERSIONS)
            .map_err(Error::Identity)?
            .with_no_client_auth()
            .with_single_cert(chain.clone(), key.clone_key())
            .map_err(Error::Identity)?;
        http.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let tls = Self { server: Arc::new(server), http: Arc::new(http), trust, chain, key: Arc::new(key) };
        // So that a wrong key is found now, not at the first C-MOVE.
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

    /// For clients of the HTTP side: the same certificate, HTTP/2 or HTTP/1.1, and none asked of them.
    #[must_use]
    pub fn http(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.http)
    }

    /// The handshake of a peer that called. The caller sets the time for it.
    pub(crate) async fn accept(&self, stream: TcpStream) -> io::Result<(Stream, Option<PeerCertificate>)> {
        let acceptor = TlsAcceptor::from(Arc::clone(&self.server));
        let stream = acceptor.accept(AcknowledgesAtOnce(stream)).await?;
        let shown = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let certificate = shown.split_first().map(|(own, others)| self.trust.shown(own, others)).transpose();
        let certificate = certificate.map_err(io::Error::other)?;
        Ok((Stream::Tls(Box::new(TlsStream::Server(stream))), certificate))
    }

    /// The handshake with a destination of C-MOVE. Its certificate has to come from one of the authorities or to be
    /// trusted itself, and to be bound to its AE title in the table of peers or else to be that of its host. The caller sets the time for it.
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

pub(crate) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let failed = |source| Error::File { path: path.to_owned(), what: "certificate", source };
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).map_err(failed)?.collect();
    let found = found.map_err(failed)?;
    if found.is_empty() { Err(failed(pem::Error::NoItemsFound)) } else { Ok(found) }
}

/// How a peer called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// Without TLS.
    #[default]
    Plain,
    /// With TLS, and with this certificate, if it had to show one.
    Tls(Option<PeerCertificate>),
}

/// A destination, and what it takes to get there.
#[derive(Clone, Debug)]
pub struct PeerRoute {
    /// Where to.
    pub destination: Destination,
    /// Our certificates, if we have some.
    pub tls: Option<Arc<Tls>>,
}

/// The certificates in use now.
#[derive(Clone, Debug)]
pub struct SharedTls(Arc<ArcSwap<Tls>>);

impl SharedTls {
    /// These, until they are replaced.
    #[must_use]
    pub fn new(tls: Tls) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(tls)))
    }

    /// Those of now.
    #[must_use]
    pub fn current(&self) -> Arc<Tls> {
        self.0.load_full()
    }

    /// Takes others from the next handshake on.
    pub fn replace(&self, tls: Tls) {
        self.0.store(Arc::new(tls));
    }
}
