//! Drafts become rows, in one transaction. The same order is one row, whoever sends it and however
//! often.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, mpsc};

use arc_swap::ArcSwap;
use dicom_core::Tag;
use dicom_dictionary_std::tags;

use super::complete::{Draft, IntakeOptions, MADE_OF, OrderFacts, study_uid};
use super::item::WorklistItem;
use super::message_times::{MessageTimes, is_older};
use crate::db::{
    Error, WorklistBy, WorklistChanges, WorklistColumn, WorklistProblem, WorklistRow, WorklistSource, WorklistState,
    WorklistTables, WorklistWork,
};
use crate::qr::keys;

/// Outcome for a draft.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutOutcome {
    /// There is a new item.
    New,
    /// An item has changed.
    Changed,
    /// The item was there already.
    Unchanged,
    /// The order was cancelled by a later message that came before.
    StaysCancelled,
    /// The item is as a later message of the same sender says, which came before.
    Outdated,
}

/// Steps of an order that a cancellation ends (IHE RAD TF-2, 4.13).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CancelScope {
    /// Steps that are not done. The order is cancelled.
    NotDone,
    /// Steps that have not started. The order is discontinued: "all remaining SPS".
    NotStarted,
}

impl CancelScope {
    fn ends(self, state: WorklistState) -> bool {
        match state {
            WorklistState::Scheduled | WorklistState::Cancelled => true,
            WorklistState::Started => self == Self::NotDone,
            WorklistState::Done | WorklistState::Discontinued => false,
        }
    }
}

/// The way into the worklist: the writer of the index, and the settings.
pub struct Intake {
    changes: Box<dyn WorklistChanges>,
    options: ArcSwap<IntakeOptions>,
}

impl std::fmt::Debug for Intake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Intake").field("options", &self.options()).finish_non_exhaustive()
    }
}

impl Intake {
    /// Creates the way into this index.
    #[must_use]
    pub fn new(changes: Box<dyn WorklistChanges>, options: IntakeOptions) -> Self {
        Self { changes, options: ArcSwap::from_pointee(options) }
    }

    /// Returns the present settings.
    #[must_use]
    pub fn options(&self) -> Arc<IntakeOptions> {
        self.options.load_full()
    }

    /// Replaces the settings. What is under way ends with the former ones.
    pub fn replace_options(&self, options: IntakeOptions) {
        self.options.store(Arc::new(options));
    }

    /// Does this work in one transaction, and waits for its commit. Returns its result.
    ///
    /// # Errors
    /// Fails with the error of the work, or with [`crate::db::Error`] if the transaction failed.
    /// Nothing of it is kept then.
    pub fn change<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut dyn WorklistTables) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (sender, result) = mpsc::sync_channel(1);
        let work: WorklistWork = Box::new(move |tables| {
            let value = work(tables)?;
            // The caller waits below.
            let _waiting = sender.send(value);
            Ok(())
        });
        self.changes.change_worklist(work)?;
        result.recv().map_err(|_| Error::WriterPanicked)
    }

    /// Whether other nodes may feed the worklist from folders of theirs.
    #[must_use]
    pub fn has_other_folders(&self) -> bool {
        self.changes.has_other_folders()
    }

    /// Puts these drafts, all or none.
    ///
    /// # Errors
    /// Fails with [`crate::db::Error`] if the transaction failed; nothing of it is kept.
    pub fn put(&self, drafts: Vec<Draft>) -> Result<Vec<PutOutcome>, Error> {
        let options = self.options();
        self.change(move |tables| drafts.into_iter().map(|draft| Ok(put(tables, draft, &options)?.0)).collect())
    }

    /// Notes what could not become an item.
    ///
    /// # Errors
    /// Fails with [`crate::db::Error`] if the transaction failed; nothing of it is kept.
    pub fn note_problem(&self, problem: WorklistProblem) -> Result<(), Error> {
        self.change(move |tables| tables.note_problem(&problem))
    }
}

