//! Settings of the audit trail.

use std::path::PathBuf;
use std::time::Duration;

use super::Config;
use super::check::Check;
use super::keys::settings;
use crate::audit::{AuditCollector, AuditOptions, CollectorOptions};
use crate::model::calendar::DAY_SECONDS;

/// Settings of the audit trail.
#[derive(Clone, Debug)]
pub struct AuditSettings {
    /// Directory of its files.
    pub directory: PathBuf,
    /// Bytes of all files.
    pub max_bytes: u64,
    /// Time for which events are kept.
    pub keep: Duration,
    /// Collector to which they are sent.
    pub collector: Option<AuditCollector>,
    /// The authorities of the collector.
    pub authorities: Option<PathBuf>,
}

impl Check<'_> {
    pub(super) fn audit(&mut self) -> Option<AuditSettings> {
        let is_given = |this: &Self, key| !this.text(key).is_empty();
        let collector = match is_given(self, settings::AUDIT_COLLECTOR) {
            true => self.parsed::<AuditCollector>(settings::AUDIT_COLLECTOR),
            false => None,
        };
        let max_bytes = self.integer(settings::AUDIT_MAX_MIB) << 20;
        let keep = Duration::from_secs(self.integer(settings::AUDIT_KEEP_DAYS) * DAY_SECONDS);
        let authorities = is_given(self, settings::AUDIT_AUTHORITIES).then(|| self.path(settings::AUDIT_AUTHORITIES));
        if !is_given(self, settings::AUDIT_DIRECTORY) {
            if collector.is_some() {
                let message = "it needs `audit.directory`, where events wait while the collector is away";
                self.refuse(settings::AUDIT_COLLECTOR.path(), message.to_owned());
            }
            return None;
        }
        if collector.as_ref().is_some_and(AuditCollector::has_tls) && authorities.is_none() {
            let message = "it is needed for a collector with TLS";
            self.refuse(settings::AUDIT_AUTHORITIES.path(), message.to_owned());
        }
        Some(AuditSettings { directory: self.path(settings::AUDIT_DIRECTORY), max_bytes, keep, collector, authorities })
    }
}

impl Config {
    /// Returns the options of the audit trail. `None` if there is none.
    #[must_use]
    pub fn audit_options(&self) -> Option<AuditOptions> {
        let audit = self.audit.as_ref()?;
        let identity = self.tls.as_ref().map(|tls| (tls.certificate.clone(), tls.key.clone()));
        let collector = audit.collector.clone().map(|collector| CollectorOptions {
            collector,
            authorities: audit.authorities.clone(),
            identity,
        });
        Some(AuditOptions {
            directory: audit.directory.clone(),
            max_bytes: audit.max_bytes,
            keep: audit.keep,
            collector,
            node: self.node.ae_title.to_string(),
        })
    }
}
