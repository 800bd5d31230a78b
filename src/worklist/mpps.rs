//! Modality Performed Procedure Steps (PS3.4 F.7): they are kept, and move the items that they
//! perform.

use dicom_dictionary_std::tags;
use ring::rand::{SecureRandom as _, SystemRandom};
use serde_json::Value;

use super::item::{WorklistItem, items_in, text_in};
use crate::db::{Error, PerformedStep, WorklistBy, WorklistColumn, WorklistRow, WorklistState, WorklistTables};
use crate::model::matching::KeyElement;
use crate::model::uid::uid_of_uuid;

/// "Incorrect worklist entry selected" (PS3.16 CID 9300). The step is still to be performed.
const WRONG_ENTRY: &str = "110514";

/// Reason why a performed step is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StepRefusal {
    /// There is one with this UID.
    #[error("there is a performed procedure step with this UID")]
    Duplicate,
    /// There is none with this UID.
    #[error("there is no performed procedure step with this UID")]
    Unknown,
    /// It is completed or discontinued (PS3.4 table F.7.2-2).
    #[error("Performed Procedure Step Object may no longer be updated")]
    Final,
    /// It has no status.
    #[error("Performed Procedure Step Status (0040,0252) is absent")]
    NoStatus,
    /// Its status is empty.
    #[error("Performed Procedure Step Status (0040,0252) is empty")]
    EmptyStatus,
    /// The status is none that it may have now.
    #[error("Performed Procedure Step Status (0040,0252) has no valid value")]
    Status,
}

/// Makes a UID for a performed step whose modality gave none. `None` if there is no source of
/// random numbers.
#[must_use]
pub fn new_step_uid() -> Option<String> {
    let mut random = [0; 16];
    SystemRandom::new().fill(&mut random).ok()?;
    Some(uid_of_uuid(random, 4))
}

/// Makes a performed step (N-CREATE, PS3.4 F.7.2.1). Its items have started.
///
/// The inner result is the answer to the peer. [`StepRefusal::Duplicate`] is status 0111H,
/// [`StepRefusal::NoStatus`] is 0120H, [`StepRefusal::EmptyStatus`] is 0121H, and
/// [`StepRefusal::Status`] is 0106H.
///
/// # Errors
/// Fails with [`Error`] if the transaction failed; nothing of it is kept.
pub fn create_step(
    tables: &mut dyn WorklistTables,
    uid: &str,
    attributes: &WorklistItem,
    sender: &str,
    now_ms: i64,
) -> Result<Result<(), StepRefusal>, Error> {
    if tables.performed_step(uid)?.is_some() {
        return Ok(Err(StepRefusal::Duplicate));
    }
    // PS3.4 table F.7.2-1: it is created IN PROGRESS.
    match attributes.text(tags::PERFORMED_PROCEDURE_STEP_STATUS) {
        "IN PROGRESS" => {}
        "" if attributes.value(tags::PERFORMED_PROCEDURE_STEP_STATUS).is_none() => {
            return Ok(Err(StepRefusal::NoStatus));
        }
        "" => return Ok(Err(StepRefusal::EmptyStatus)),
        _ => return Ok(Err(StepRefusal::Status)),
    }
    let step = PerformedStep {
        sop_instance_uid: uid.to_owned(),
        status: attributes.text(tags::PERFORMED_PROCEDURE_STEP_STATUS).to_owned(),
        station_ae_title: attributes.text(tags::PERFORMED_STATION_AE_TITLE).to_owned(),
        attributes: attributes.to_json(),
        sender: sender.to_owned(),
        created_ms: now_ms,
        changed_ms: now_ms,
    };
    tables.put_performed_step(&step)?;
    for row in performed(tables, attributes)? {
        tables.set_state(row.id, WorklistState::Started, now_ms)?;
    }
    Ok(Ok(()))
}