/// Puts a draft: makes a row, or changes the row of the same order. Returns also the number of the
/// row.
///
/// # Errors
/// Fails with [`crate::db::Error`] if the transaction failed; nothing of it is kept.
pub fn put(
    tables: &mut dyn WorklistTables,
    mut draft: Draft,
    options: &IntakeOptions,
) -> Result<(PutOutcome, i64), Error> {
    let Some(known) = find(tables, &mut draft)? else {
        return Ok((PutOutcome::New, tables.put(&draft.row(options))?));
    };
    let known_times = MessageTimes::of(&known.message_time);
    if known.state == WorklistState::Cancelled && draft.facts.times().is_before(&known_times) {
        return Ok((PutOutcome::StaysCancelled, known.id));
    }
    if is_outdated_by(&draft.facts, &known) {
        return Ok((PutOutcome::Outdated, known.id));
    }
    if is_of_its_sender(&draft.facts, &known) && is_older(draft.facts.times().patient, known_times.patient) {
        keep_patient(&mut draft, &known, known_times.patient);
    }
    keep_known_values(&mut draft, &known, options);
    let mut row = draft.row(options);
    row.id = known.id;
    row.received_ms = known.received_ms;
    row.state = match known.state {
        // An order that comes again after it was cancelled is a new one.
        WorklistState::Cancelled => WorklistState::Scheduled,
        other => other,
    };
    if row.order_key.is_empty() {
        row.order_key.clone_from(&known.order_key);
    }
    if row.source == WorklistSource::File
        && known.source != WorklistSource::File
        && known.state != WorklistState::Cancelled
    {
        // The order does not go with the file.
        row.source = known.source;
        row.origin.clone_from(&known.origin);
        row.message_time.clone_from(&known.message_time);
    }
    if is_same(&row, &known) {
        if row.message_time != known.message_time {
            tables.put(&WorklistRow { message_time: row.message_time, ..known.clone() })?;
        }
        return Ok((PutOutcome::Unchanged, known.id));
    }
    // The order may have got the identifiers of another row. Both are the same step then.
    let (study, step) = (row.value(WorklistColumn::StudyInstanceUid), row.value(WorklistColumn::StepId));
    for other in tables.find(WorklistBy::Step(study, step))?.into_iter().filter(|other| other.id != row.id) {
        tables.remove(other.id)?;
    }
    Ok((PutOutcome::Changed, tables.put(&row)?))
}

/// Cancels an order. Returns how many items it had.
///
/// An order that is not known is remembered, because messages may overtake each other. Items that
/// the scope leaves out stay as they are.
///
/// # Errors
/// Fails with [`crate::db::Error`] if the transaction failed; nothing of it is kept.
pub fn cancel(
    tables: &mut dyn WorklistTables,
    (facts, scope): (&OrderFacts, CancelScope),
    item: &WorklistItem,
    options: &IntakeOptions,
) -> Result<usize, Error> {
    let (accession_number, patient_id) = (item.text(tags::ACCESSION_NUMBER), item.text(tags::PATIENT_ID));
    let step_id = item.step_text(tags::SCHEDULED_PROCEDURE_STEP_ID);
    let mut rows = Vec::new();
    for key in &facts.order_keys {
        if rows.is_empty() {
            rows = tables.find(WorklistBy::Order(key))?;
        }
    }
    if rows.is_empty() && !accession_number.is_empty() {
        rows = tables.find(WorklistBy::Accession(accession_number))?;
        rows.retain(|row| !facts.is_another_order(row) && !is_of_another_patient(patient_id, row));
    }
    if !step_id.is_empty() && rows.iter().any(|row| row.value(WorklistColumn::StepId) == step_id) {
        rows.retain(|row| row.value(WorklistColumn::StepId) == step_id);
    }
    let count = rows.len();
    for row in rows.into_iter().filter(|row| scope.ends(row.state) && !is_outdated_by(facts, row)) {
        cancel_row(tables, row, facts)?;
    }
    if count == 0
        && let Some(key) = facts.order_keys.first()
    {
        tables.put(&tombstone(facts, key, options))?;
    }
    Ok(count)
}

