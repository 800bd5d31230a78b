//! Questions to the worklist (PS3.4 K.2.2 and K.4.1).
//!
//! Every attribute of an item can be matched, whether it is a required key or not. The index finds
//! candidates by a few columns. Each candidate is then matched as a whole, in the DICOM JSON Model.
//!
//! Three things differ from Query/Retrieve. An attribute without a value matches no key with a
//! value (K.2.2.1.1.1). A range of dates and a range of times together are one range, without
//! negotiation (table K.6-1). There are no levels.

use dicom_core::{Tag, VR};
use dicom_dictionary_std::tags;
use serde_json::{Value, json};

use crate::db::{WorklistColumn, WorklistCondition, WorklistRequest, WorklistRow, WorklistState};
use crate::encoding::syntax::Encoding;
use crate::model::attribute::{Attribute, LetterCase, Multiplicity};
use crate::model::find::ItemKey;
use crate::model::matching::{
    Comparison, DateTimeRange, KeyElement, KeyValue, MatchPolicy, Matching, NameMatching, Narrowing, SequenceMatching,
    json_key,
};
use crate::model::status::Status;
use crate::qr::items::ItemRequest;
use crate::qr::{FindError, Identifier, ItemWriter, PendingStatus};

/// Settings of questions to the worklist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorklistOptions {
    /// Comparison of names if fuzzy matching was not negotiated.
    pub names: NameMatching,
    /// Status of Pending responses for a key that cannot be matched.
    pub pending: PendingStatus,
    /// Maximum number of answers. One more ends the question with A700. `None` means no limit.
    pub limit: Option<u64>,
    /// Specific Character Set of requests that have none.
    pub assumed_character_set: String,
}

impl Default for WorklistOptions {
    fn default() -> Self {
        Self {
            names: NameMatching::default(),
            pending: PendingStatus::AsSupported,
            limit: None,
            assumed_character_set: String::new(),
        }
    }
}

/// View that one peer has of the worklist.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorklistView {
    /// Only items of this station.
    pub station: Option<String>,
    /// Answers always have this Specific Character Set.
    pub character_set: Option<String>,
}

/// A checked question.
#[derive(Debug)]
pub struct WorklistQuery {
    /// Rows to read.
    pub request: WorklistRequest,
    /// Keys with a value that cannot be matched.
    pub unsupported: Vec<Tag>,
    /// Maximum number of answers.
    pub limit: Option<u64>,
    /// Conditions on columns, which tell most rows apart without a look at the item.
    columns: Vec<(WorklistColumn, Matching)>,
    /// The conditions on the whole item. `None` if every item matches.
    matching: Option<SequenceMatching>,
    /// The range of start date and time together.
    start: Option<DateTimeRange>,
    view: WorklistView,
    wanted: Vec<ItemKey>,
    character_set: String,
    pending: PendingStatus,
}

/// An item that matches.
#[derive(Debug)]
pub struct WorklistAnswer {
    /// The number of its row.
    pub id: i64,
    /// The item in the DICOM JSON Model.
    pub item: Value,
    /// Specific Character Set of what it came from.
    pub character_set: String,
}

/// The columns, with the attributes that they keep. The second list is of the step.
const ROOT_COLUMNS: [(Tag, WorklistColumn); 4] = [
    (tags::STUDY_INSTANCE_UID, WorklistColumn::StudyInstanceUid),
    (tags::PATIENT_NAME, WorklistColumn::PatientName),
    (tags::PATIENT_ID, WorklistColumn::PatientId),
    (tags::ACCESSION_NUMBER, WorklistColumn::AccessionNumber),
];
const STEP_COLUMNS: [(Tag, WorklistColumn); 6] = [
    (tags::SCHEDULED_PROCEDURE_STEP_ID, WorklistColumn::StepId),
    (tags::SCHEDULED_STATION_AE_TITLE, WorklistColumn::StationAeTitle),
    (tags::SCHEDULED_PROCEDURE_STEP_START_DATE, WorklistColumn::StartDate),
    (tags::SCHEDULED_PROCEDURE_STEP_START_TIME, WorklistColumn::StartTime),
    (tags::MODALITY, WorklistColumn::Modality),
    (tags::SCHEDULED_PERFORMING_PHYSICIAN_NAME, WorklistColumn::PerformingPhysicianName),
];