/// Changes a performed step (N-SET, PS3.4 F.7.2.2). If it is completed or discontinued, so are its
/// items.
///
/// The inner result is the answer to the peer. [`StepRefusal::Unknown`] is status 0112H,
/// [`StepRefusal::Final`] is 0110H with Error ID A710H, and [`StepRefusal::Status`] is 0106H.
///
/// # Errors
/// Fails with [`Error`] if the transaction failed; nothing of it is kept.
pub fn set_step(
    tables: &mut dyn WorklistTables,
    uid: &str,
    changes: &WorklistItem,
    now_ms: i64,
) -> Result<Result<(), StepRefusal>, Error> {
    let Some(mut step) = tables.performed_step(uid)? else { return Ok(Err(StepRefusal::Unknown)) };
    if step.status != "IN PROGRESS" {
        return Ok(Err(StepRefusal::Final));
    }
    let status = match changes.text(tags::PERFORMED_PROCEDURE_STEP_STATUS) {
        "" => step.status.clone(),
        status @ ("IN PROGRESS" | "COMPLETED" | "DISCONTINUED") => status.to_owned(),
        _ => return Ok(Err(StepRefusal::Status)),
    };
    let Some(mut attributes) = read(&step.attributes) else {
        return Err(Error::Malformed("a performed step is no JSON object".to_owned()));
    };
    attributes.take_all(changes);
    step.status.clone_from(&status);
    step.attributes = attributes.to_json();
    step.changed_ms = now_ms;
    tables.put_performed_step(&step)?;
    let state = match status.as_str() {
        "COMPLETED" => WorklistState::Done,
        "DISCONTINUED" if was_wrong_entry(&attributes) => WorklistState::Scheduled,
        "DISCONTINUED" => WorklistState::Discontinued,
        _ => return Ok(Ok(())),
    };
    // Several steps may perform one item (PS3.3 7.3.1.9). It ends with the last of them.
    let others = tables.steps_in_progress()?;
    for row in performed(tables, &attributes)? {
        if !others.iter().any(|other| performs(other, &row)) {
            tables.set_state(row.id, state, now_ms)?;
        }
    }
    Ok(Ok(()))
}

fn read(json: &str) -> Option<WorklistItem> {
    let value: Value = serde_json::from_str(json).ok()?;
    WorklistItem::from_json(value.as_object()?).ok()
}

fn was_wrong_entry(attributes: &WorklistItem) -> bool {
    let reasons = items_in(&attributes.elements, tags::PERFORMED_PROCEDURE_STEP_DISCONTINUATION_REASON_CODE_SEQUENCE);
    reasons.iter().any(|reason| text_in(reason, tags::CODE_VALUE) == WRONG_ENTRY)
}

/// Study Instance UID and step ID of each scheduled step that a step performs.
fn scheduled_steps(attributes: &WorklistItem) -> impl Iterator<Item = (&str, &str)> {
    let scheduled: &[Vec<KeyElement>] = items_in(&attributes.elements, tags::SCHEDULED_STEP_ATTRIBUTES_SEQUENCE);
    scheduled
        .iter()
        .map(|item| (text_in(item, tags::STUDY_INSTANCE_UID), text_in(item, tags::SCHEDULED_PROCEDURE_STEP_ID)))
}

/// Whether a step is in progress and performs an item.
pub(super) fn performs(step: &PerformedStep, row: &WorklistRow) -> bool {
    let (study, id) = (row.value(WorklistColumn::StudyInstanceUid), row.value(WorklistColumn::StepId));
    let is_of = |(of_study, of_step): (&str, &str)| of_study == study && (of_step.is_empty() || of_step == id);
    step.status == "IN PROGRESS"
        && read(&step.attributes).is_some_and(|attributes| scheduled_steps(&attributes).any(is_of))
}

/// The items that a step performs: by study and step, or all of the study where it names no step.
fn performed(tables: &mut dyn WorklistTables, attributes: &WorklistItem) -> Result<Vec<WorklistRow>, Error> {
    let mut rows: Vec<WorklistRow> = Vec::new();
    for (study, step) in scheduled_steps(attributes) {
        let found = tables.find(WorklistBy::Study(study))?;
        rows.extend(found.into_iter().filter(|row| step.is_empty() || row.value(WorklistColumn::StepId) == step));
    }
    Ok(rows)
}
