//! Reads the fields of an X.509 certificate (RFC 5280) that the node checks itself. Chains are
//! checked by webpki.

use x509_parser::der_parser::asn1_rs::Tag;
use x509_parser::oid_registry::{
    OID_PKCS1_RSASSAPSS, OID_PKCS1_SHA256WITHRSA, OID_PKCS1_SHA384WITHRSA, OID_PKCS1_SHA512WITHRSA,
    OID_SIG_ECDSA_WITH_SHA256, OID_SIG_ECDSA_WITH_SHA384, OID_SIG_ECDSA_WITH_SHA512, OID_SIG_ED25519,
};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate, X509Version};
use x509_parser::public_key::PublicKey;

/// Minimum length of an RSA key in bits (RFC 9325 4.5).
const MIN_RSA_BITS: usize = 2048;

/// The side of a connection for which a certificate is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The calling side.
    Client,
    /// The called side.
    Server,
}

/// The reason why a certificate is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unfit {
    #[error("it cannot be read as X.509")]
    Encoding,
    #[error("it has expired")]
    Expired,
    #[error("it is not valid yet")]
    NotYetValid,
    #[error("its signature algorithm is no longer accepted, such as SHA-1 (RFC 9325)")]
    Signature,
    #[error("its RSA key has less than {MIN_RSA_BITS} bits (RFC 9325)")]
    Key,
    #[error("its extended key usage does not allow this side of a connection")]
    Purpose,
}

/// A certificate.
#[derive(Debug)]
pub(crate) struct Certificate<'a>(X509Certificate<'a>);

impl<'a> Certificate<'a> {
    pub(crate) fn parse(der: &'a [u8]) -> Result<Self, Unfit> {
        match X509Certificate::from_der(der) {
            Ok(([], parsed)) => Ok(Self(parsed)),
            Ok(_) | Err(_) => Err(Unfit::Encoding),
        }
    }

    /// Checks the certificate at this time, in seconds since 1970.
    pub(crate) fn check(&self, now: u64, purpose: Purpose) -> Result<(), Unfit> {
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        if now > self.ends() {
            return Err(Unfit::Expired);
        }
        if now < self.0.validity().not_before.timestamp() {
            return Err(Unfit::NotYetValid);
        }
        self.check_strength()?;
        self.check_purpose(purpose)
    }

    /// RFC 9325 4.5: no SHA-1 and no MD5, and RSA keys of sufficient length.
    pub(crate) fn check_strength(&self) -> Result<(), Unfit> {
        let taken = [
            OID_PKCS1_SHA256WITHRSA,
            OID_PKCS1_SHA384WITHRSA,
            OID_PKCS1_SHA512WITHRSA,
            OID_PKCS1_RSASSAPSS,
            OID_SIG_ECDSA_WITH_SHA256,
            OID_SIG_ECDSA_WITH_SHA384,
            OID_SIG_ECDSA_WITH_SHA512,
            OID_SIG_ED25519,
        ];
        if !taken.contains(&self.0.signature_algorithm.algorithm) {
            return Err(Unfit::Signature);
        }
        match self.0.public_key().parsed() {
            Ok(PublicKey::RSA(key)) if key.key_size() < MIN_RSA_BITS => Err(Unfit::Key),
            Ok(_) => Ok(()),
            Err(_) => Err(Unfit::Encoding),
        }
    }

    /// RFC 5280 4.2.1.12: without the extension, any purpose is allowed.
    pub(crate) fn check_purpose(&self, purpose: Purpose) -> Result<(), Unfit> {
        let usage = self.0.extended_key_usage().map_err(|_| Unfit::Encoding)?;
        let fits = usage.is_none_or(|usage| {
            usage.value.any
                || match purpose {
                    Purpose::Client => usage.value.client_auth,
                    Purpose::Server => usage.value.server_auth,
                }
        });
        if fits { Ok(()) } else { Err(Unfit::Purpose) }
    }

    /// Returns the last second at which it is valid, since 1970.
    pub(crate) fn ends(&self) -> i64 {
        self.0.validity().not_after.timestamp()
    }