/// Cancels steps that a message no longer names. It names `items`, and those of them that are
/// `replacing` are all steps of their studies. A step that has started stays.
///
/// # Errors
/// Fails with [`crate::db::Error`] if the transaction failed; nothing of it is kept.
pub fn cancel_dropped(
    tables: &mut dyn WorklistTables,
    replacing: &[i64],
    items: &[i64],
    facts: &OrderFacts,
) -> Result<(), Error> {
    let mut studies = BTreeSet::new();
    for item in replacing {
        let rows = tables.find(WorklistBy::Id(*item))?;
        studies.extend(rows.iter().map(|row| row.value(WorklistColumn::StudyInstanceUid).to_owned()));
    }
    for study in studies {
        // Files and the command line are no part of what the sender knows.
        let is_dropped = |row: &WorklistRow| {
            row.state == WorklistState::Scheduled
                && row.source == facts.source
                && !items.contains(&row.id)
                && !is_outdated_by(facts, row)
        };
        for row in tables.find(WorklistBy::Study(&study))?.into_iter().filter(is_dropped) {
            cancel_row(tables, row, facts)?;
        }
    }
    Ok(())
}

fn cancel_row(tables: &mut dyn WorklistTables, mut row: WorklistRow, facts: &OrderFacts) -> Result<(), Error> {
    row.state = WorklistState::Cancelled;
    row.changed_ms = facts.now_ms;
    row.message_time.clone_from(&facts.message_time);
    tables.put(&row).map(drop)
}

/// Removes the items of a file, except those with the numbers `kept`.
///
/// `heirs` are the origins of other files by the numbers of items that they have too. Such an item
/// stays as theirs. Returns the numbers of those that are open. Their values are those of the file
/// that went, so their files have to be put again.
///
/// # Errors
/// Fails with [`crate::db::Error`] if the transaction failed; nothing of it is kept.
pub fn remove_file_items(
    tables: &mut dyn WorklistTables,
    origin: &str,
    kept: &[i64],
    heirs: &HashMap<i64, String>,
) -> Result<Vec<i64>, Error> {
    let mut inherited = Vec::new();
    for mut row in tables.find(WorklistBy::Origin(WorklistSource::File, origin))? {
        if kept.contains(&row.id) {
            continue;
        }
        let Some(heir) = heirs.get(&row.id) else {
            tables.remove(row.id)?;
            continue;
        };
        row.origin.clone_from(heir);
        tables.put(&row)?;
        // To put a cancelled order again would make it a new one.
        if row.state != WorklistState::Cancelled {
            inherited.push(row.id);
        }
    }
    Ok(inherited)
}

/// Finds the row of the same step: by its order, or else by study and step. If these were made, and
/// another order has them, the draft gets others.
fn find(tables: &mut dyn WorklistTables, draft: &mut Draft) -> Result<Option<WorklistRow>, Error> {
    let (study, step) = draft.step();
    for key in &draft.facts.order_keys {
        let mut rows = tables.find(WorklistBy::Order(key))?;
        if let Some(at) = rows.iter().position(|row| row.value(WorklistColumn::StepId) == step) {
            return Ok(Some(rows.swap_remove(at)));
        }
        // The order has one step, and only one of both messages names it.
        let names_it = !draft.generated.contains(&tags::SCHEDULED_PROCEDURE_STEP_ID);
        if let [row] = rows.as_slice()
            && (!names_it || row.generated.iter().any(|name| name == "ScheduledProcedureStepID") || row.item == "{}")
        {
            return Ok(rows.pop());
        }
    }
    let known = tables.find(WorklistBy::Step(study, step))?.pop();
    if !known.as_ref().is_some_and(|row| has_made_identifiers_of(draft, row)) {
        return Ok(known);
    }
    draft.tell_apart();
    let (study, step) = draft.step();
    Ok(tables.find(WorklistBy::Step(study, step))?.pop())
}

