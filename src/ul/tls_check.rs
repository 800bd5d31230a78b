//! Checks certificates as a peer would, for `dcmdex config check` and for the log when the node
//! starts.

use std::path::{Path, PathBuf};

use crate::model::calendar::DAY_MS;
use crate::ul::tls::{self, Options, Tls};
use crate::ul::x509::{Certificate, Purpose, Unfit};

/// Days before its end at which a certificate is reported.
const WARN_DAYS: i64 = 30;

/// Severity of a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// No peer will accept the certificate.
    Broken,
    /// Some peers will not accept it, or it will expire soon.
    Doubtful,
}

/// A problem with a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateProblem {
    /// Its severity.
    pub severity: Severity,
    /// The file of the certificate.
    pub file: PathBuf,
    /// Number of the certificate in the file, from 1.
    pub number: usize,
    /// Description of the problem.
    pub what: String,
    /// Advice on what to do.
    pub way_out: &'static str,
}

const NEW_ONE: &str = "make a new one, with `openssl req -x509 -newkey rsa:3072 -sha256 -days 825 -addext subjectAltName=DNS:HOST \
                       -addext basicConstraints=critical,CA:FALSE`, or ask your authority for one";

/// Reads the certificates of a configuration and finds what will not work with peers. `now_ms` is
/// the time since 1970.
///
/// # Errors
/// When TLS could not be used at all.
pub fn problems(options: &Options, now_ms: i64) -> Result<Vec<CertificateProblem>, tls::Error> {
    Tls::load(options)?;
    let now = now_ms.div_euclid(1000);
    let mut found = Vec::new();
    let chain = tls::certificates(&options.certificate)?;
    for (at, der) in chain.iter().enumerate() {
        let told = ToldCertificate { file: &options.certificate, number: at + 1 };
        match Certificate::parse(der) {
            Ok(certificate) if at == 0 => found.extend(told.own(&certificate, now)),
            Ok(certificate) => found.extend(told.between(&certificate, now)),
            Err(unfit) => found.push(told.unfit(unfit, Severity::Broken)),
        }
    }
    for (at, der) in tls::certificates(&options.authorities)?.iter().enumerate() {
        let told = ToldCertificate { file: &options.authorities, number: at + 1 };
        match Certificate::parse(der) {
            Ok(certificate) => found.extend(told.listed(&certificate, now)),
            Err(unfit) => found.push(told.unfit(unfit, Severity::Broken)),
        }
    }
    Ok(found)
}

/// A certificate that is checked.
#[derive(Clone, Copy)]
struct ToldCertificate<'a> {
    file: &'a Path,
    number: usize,
}

impl ToldCertificate<'_> {
    /// Checks the certificate of this node, which it presents on both sides.
    fn own(self, certificate: &Certificate<'_>, now: i64) -> Vec<CertificateProblem> {
        let mut found = self.between(certificate, now);
        for (purpose, what) in [(Purpose::Server, "to be called"), (Purpose::Client, "to call others by C-MOVE")] {
            if certificate.check_purpose(purpose).is_err() {
                let way_out = "its extended key usage needs serverAuth and clientAuth, or should be left out";
                found.push(self.problem(
                    Severity::Doubtful,
                    format!("is not made {what} (extended key usage)"),
                    way_out,
                ));
            }
        }
        if !certificate.names_a_host() {
            let what = "names no host (subject alternative name): peers that compare names refuse it".to_owned();
            found.push(self.problem(Severity::Doubtful, what, NEW_ONE));
        }
        if certificate.is_authority() {
            let what = "is one of an authority (CA:TRUE): some peers refuse it, though they list it".to_owned();
            found.push(self.problem(Severity::Doubtful, what, NEW_ONE));
        }
        found
    }

    /// Checks a certificate that peers verify.
    fn between(self, certificate: &Certificate<'_>, now: i64) -> Vec<CertificateProblem> {
        let checked = certificate.check_strength().and_then(|()| self.check_dates(certificate, now));
        let mut found: Vec<_> = checked.err().map(|unfit| self.unfit(unfit, Severity::Broken)).into_iter().collect();
        found.extend(self.ends_soon(certificate, now));
        found
    }

    /// Checks one of the file of authorities. It is of a peer, or of an authority for peers.
    fn listed(self, certificate: &Certificate<'_>, now: i64) -> Vec<CertificateProblem> {
        let dates = self.check_dates(certificate, now);
        let checked =
            if certificate.may_sign_others() { dates } else { dates.and_then(|()| certificate.check_strength()) };
        let mut found: Vec<_> = checked.err().map(|unfit| self.unfit(unfit, Severity::Doubtful)).into_iter().collect();
        found.extend(self.ends_soon(certificate, now));
        found
    }

    fn check_dates(self, certificate: &Certificate<'_>, now: i64) -> Result<(), Unfit> {
        // Its purpose does not matter here.
        let checked = certificate.check(u64::try_from(now).unwrap_or(0), Purpose::Server);
        match checked {
            Err(unfit @ (Unfit::Expired | Unfit::NotYetValid)) => Err(unfit),
            Ok(()) | Err(Unfit::Encoding | Unfit::Signature | Unfit::Key | Unfit::Purpose) => Ok(()),
        }
    }

    fn ends_soon(self, certificate: &Certificate<'_>, now: i64) -> Option<CertificateProblem> {
        let days = (certificate.ends() - now).div_euclid(DAY_MS / 1000);
        let what = format!("expires in {days} days");
        (0..WARN_DAYS).contains(&days).then(|| self.problem(Severity::Doubtful, what, "have the next one ready"))
    }

    fn unfit(self, unfit: Unfit, severity: Severity) -> CertificateProblem {
        let way_out = match unfit {
            Unfit::NotYetValid => "see whether the clock is right",
            Unfit::Encoding | Unfit::Expired | Unfit::Signature | Unfit::Key | Unfit::Purpose => NEW_ONE,
        };
        self.problem(severity, format!("is refused: {unfit}"), way_out)
    }

    fn problem(self, severity: Severity, what: String, way_out: &'static str) -> CertificateProblem {
        CertificateProblem { severity, file: self.file.to_owned(), number: self.number, what, way_out }
    }
}

impl std::fmt::Display for CertificateProblem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { file, number, what, way_out, .. } = self;
        write!(f, "certificate {number} in {} {what}; hint: {way_out}", file.display())
    }
}