    /// Whether it is one of an authority (RFC 5280 4.2.1.3 and 4.2.1.9). Version 1 cannot say so,
    /// and old authorities have such certificates.
    pub(crate) fn may_sign_others(&self) -> bool {
        if self.0.version() == X509Version::V1 {
            return true;
        }
        let is_authority = matches!(self.0.basic_constraints(), Ok(Some(constraints)) if constraints.value.ca);
        let may_sign = match self.0.key_usage() {
            Ok(usage) => usage.is_none_or(|usage| usage.value.key_cert_sign()),
            Err(_) => false,
        };
        is_authority && may_sign
    }

    /// Whether it claims to be one of an authority.
    pub(crate) fn is_authority(&self) -> bool {
        self.0.is_ca()
    }

    /// Returns the subject as a DER-encoded name.
    pub(crate) fn subject(&self) -> &[u8] {
        self.0.subject().as_raw()
    }

    /// Returns the Common Names of its subject. Only text types whose bytes are ASCII count.
    pub(crate) fn common_names(&self) -> Vec<String> {
        const TEXTS: [Tag; 4] = [Tag::Utf8String, Tag::PrintableString, Tag::T61String, Tag::Ia5String];
        let values = self.0.subject().iter_common_name().map(|name| name.attr_value());
        let texts = values.filter(|value| TEXTS.contains(&value.tag()));
        texts.filter_map(|value| std::str::from_utf8(value.data).ok().map(str::to_owned)).collect()
    }

    /// Returns the DNS names among its alternative names, in lower case.
    pub(crate) fn dns_names(&self) -> Vec<String> {
        let names = self.alternative_names();
        let dns =
            names.iter().filter_map(|name| if let GeneralName::DNSName(name) = name { Some(*name) } else { None });
        dns.map(str::to_ascii_lowercase).collect()
    }

    /// Whether it names any host.
    pub(crate) fn names_a_host(&self) -> bool {
        self.alternative_names().iter().any(|name| matches!(name, GeneralName::DNSName(_) | GeneralName::IPAddress(_)))
    }

    fn alternative_names(&self) -> &[GeneralName<'_>] {
        match self.0.subject_alternative_name() {
            Ok(Some(names)) => &names.value.general_names,
            Ok(None) | Err(_) => &[],
        }
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose};

    use super::*;

    fn made(change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["A.example".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::OrganizationName, "North");
        params.distinguished_name.push(DnType::CommonName, "CT1");
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2030, 1, 1);
        change(&mut params);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    /// 2025-01-01.
    const NOW: u64 = 1_735_689_600;
    const TEN_YEARS: u64 = 10 * 366 * 86_400;

    #[test]
    fn names_are_found_and_nothing_is_read_of_what_is_cut() {
        let der = made(|_| {});
        let certificate = Certificate::parse(&der).unwrap();
        assert_eq!(
            (certificate.common_names(), certificate.dns_names()),
            (vec!["CT1".into()], vec!["a.example".into()])
        );
        assert!(certificate.names_a_host());
        for cut in 0..der.len() {
            assert_eq!(Certificate::parse(&der[..cut]).unwrap_err(), Unfit::Encoding, "cut at {cut}");
        }
        assert_eq!(Certificate::parse(&[&der[..], &[0]].concat()).unwrap_err(), Unfit::Encoding);
    }

    #[test]
    fn dates_and_purposes_count() {
        let der = made(|_| {});
        let check = |now| Certificate::parse(&der).unwrap().check(now, Purpose::Client);
        assert_eq!(check(NOW), Ok(()));
        assert_eq!(check(NOW + TEN_YEARS), Err(Unfit::Expired));
        assert_eq!(check(NOW - TEN_YEARS), Err(Unfit::NotYetValid));
        let der = made(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]);
        let certificate = Certificate::parse(&der).unwrap();
        assert_eq!(certificate.check(NOW, Purpose::Server), Ok(()));
        assert_eq!(certificate.check(NOW, Purpose::Client), Err(Unfit::Purpose));
    }

    #[test]
    fn only_an_authority_may_sign_others() {
        let signs = |change: fn(&mut CertificateParams)| Certificate::parse(&made(change)).unwrap().may_sign_others();
        assert!(!signs(|_| {}));
        assert!(!signs(|params| params.is_ca = IsCa::ExplicitNoCa));
        assert!(signs(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)));
        assert!(!signs(|params| {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        }));
    }
}