impl WorklistQuery {
    /// Checks an Identifier and makes a question of it, for items that are open at this moment.
    ///
    /// # Errors
    /// Fails if a key has no valid value, or if Scheduled Procedure Step Sequence has several
    /// items.
    pub fn parse(
        identifier: &Identifier,
        names: NameMatching,
        view: WorklistView,
        options: &WorklistOptions,
        now_ms: i64,
    ) -> Result<Self, FindError> {
        let mut elements = identifier.elements.clone();
        elements.retain(|element| is_key(element.tag));
        let ItemRequest { mut keys, mut wanted, unsupported } = ItemRequest::new(&elements);
        // PS3.4 C.2.2.2: it says how times are read, and is never matched. It is not among the
        // answers without a value either (K.4.1.1.3.2).
        keys.retain(|element| element.tag != tags::TIMEZONE_OFFSET_FROM_UTC);
        wanted.retain(|key| key.tag != tags::TIMEZONE_OFFSET_FROM_UTC);
        let policy = MatchPolicy { names, ..MatchPolicy::default() };
        check(&keys, &policy)?;
        let start = combined_start(&mut keys);
        let (columns, conditions) = columns(&keys, start.as_ref(), &policy)?;
        let mut request = WorklistRequest { open_at: Some(now_ms), conditions };
        if let Some(station) = &view.station {
            let narrowing = Narrowing::Equals(vec![station.clone()]);
            let column = WorklistColumn::StationAeTitle;
            request.conditions.push(WorklistCondition { column, narrowing, passes_several: true });
        }
        let matching = Matching::of_items(std::slice::from_ref(&keys), &policy);
        let matching =
            match matching.map_err(|error| FindError::InvalidKey(tags::SCHEDULED_PROCEDURE_STEP_SEQUENCE, error))? {
                Matching::Sequence(conditions) => Some(conditions),
                _ => None,
            };
        Ok(Self {
            request,
            unsupported,
            limit: options.limit,
            columns,
            matching,
            start: start.map(|start| start.range),
            view,
            wanted,
            character_set: identifier.character_set.clone(),
            pending: options.pending,
        })
    }

    /// Whether the Identifier has no key at all. Then nothing matches (PS3.4 K.4.1.3.1).
    #[must_use]
    pub fn has_no_keys(&self) -> bool {
        self.wanted.is_empty()
    }

    /// Returns the status of its Pending responses (PS3.4 table K.4-1).
    #[must_use]
    pub fn pending_status(&self) -> Status {
        match self.pending {
            PendingStatus::AsSupported if !self.unsupported.is_empty() => Status::PENDING_WITHOUT_OPTIONAL_KEYS,
            PendingStatus::AsSupported | PendingStatus::AlwaysFf00 => Status::PENDING,
        }
    }

    /// Returns the answer that a row gives. `None` if it does not match.
    #[must_use]
    pub fn answer(&self, row: &WorklistRow) -> Option<WorklistAnswer> {
        let station = self.view.station.as_deref();
        let is_of = |own: &str| row.value(WorklistColumn::StationAeTitle).split('\\').any(|one| one == own);
        if station.is_some_and(|own| !is_of(own))
            || !self.columns.iter().all(|(column, matching)| matching.matches(row.value(*column)))
        {
            return None;
        }
        let (date, time) = (row.value(WorklistColumn::StartDate), row.value(WorklistColumn::StartTime));
        if self.start.as_ref().is_some_and(|range| !range.contains(date, time)) {
            return None;
        }
        // A row that this program did not write is no item.
        let mut item: Value = serde_json::from_str(&row.item).ok()?;
        show_state(&mut item, row.state);
        if self.matching.as_ref().is_some_and(|matching| !matching.in_zone("").matches(&item)) {
            return None;
        }
        Some(WorklistAnswer { id: row.id, item, character_set: row.character_set.clone() })
    }

    /// Returns the writer of its answers.
    #[must_use]
    pub fn writer(&self, encoding: Encoding) -> ItemWriter {
        ItemWriter::new(encoding, self.wanted.clone(), &self.character_set, self.view.character_set.as_deref())
    }
}

/// Whether an element is a key. Those of PS3.4 C.4.1.1.3 that say how to search are none, and old
/// devices send them here too.
fn is_key(tag: Tag) -> bool {
    tag.group() >= 0x0008
        && !matches!(tag, tags::QUERY_RETRIEVE_LEVEL | tags::QUERY_RETRIEVE_VIEW | tags::SPECIFIC_CHARACTER_SET)
}

/// Checks each key by itself, so that the error names it.
fn check(keys: &[KeyElement], policy: &MatchPolicy) -> Result<(), FindError> {
    for key in keys {
        if let KeyValue::Items(items) = &key.value
            && let [one] = items.as_slice()
        {
            check(one, policy)?;
        }
        let alone = std::slice::from_ref(key).to_vec();
        Matching::of_items(&[alone], policy).map_err(|error| FindError::InvalidKey(key.tag, error))?;
    }
    Ok(())
}

/// Takes the ranges of start date and start time together, if both are ranges of the same form
/// (PS3.4 table K.6-1). The time alone then has no meaning.
fn combined_start(keys: &mut [KeyElement]) -> Option<CombinedStart> {
    let step = step_of_mut(keys)?;
    let text = |tag: Tag| match &step.iter().find(|element| element.tag == tag)?.value {
        KeyValue::Text(text) => Some(text.as_str()),
        KeyValue::Items(_) => None,
    };
    let date = text(tags::SCHEDULED_PROCEDURE_STEP_START_DATE)?.to_owned();
    let range = DateTimeRange::new(&date, text(tags::SCHEDULED_PROCEDURE_STEP_START_TIME)?)?;
    for element in step.iter_mut().filter(|element| {
        matches!(element.tag, tags::SCHEDULED_PROCEDURE_STEP_START_DATE | tags::SCHEDULED_PROCEDURE_STEP_START_TIME)
    }) {
        element.value = KeyValue::Text(String::new());
    }
    Some(CombinedStart { range, date })
}

