//! Audit events of commands: data that was deleted and data that left the system (PS3.15 A.5.3.4,
//! A.5.3.8).

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;

use anyhow::Context as _;

use crate::audit::{AuditEvent, AuditRecord, AuditSpool, AuditedQuery, AuditedStudies, AuditedStudy, Participant};
use crate::config::Config;
use crate::db::open::Reader;
use crate::db::{Search as _, host_name};
use crate::model::attribute::AttributeId;
use crate::model::clock::Clock;
use crate::model::find::FindRequest;
use crate::model::level::QueryRetrieveLevel;

/// Studies of one event.
const STUDIES: usize = 64;

/// The destination of a table that is written to no file.
pub(super) const STANDARD_OUTPUT: &str = "standard output";

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

    /// Notes that these studies are deleted, or the parts of them that match the keys.
    pub(super) fn deleted(&self, keys: Vec<String>, studies: &[AuditedStudy]) -> anyhow::Result<()> {
        let query = Some(AuditedQuery { keys, ..AuditedQuery::default() });
        for some in studies.chunks(STUDIES) {
            let (query, studies) = (query.clone(), some.to_vec());
            self.note(AuditRecord { query, studies, ..AuditRecord::new(AuditEvent::Deleted, self.command) })?;
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

    /// Notes what was asked for and where it goes: one event for some studies at a time. `request`
    /// finds what goes there. Without one, it is a whole index.
    pub(super) fn exported(
        &self,
        keys: &[String],
        to: &Path,
        from: Option<(&Path, &FindRequest)>,
    ) -> anyhow::Result<()> {
        if self.trail.is_none() {
            return Ok(());
        }
        let studies = from.map_or_else(|| Ok(Vec::new()), |(index, request)| studies_of(index, request))?;
        let to = Some(Participant { name: medium(to)?, address: String::new() });
        for some in studies.chunks(STUDIES).chain(studies.is_empty().then_some(studies.as_slice())) {
            let query = Some(AuditedQuery { keys: keys.to_vec(), ..AuditedQuery::default() });
            let (to, studies) = (to.clone(), some.to_vec());
            self.note(AuditRecord { query, to, studies, ..AuditRecord::new(AuditEvent::Exported, self.command) })?;
        }
        Ok(())
    }

    fn note(&self, mut record: AuditRecord) -> anyhow::Result<()> {
        let Some((spool, node)) = &self.trail else { return Ok(()) };
        record.time_ms = Clock::System.now_ms();
        record.node.clone_from(node);
        record.by = Some(user());
        for record in record.of_one_patient_each() {
            spool.append(&record).context("the audit trail cannot be written, and nothing was done")?;
        }
        Ok(())
    }
}

/// The studies and patients of what a request finds. What has no studies, a table of patients, has
/// patients alone.
fn studies_of(index: &Path, request: &FindRequest) -> anyhow::Result<Vec<AuditedStudy>> {
    let is_of_instances = request.level == QueryRetrieveLevel::Image;
    // In the order of their tags.
    let mut returned: Vec<AttributeId> = is_of_instances.then_some(AttributeId::SOPClassUID).into_iter().collect();
    let owner = returned.len();
    returned.extend([AttributeId::PatientName, AttributeId::PatientID]);
    returned.extend((request.level > QueryRetrieveLevel::Patient).then_some(AttributeId::StudyInstanceUID));
    let request = FindRequest { wants_location: false, ..request.clone() }.returning(&returned);
    let mut studies = AuditedStudies::default();
    let mut found = BTreeMap::new();
    Reader::open(index)?.find(&request, |answer| {
        let [name, patient_id, study] = [0, 1, 2].map(|at| answer.values.text(owner + at));
        let of = (study.to_owned(), patient_id.to_owned());
        if is_of_instances {
            studies.add(of, name, answer.values.text(0));
        } else {
            found.entry(of).or_insert_with(|| name.to_owned());
        }
        ControlFlow::Continue(())
    })?;
    let others = found.into_iter().map(|((study_instance_uid, patient_id), patient_name)| AuditedStudy {
        study_instance_uid,
        patient_id,
        patient_name,
        ..AuditedStudy::default()
    });
    Ok(studies.into_studies().into_iter().chain(others).collect())
}

/// A destination, so that it can be found later: a whole path, or the address of a database.
fn medium(to: &Path) -> anyhow::Result<String> {
    let text = to.to_string_lossy();
    if text.contains("://") || to == Path::new(STANDARD_OUTPUT) {
        return Ok(text.into_owned());
    }
    Ok(std::path::absolute(to).context("the working directory cannot be told")?.to_string_lossy().into_owned())
}

/// User that runs the command: the one that logged in, where the system knows it. With sudo, that
/// is not root.
fn user() -> Participant {
    /// Login UID that the kernel has for a process that no login began (loginuid(5) of audit).
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