/// Whether a draft has study and step of another order because its identifiers were made of the
/// same accession number (docs/adr/0060).
fn has_made_identifiers_of(draft: &Draft, row: &WorklistRow) -> bool {
    let is_made = |tag: Tag| draft.generated.contains(&tag);
    let has_made_study = is_made(tags::STUDY_INSTANCE_UID);
    let has_other_number =
        (has_made_study || is_made(tags::SCHEDULED_PROCEDURE_STEP_ID)) && draft.facts.is_another_order(row);
    has_other_number || has_made_study && is_of_another_patient(draft.item.text(tags::PATIENT_ID), row)
}

/// Whether a row is of a patient with another number, as far as both are known.
fn is_of_another_patient(patient_id: &str, row: &WorklistRow) -> bool {
    let of_row = row.value(WorklistColumn::PatientId);
    !patient_id.is_empty() && !of_row.is_empty() && patient_id != of_row
}

/// The attributes of a patient that a correction sets.
pub(super) const OF_PATIENT: [Tag; 8] = [
    tags::PATIENT_ID,
    tags::ISSUER_OF_PATIENT_ID,
    tags::PATIENT_NAME,
    tags::PATIENT_BIRTH_DATE,
    tags::PATIENT_SEX,
    tags::PATIENT_SIZE,
    tags::PATIENT_WEIGHT,
    tags::ALLERGIES,
];

/// Returns the item of a row. A cancellation that came before its order has none.
pub(super) fn item_of(row: &WorklistRow) -> Option<WorklistItem> {
    let value: serde_json::Value = serde_json::from_str(&row.item).ok()?;
    let mut item = WorklistItem::from_json(value.as_object()?).ok()?;
    item.character_set.clone_from(&row.character_set);
    Some(item)
}

/// Keeps the patient of an item where a newer message of the same sender corrected it, at `since`.
fn keep_patient(draft: &mut Draft, known: &WorklistRow, since: &str) {
    let Some(before) = item_of(known) else { return };
    for tag in OF_PATIENT {
        let value = before.text(tag);
        if !value.is_empty() {
            draft.item.set(tag, value);
            draft.generated.retain(|made| *made != tag);
        }
    }
    draft.facts.message_time = draft.facts.times().with_patient(since);
}

/// Values that were made for this message do not replace those that the item has. A value that is
/// made of others is made anew where the message changes those (docs/adr/0060).
fn keep_known_values(draft: &mut Draft, known: &WorklistRow, options: &IntakeOptions) {
    let Some(before) = item_of(known) else { return };
    let has_moved = before.step_text(tags::SCHEDULED_PROCEDURE_STEP_START_DATE)
        != draft.item.step_text(tags::SCHEDULED_PROCEDURE_STEP_START_DATE)
        && !draft.generated.contains(&tags::SCHEDULED_PROCEDURE_STEP_START_DATE);
    let made = std::mem::take(&mut draft.generated);
    for tag in made.iter().copied() {
        let (root, step) = (before.text(tag).to_owned(), before.step_text(tag).to_owned());
        let was_made = known.generated.contains(&keys::keyword(tag));
        if is_outdated(tag, was_made, &before, &draft.item, &made) {
            draft.take_out(tag);
            continue;
        }
        if tag == tags::SCHEDULED_PROCEDURE_STEP_START_TIME && has_moved || root.is_empty() && step.is_empty() {
            draft.generated.push(tag);
            continue;
        }
        if !root.is_empty() {
            draft.item.set(tag, &root);
        } else {
            draft.item.set_step(tag, &step);
        }
        if was_made {
            draft.generated.push(tag);
        }
    }
    keep_omitted_values(draft, known, &before, &made);
    draft.describe(options);
    draft.warn_of_station();
    draft.generated.sort_by_key(|tag| made.iter().position(|known| known == tag));
    draft.item.sort();
}

