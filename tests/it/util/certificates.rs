//! Certificates for tests: authorities, and certificates that they sign.

use std::fs;
use std::path::{Path, PathBuf};

use dcmdex::ul::tls::{ClientCertificates, Options};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, date_time_ymd};
use tempfile::TempDir;

/// An authority.
pub(crate) struct Authority {
    directory: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, as files.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let directory = TempDir::new().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        fs::write(directory.path().join("ca.pem"), certificate.pem()).unwrap();
        Self { directory, issuer: Issuer::new(params, key) }
    }

    /// Returns the path of its certificate.
    pub(crate) fn file(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    /// Issues a certificate for 127.0.0.1 with this Common Name.
    pub(crate) fn identity(&self, common_name: &str) -> Identity {
        self.made(common_name, |_| {})
    }

    /// Issues a certificate that has expired.
    pub(crate) fn expired(&self, common_name: &str) -> Identity {
        self.made(common_name, |params| {
            params.not_before = date_time_ymd(2001, 1, 1);
            params.not_after = date_time_ymd(2002, 1, 1);
        })
    }

    fn made(&self, common_name: &str, change: impl FnOnce(&mut CertificateParams)) -> Identity {
        let names = vec!["127.0.0.1".to_owned(), format!("{}.example", common_name.to_lowercase())];
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, common_name);
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let number = fs::read_dir(self.directory.path()).unwrap().count();
        let path = |what: &str| self.directory.path().join(format!("{number}-{common_name}.{what}"));
        let identity = Identity { certificate: path("crt"), key: path("key") };
        fs::write(&identity.certificate, certificate.pem()).unwrap();
        fs::write(&identity.key, key.serialize_pem()).unwrap();
        identity
    }

    /// Returns the options of a node with this identity. The certificates of its peers are from
    /// this authority.
    pub(crate) fn options(&self, identity: &Identity) -> Options {
        Options {
            certificate: identity.certificate.clone(),
            key: identity.key.clone(),
            authorities: self.file(),
            client_certificates: ClientCertificates::Required,
            pinned: Vec::new(),
        }
    }
}

/// A self-signed certificate, and the certificates that its key could sign.
pub(crate) struct SelfSigned {
    _directory: TempDir,
    pub(crate) identity: Identity,
    pub(crate) der: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
}

impl SelfSigned {
    /// Creates a certificate for 127.0.0.1 as `openssl req -x509` does. OpenSSL marks it as an
    /// authority.
    pub(crate) fn as_openssl(common_name: &str) -> Self {
        Self::made(common_name, |params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained))
    }

    pub(crate) fn made(common_name: &str, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let directory = TempDir::new().unwrap();
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, common_name);
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let path = |what: &str| directory.path().join(format!("own.{what}"));
        let identity = Identity { certificate: path("crt"), key: path("key") };
        fs::write(&identity.certificate, certificate.pem()).unwrap();
        fs::write(&identity.key, key.serialize_pem()).unwrap();
        Self { identity, der: certificate.der().to_vec(), issuer: Issuer::new(params, key), _directory: directory }
    }

    /// Issues a certificate that it has signed.
    pub(crate) fn signs(&self, common_name: &str) -> Identity {
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, common_name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let path = |what: &str| self.identity.certificate.with_file_name(format!("{common_name}.{what}"));
        let identity = Identity { certificate: path("crt"), key: path("key") };
        fs::write(&identity.certificate, certificate.pem()).unwrap();
        fs::write(&identity.key, key.serialize_pem()).unwrap();
        identity
    }
}

impl Identity {
    /// Returns the options with which DCMTK uses this certificate. The certificate of the called
    /// node is from `authority`.
    pub(crate) fn dcmtk(&self, authority: &Path) -> [String; 5] {
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        ["+tls".into(), text(&self.key), text(&self.certificate), "+cf".into(), text(authority)]
    }
}
