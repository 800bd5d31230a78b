//! What commands leave in the audit trail: what was deleted and what left the system (PS3.15
//! A.5.3.4, A.5.3.8).

use std::fs;

use anyhow::Context as _;

use crate::audit::{AuditEvent, AuditRecord, AuditSpool, AuditedQuery, AuditedStudy, Participant};
use crate::config::Config;
use crate::db::host_name;
use crate::model::clock::Clock;

/// Studies of one event.
const STUDIES: usize = 64;

/// The trail that the settings name.
pub(super) struct CommandAudit {
    trail: Option<(AuditSpool, String)>,
    command: &'static str,
}

impl CommandAudit {
    /// Opens the trail before the command does anything, so that nothing is done unseen.
    pub(super) fn open(config: &Config, command: &'static str) -> anyhow::Result<Self> {
        let Some(options) = config.audit_options() else { return Ok(Self { trail: None, command }) };
        let directory = &options.directory;
        let spool = AuditSpool::open(directory)
            .with_context(|| format!("the audit trail in {} cannot be written", directory.display()))?;
        Ok(Self { trail: Some((spool, options.node)), command })
    }

    /// Notes that these studies are deleted, or parts of them.
    pub(super) fn deleted(&self, studies: &[AuditedStudy]) -> anyhow::Result<()> {
        for some in studies.chunks(STUDIES) {
            self.note(AuditRecord { studies: some.to_vec(), ..AuditRecord::new(AuditEvent::Deleted, self.command) })?;
        }
        Ok(())
    }

    /// Notes that the patient of these studies is corrected, or not any more.
    pub(super) fn corrected(&self, rule: Vec<String>, studies: &[AuditedStudy]) -> anyhow::Result<()> {
        let query = Some(AuditedQuery { keys: rule, ..AuditedQuery::default() });
        // A rule for what comes later has no studies.
        for some in studies.chunks(STUDIES).chain(studies.is_empty().then_some(studies)) {
            let (query, studies) = (query.clone(), some.to_vec());
            self.note(AuditRecord { query, studies, ..AuditRecord::new(AuditEvent::Corrected, self.command) })?;
        }
        Ok(())
    }

    /// Notes that something was deleted, or brought back, that is known by a number.
    pub(super) fn removal(&self, event: AuditEvent, removal: i64) -> anyhow::Result<()> {
        let query = Some(AuditedQuery { keys: vec![format!("removal={removal}")], ..AuditedQuery::default() });
        self.note(AuditRecord { query, ..AuditRecord::new(event, self.command) })
    }

    /// Notes that the index is put in another state, or its files in other places.
    pub(super) fn maintained(&self, how: &[String]) -> anyhow::Result<()> {
        let query = Some(AuditedQuery { keys: how.to_vec(), ..AuditedQuery::default() });
        self.note(AuditRecord { query, ..AuditRecord::new(AuditEvent::Maintained, self.command) })
    }

    /// Notes what was asked for and where it goes.
    pub(super) fn exported(&self, keys: &[String], to: &str) -> anyhow::Result<()> {
        let query = Some(AuditedQuery { keys: keys.to_vec(), ..AuditedQuery::default() });
        let to = Some(Participant { name: to.to_owned(), address: String::new() });
        self.note(AuditRecord { query, to, ..AuditRecord::new(AuditEvent::Exported, self.command) })
    }

    fn note(&self, mut record: AuditRecord) -> anyhow::Result<()> {
        let Some((spool, node)) = &self.trail else { return Ok(()) };
        record.time_ms = Clock::System.now_ms();
        record.node.clone_from(node);
        record.by = Some(user());
        spool.append(&record).context("the audit trail cannot be written, and nothing was done")
    }
}

/// Who runs the command: the user that logged in, where the system knows it. That is not root, with
/// sudo.
fn user() -> Participant {
    /// What the kernel has for a process that no login began (loginuid(5) of audit).
    const NOBODY: u32 = u32::MAX;
    let login = fs::read_to_string("/proc/self/loginuid").ok().and_then(|text| text.trim().parse().ok());
    let number = login.filter(|login| *login != NOBODY).unwrap_or(rustix::process::getuid().as_raw());
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let mut names = users.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(number)).then_some(name)
    });
    let name = names.next().map_or_else(|| format!("uid {number}"), |name| format!("uid {number} ({name})"));
    Participant { name, address: host_name() }
}