fn step_of_mut(keys: &mut [KeyElement]) -> Option<&mut Vec<KeyElement>> {
    match &mut keys.iter_mut().find(|element| element.tag == tags::SCHEDULED_PROCEDURE_STEP_SEQUENCE)?.value {
        KeyValue::Items(items) => items.first_mut(),
        KeyValue::Text(_) => None,
    }
}

/// A range of dates and times together, and its date key, by which the index narrows.
struct CombinedStart {
    range: DateTimeRange,
    date: String,
}

type ColumnConditions = (Vec<(WorklistColumn, Matching)>, Vec<WorklistCondition>);

/// Returns the conditions on columns, and what an index can use of them.
fn columns(
    keys: &[KeyElement],
    start: Option<&CombinedStart>,
    policy: &MatchPolicy,
) -> Result<ColumnConditions, FindError> {
    let mut columns = Vec::new();
    let mut conditions = Vec::new();
    let mut step = Vec::new();
    if let Some(KeyValue::Items(items)) =
        keys.iter().find(|key| key.tag == tags::SCHEDULED_PROCEDURE_STEP_SEQUENCE).map(|key| &key.value)
    {
        step.extend(items.first().into_iter().flatten());
    }
    let of_root = keys.iter().filter_map(|key| Some((key, column_of(&ROOT_COLUMNS, key.tag)?)));
    let of_step = step.into_iter().filter_map(|key| Some((key, column_of(&STEP_COLUMNS, key.tag)?)));
    for (key, column) in of_root.chain(of_step) {
        let KeyValue::Text(text) = &key.value else { continue };
        // A device may be scheduled at several stations.
        let has_several = column == WorklistColumn::StationAeTitle;
        let multiplicity = if has_several { Multiplicity::Many } else { Multiplicity::One };
        let comparison = Comparison { multiplicity, ..comparison(key) };
        let invalid = |error| FindError::InvalidKey(key.tag, error);
        let matching = Matching::compile(comparison, text, policy).map_err(invalid)?;
        if matches!(matching, Matching::Universal) {
            continue;
        }
        let alone = Comparison { multiplicity: Multiplicity::One, ..comparison };
        let narrowing = Matching::compile(alone, text, policy).map_err(invalid)?.narrowing();
        conditions.push(WorklistCondition { column, narrowing, passes_several: has_several });
        columns.push((column, matching));
    }
    if let Some(CombinedStart { date, .. }) = start {
        let comparison = Comparison { vr: VR::DA, multiplicity: Multiplicity::One, letter_case: LetterCase::Sensitive };
        let invalid = |error| FindError::InvalidKey(tags::SCHEDULED_PROCEDURE_STEP_START_DATE, error);
        let narrowing = Matching::compile(comparison, date, policy).map_err(invalid)?.narrowing();
        conditions.push(WorklistCondition { column: WorklistColumn::StartDate, narrowing, passes_several: false });
    }
    Ok((columns, conditions))
}

fn column_of(columns: &[(Tag, WorklistColumn)], tag: Tag) -> Option<WorklistColumn> {
    columns.iter().find(|(known, _)| *known == tag).map(|(_, column)| *column)
}

/// Returns how a key is compared, as in the items of a sequence.
fn comparison(key: &KeyElement) -> Comparison {
    let letter_case = Attribute::by_tag(key.tag).map_or(LetterCase::Sensitive, |attribute| attribute.letter_case);
    let vr = crate::qr::keys::vr(key.tag);
    let vr = if vr == VR::UN { key.vr } else { vr };
    Comparison { vr, multiplicity: Multiplicity::Many, letter_case }
}

/// Sets Scheduled Procedure Step Status (0040,0020) to the state of the row.
fn show_state(item: &mut Value, state: WorklistState) {
    let Some(step) = item.pointer_mut(&format!("/{}/Value/0", json_key(tags::SCHEDULED_PROCEDURE_STEP_SEQUENCE)))
    else {
        return;
    };
    let Some(step) = step.as_object_mut() else { return };
    let status = json_key(tags::SCHEDULED_PROCEDURE_STEP_STATUS);
    match state {
        WorklistState::Scheduled if step.contains_key(&status) => {}
        WorklistState::Scheduled => {
            step.insert(status, json!({ "vr": "CS", "Value": ["SCHEDULED"] }));
        }
        _ => {
            step.insert(status, json!({ "vr": "CS", "Value": ["STARTED"] }));
        }
    }
}