/// Values that an HL7 message omits stay, unless they go with what it changes. `made` are the
/// values that were made for the message. A file is a whole item, and so is an order that comes
/// again after it was cancelled.
fn keep_omitted_values(draft: &mut Draft, known: &WorklistRow, before: &WorklistItem, made: &[Tag]) {
    let has_other = |tag: Tag| {
        let (one, other) = (before.text(tag), draft.item.text(tag));
        one != other && !one.is_empty() && !other.is_empty()
    };
    let is_of_another = has_other(tags::PATIENT_ID) || has_other(tags::ISSUER_OF_PATIENT_ID);
    if draft.facts.source != WorklistSource::Hl7 || known.state == WorklistState::Cancelled || is_of_another {
        return;
    }
    let goes = |tag: Tag| {
        let is_said = made.contains(&tag) || draft.emptied.contains(&tag);
        is_said || tag == tags::SPECIFIC_CHARACTER_SET || is_outdated(tag, false, before, &draft.item, made)
    };
    let gone: Vec<Tag> = before.tags().filter(|tag| goes(*tag)).collect();
    draft.item.take_missing(before, |tag| !gone.contains(&tag));
    if draft.item.character_set.is_empty() {
        draft.item.character_set.clone_from(&before.character_set);
    }
}

/// Whether a value that a message lacks is to be made anew. `made` are the values that the message
/// lacks, so they say nothing of others.
fn is_outdated(tag: Tag, was_made: bool, before: &WorklistItem, item: &WorklistItem, made: &[Tag]) -> bool {
    let Some(value) = MADE_OF.iter().find(|value| value.tag == tag) else { return false };
    let mut given = value.of.iter().filter(|of| !made.contains(of) && item.value(**of).is_some());
    if was_made {
        return given.next().is_some();
    }
    value.goes_with_them && given.any(|of| before.value(*of) != item.value(*of))
}

/// Whether a message is older than what its sender said of this order before. The clocks of two
/// senders are not compared.
fn is_outdated_by(facts: &OrderFacts, row: &WorklistRow) -> bool {
    is_of_its_sender(facts, row) && facts.times().is_before(&MessageTimes::of(&row.message_time))
}

/// Whether a message has the sender of the last one of this item.
pub(super) fn is_of_its_sender(facts: &OrderFacts, row: &WorklistRow) -> bool {
    (facts.source, &facts.origin) == (row.source, &row.origin)
}

/// Whether nothing has changed but times.
fn is_same(row: &WorklistRow, known: &WorklistRow) -> bool {
    row.item == known.item
        && row.state == known.state
        && (row.source, &row.origin, &row.order_key) == (known.source, &known.origin, &known.order_key)
        && (&row.generated, &row.warnings) == (&known.generated, &known.warnings)
}

/// A row that only says that an order was cancelled.
fn tombstone(facts: &OrderFacts, key: &str, options: &IntakeOptions) -> WorklistRow {
    let keep = i64::try_from(options.keep.as_millis()).unwrap_or(i64::MAX);
    let mut values: [String; WorklistColumn::ALL.len()] = Default::default();
    values[WorklistColumn::StudyInstanceUid as usize] = study_uid(&["cancelled", key]);
    WorklistRow {
        id: 0,
        values,
        item: "{}".to_owned(),
        character_set: String::new(),
        order_key: key.to_owned(),
        source: facts.source,
        origin: facts.origin.clone(),
        generated: Vec::new(),
        warnings: Vec::new(),
        state: WorklistState::Cancelled,
        received_ms: facts.now_ms,
        changed_ms: facts.now_ms,
        expires_ms: facts.now_ms.saturating_add(keep),
        message_time: facts.message_time.clone(),
    }
}
