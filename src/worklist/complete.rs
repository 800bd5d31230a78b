//! Intake: an order becomes an item that has everything a modality needs.
//!
//! The Type 1 attributes of PS3.4 table K.6-1 always get a value, because devices do not show items
//! without one. What the order lacks is made from what it has, so that the same order gives the
//! same values again. The names of such values are kept with the item.

use std::time::Duration;

use dicom_core::{Tag, VR};
use dicom_dictionary_std::tags;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

use super::attributes::SINGLE_VALUES;
use super::item::{WorklistItem, items_in, text_in};
use super::message_times::MessageTimes;
use crate::db::{WorklistColumn, WorklistRow, WorklistSource, WorklistState};
use crate::encoding::vr::max_characters;
use crate::model::datetime::{self, Day};
use crate::model::local_time::{local_date_and_time, local_ms};
use crate::model::matching::{KeyElement, KeyValue, separates_values, trim};
use crate::model::uid::{is_valid_uid, uid_of_uuid};
use crate::model::written_time;
use crate::qr::keys;

/// Maximum characters of an identifier that is made here (VR SH).
const MAX_ID: usize = 16;

/// The station of an item whose order names none and whose modality has none in the settings.
const NO_STATION: &str = "UNKNOWN";

/// The warning of an item that has no station.
const NO_STATION_WARNING: &str = "no station: the order names none, and `worklist.stations` has none";

/// Settings of intake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IntakeOptions {
    /// Pairs of a modality and the AE title of its station, for orders that name no station.
    pub stations: Vec<(String, String)>,
    /// Time after its start for which an item is still found.
    pub keep: Duration,
}

impl Default for IntakeOptions {
    fn default() -> Self {
        Self { stations: Vec::new(), keep: Duration::from_secs(24 * 3600) }
    }
}

/// Facts about an order beside its item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderFacts {
    /// By which way it came.
    pub source: WorklistSource,
    /// The file, or who sent the message.
    pub origin: String,
    /// Its order numbers, the strongest first. Empty if it has none.
    pub order_keys: Vec<String>,
    /// When the message was made: a DT value, or empty. [`WorklistRow::message_time`] says what may
    /// follow.
    pub message_time: String,
    /// The present moment, in milliseconds since 1970 UTC.
    pub now_ms: i64,
}

impl OrderFacts {
    pub(super) fn times(&self) -> MessageTimes<'_> {
        MessageTimes::of(&self.message_time)
    }

    /// Whether a row is of another order: both have a number of the same kind, and they differ.
    pub(super) fn is_another_order(&self, row: &WorklistRow) -> bool {
        let Some((kind, number)) = kind_and_number(&row.order_key) else { return false };
        let mut numbers = self.order_keys.iter().filter_map(|key| kind_and_number(key)).filter(|(of, _)| *of == kind);
        let differs = |(_, other): (&str, &str)| other != number;
        numbers.next().is_some_and(|first| differs(first) && numbers.all(differs))
    }
}

/// Returns the kind of an order number, placer or filler, and the number alone. Messages may leave
/// out the application that gave it.
fn kind_and_number(order_key: &str) -> Option<(&str, &str)> {
    let mut parts = order_key.split('|');
    Some((parts.next()?, parts.next()?))
}

/// A value that [`complete`] makes of other values.
pub(super) struct MadeValue {
    pub(super) tag: Tag,
    /// The values that it is made of.
    pub(super) of: &'static [Tag],
    /// Whether it goes with those also where an order gave it: it is said of them.
    pub(super) goes_with_them: bool,
}

/// All values that are made of others. Identifiers and the start are no part of them, because they
/// stay as they are.
pub(super) const MADE_OF: [MadeValue; 8] = [
    MadeValue { tag: tags::PATIENT_NAME, of: &[tags::PATIENT_ID], goes_with_them: true },
    MadeValue { tag: tags::MODALITY, of: &[tags::SCHEDULED_STATION_AE_TITLE], goes_with_them: false },
    MadeValue { tag: tags::SCHEDULED_STATION_AE_TITLE, of: &[tags::MODALITY], goes_with_them: true },
    MadeValue {
        tag: tags::SCHEDULED_PROCEDURE_STEP_DESCRIPTION,
        of: &[
            tags::SCHEDULED_PROTOCOL_CODE_SEQUENCE,
            tags::REQUESTED_PROCEDURE_DESCRIPTION,
            tags::REQUESTED_PROCEDURE_CODE_SEQUENCE,
        ],
        goes_with_them: true,
    },
    MadeValue {
        tag: tags::REQUESTED_PROCEDURE_DESCRIPTION,
        of: &[
            tags::REQUESTED_PROCEDURE_CODE_SEQUENCE,
            tags::SCHEDULED_PROCEDURE_STEP_DESCRIPTION,
            tags::SCHEDULED_PROTOCOL_CODE_SEQUENCE,
        ],
        goes_with_them: false,
    },
    // These are never made. What an order said of them goes.
    MadeValue {
        tag: tags::SCHEDULED_PROTOCOL_CODE_SEQUENCE,
        of: &[tags::REQUESTED_PROCEDURE_CODE_SEQUENCE, tags::REQUESTED_PROCEDURE_DESCRIPTION],
        goes_with_them: true,
    },
    MadeValue {
        tag: tags::SCHEDULED_STATION_NAME,
        of: &[tags::SCHEDULED_STATION_AE_TITLE, tags::MODALITY],
        goes_with_them: true,
    },
    MadeValue {
        tag: tags::SCHEDULED_PROCEDURE_STEP_LOCATION,
        of: &[tags::SCHEDULED_STATION_AE_TITLE, tags::MODALITY],
        goes_with_them: true,
    },
];

/// Reason why an order cannot become an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IntakeError {
    /// It has no Patient ID.
    #[error("it names no patient: Patient ID (0010,0020) is missing")]
    NoPatient,
    /// Nothing tells it apart from other orders of the patient.
    #[error(
        "nothing tells it apart from other orders: accession number, requested procedure ID, step ID and Study Instance \
         UID are missing"
    )]
    NoOrder,
    /// Its start is no date. The patient must not stand on the list of another day.
    #[error("Scheduled Procedure Step Start Date (0040,0002) is no date")]
    NoStartDate,
}

/// A complete item, before it is a row.
#[derive(Clone, PartialEq, Eq)]
pub struct Draft {
    pub(super) item: WorklistItem,
    /// Tags of the values that were made here.
    pub(super) generated: Vec<Tag>,
    /// Tags of elements that the order has without a value that can be used.
    pub(super) emptied: Vec<Tag>,
    pub(super) warnings: Vec<String>,
    pub(super) facts: OrderFacts,
}

/// Without the values, which are of a patient.
impl std::fmt::Debug for Draft {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Draft").field("generated", &self.generated).finish_non_exhaustive()
    }
}

/// Completes an item, so that it has the return keys of type 1 of PS3.4 table K.6-1.
///
/// UIDs and IDs that the order lacks are made of its other identifiers: the same for the same
/// order. Start, modality and station come from `facts` and `options`. Values that break their VR
/// are corrected. [`Draft::generated`] and [`Draft::warnings`] name what was made and corrected.
///
/// # Errors
/// Fails if the order names no patient, or has nothing that tells it apart from others, or if its
/// start is no date.
pub fn complete(item: WorklistItem, facts: OrderFacts, options: &IntakeOptions) -> Result<Draft, IntakeError> {
    let mut item = item;
    item.gather_step();
    if has_unreadable_start(&item) {
        return Err(IntakeError::NoStartDate);
    }
    let whole_accession = trim(VR::SH, item.text(tags::ACCESSION_NUMBER)).to_owned();
    let mut emptied: Vec<Tag> = item.tags().collect();
    let mut draft = Draft { item, generated: Vec::new(), emptied: Vec::new(), warnings: Vec::new(), facts };
    draft.clean();
    emptied.retain(|tag| draft.item.value(*tag).is_none());
    draft.emptied = emptied;
    if draft.item.text(tags::PATIENT_ID).is_empty() {
        return Err(IntakeError::NoPatient);
    }
    draft.identify(&whole_accession)?;
    draft.describe(options);
    draft.warn_of_station();
    draft.start();
    draft.item.sort();
    Ok(draft)
}

/// Whether the start of an item has a value that is no date.
pub(super) fn has_unreadable_start(item: &WorklistItem) -> bool {
    let text = item.step_text(tags::SCHEDULED_PROCEDURE_STEP_START_DATE);
    !text.trim().is_empty() && cleaned(VR::DA, text).text.is_empty()
}

impl Draft {
    /// Returns keywords of the values that were made here.
    #[must_use]
    pub fn generated(&self) -> Vec<String> {
        self.generated.iter().map(|tag| keys::keyword(*tag)).collect()
    }

    /// Returns the corrections that intake made, as texts.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Returns Study Instance UID and Scheduled Procedure Step ID.
    pub(super) fn step(&self) -> (&str, &str) {
        (self.item.text(tags::STUDY_INSTANCE_UID), self.item.step_text(tags::SCHEDULED_PROCEDURE_STEP_ID))
    }

    /// Trims values, cuts those that are too long for their VR, and drops dates that are none.
    fn clean(&mut self) {
        clean(&mut self.item.elements, &mut self.warnings);
    }

    fn make(&mut self, tag: Tag, text: &str) {
        self.item.set(tag, text);
        self.generated.push(tag);
    }

    fn make_of_step(&mut self, tag: Tag, text: &str) {
        self.item.set_step(tag, text);
        self.generated.push(tag);
    }

    /// Makes the identifiers that are missing.
    fn identify(&mut self, accession: &str) -> Result<(), IntakeError> {
        let procedure = self.item.text(tags::REQUESTED_PROCEDURE_ID).to_owned();
        let step = self.item.step_text(tags::SCHEDULED_PROCEDURE_STEP_ID).to_owned();
        let given_study = self.item.text(tags::STUDY_INSTANCE_UID).to_owned();
        let has_study = is_valid_uid(&given_study);
        if !given_study.is_empty() && !has_study {
            self.warnings.push("Study Instance UID is no UID, so another was made".to_owned());
        }
        let Some(known) = [accession, &procedure, &step].into_iter().find(|id| !id.is_empty()) else {
            // Its UID tells the order apart. Identifiers are made of its end, which differs most.
            if !has_study {
                return Err(IntakeError::NoOrder);
            }
            let id = last_characters(&given_study);
            self.make(tags::REQUESTED_PROCEDURE_ID, &id);
            self.make_of_step(tags::SCHEDULED_PROCEDURE_STEP_ID, &id);
            return Ok(());
        };
        let short = last_characters(known);
        if short.len() < known.len() {
            self.warnings.push(format!("an identifier was made of the last {MAX_ID} characters of a longer one"));
        }
        if procedure.is_empty() {
            self.make(tags::REQUESTED_PROCEDURE_ID, &short);
        }
        if step.is_empty() {
            self.make_of_step(tags::SCHEDULED_PROCEDURE_STEP_ID, &short);
        }
        if !has_study {
            let issuer = self.item.text(tags::ISSUER_OF_PATIENT_ID).to_owned();
            // Without an accession number, only the patient makes the identifiers unique.
            let patient =
                if accession.is_empty() { self.item.text(tags::PATIENT_ID).to_owned() } else { String::new() };
            let uid = study_uid(&[&issuer, &patient, accession, &procedure]);
            self.make(tags::STUDY_INSTANCE_UID, &uid);
        }
        Ok(())
    }

    /// Makes the identifiers that were made once more, of the number of the order and the patient.
    /// Another order has those of before.
    pub(super) fn tell_apart(&mut self) {
        let key = self.facts.order_keys.first().cloned().unwrap_or_default();
        if let Some((_, number)) = kind_and_number(&key) {
            let id = last_characters(number);
            if self.generated.contains(&tags::REQUESTED_PROCEDURE_ID) {
                self.item.set(tags::REQUESTED_PROCEDURE_ID, &id);
            }
            if self.generated.contains(&tags::SCHEDULED_PROCEDURE_STEP_ID) {
                self.item.set_step(tags::SCHEDULED_PROCEDURE_STEP_ID, &id);
            }
        }
        if self.generated.contains(&tags::STUDY_INSTANCE_UID) {
            let uid = study_uid(&[self.item.text(tags::STUDY_INSTANCE_UID), self.item.text(tags::PATIENT_ID), &key]);
            self.item.set(tags::STUDY_INSTANCE_UID, &uid);
        }
    }

    /// Takes a value out, as if the order had none.
    pub(super) fn take_out(&mut self, tag: Tag) {
        self.item.set(tag, "");
        self.item.set_step(tag, "");
    }

    /// Makes modality, station, name and descriptions that are missing. Their names are in
    /// [`MADE_OF`].
    pub(super) fn describe(&mut self, options: &IntakeOptions) {
        if self.item.text(tags::PATIENT_NAME).is_empty() {
            let id = self.item.text(tags::PATIENT_ID).to_owned();
            self.make(tags::PATIENT_NAME, &id);
        }
        if self.item.step_text(tags::MODALITY).is_empty() {
            let station = self.item.step_text(tags::SCHEDULED_STATION_AE_TITLE);
            let of_station = options.stations.iter().find(|(_, title)| station.split('\\').any(|one| one == title));
            let modality = of_station.map_or("OT", |(modality, _)| modality).to_owned();
            self.make_of_step(tags::MODALITY, &modality);
        }
        if self.item.step_text(tags::SCHEDULED_STATION_AE_TITLE).is_empty() {
            let modality = self.item.step_text(tags::MODALITY);
            let of_modality = options.stations.iter().filter(|(known, _)| known == modality);
            let titles = of_modality.map(|(_, title)| title.as_str()).collect::<Vec<_>>().join("\\");
            if titles.is_empty() {
                self.make_of_step(tags::SCHEDULED_STATION_AE_TITLE, NO_STATION);
            } else {
                self.make_of_step(tags::SCHEDULED_STATION_AE_TITLE, &titles);
            }
        }
        // PS3.4 table K.6-1: description or code, or both, of the step and of the procedure.
        let of_procedure = self.item.text(tags::REQUESTED_PROCEDURE_DESCRIPTION).to_owned();
        let of_step = self.item.step_text(tags::SCHEDULED_PROCEDURE_STEP_DESCRIPTION).to_owned();
        let procedure_code = meaning(items_in(&self.item.elements, tags::REQUESTED_PROCEDURE_CODE_SEQUENCE));
        let step_code = meaning(items_in(self.item.step().unwrap_or_default(), tags::SCHEDULED_PROTOCOL_CODE_SEQUENCE));
        let first = |texts: [&str; 4]| {
            let found = texts.into_iter().find(|text| !text.is_empty()).map(str::to_owned);
            found.unwrap_or_else(|| "Procedure".to_owned())
        };
        if of_step.is_empty() {
            self.make_of_step(
                tags::SCHEDULED_PROCEDURE_STEP_DESCRIPTION,
                &first([&step_code, &of_procedure, &procedure_code, ""]),
            );
        }
        if of_procedure.is_empty() {
            self.make(tags::REQUESTED_PROCEDURE_DESCRIPTION, &first([&procedure_code, &of_step, &step_code, ""]));
        }
    }

    /// Notes that the item has no station, or no longer notes it.
    pub(super) fn warn_of_station(&mut self) {
        self.warnings.retain(|warning| warning != NO_STATION_WARNING);
        let is_made = self.generated.contains(&tags::SCHEDULED_STATION_AE_TITLE);
        if is_made && self.item.step_text(tags::SCHEDULED_STATION_AE_TITLE) == NO_STATION {
            self.warnings.push(NO_STATION_WARNING.to_owned());
        }
    }

    /// Makes start date and time that are missing. An order without them is for now.
    fn start(&mut self) {
        let (date, time) = local_date_and_time(self.facts.now_ms);
        let has_date = !self.item.step_text(tags::SCHEDULED_PROCEDURE_STEP_START_DATE).is_empty();
        if !has_date {
            self.make_of_step(tags::SCHEDULED_PROCEDURE_STEP_START_DATE, &date);
        }
        if self.item.step_text(tags::SCHEDULED_PROCEDURE_STEP_START_TIME).is_empty() {
            // A day without a time begins with its first moment.
            self.make_of_step(tags::SCHEDULED_PROCEDURE_STEP_START_TIME, if has_date { "0000" } else { &time });
        }
    }

    /// Returns the row of the draft, as a new one.
    pub(super) fn row(&self, options: &IntakeOptions) -> WorklistRow {
        let item = &self.item;
        let column = |column: WorklistColumn| match column {
            WorklistColumn::StudyInstanceUid => item.text(tags::STUDY_INSTANCE_UID),
            WorklistColumn::StepId => item.step_text(tags::SCHEDULED_PROCEDURE_STEP_ID),
            WorklistColumn::StationAeTitle => item.step_text(tags::SCHEDULED_STATION_AE_TITLE),
            WorklistColumn::StartDate => item.step_text(tags::SCHEDULED_PROCEDURE_STEP_START_DATE),
            WorklistColumn::StartTime => item.step_text(tags::SCHEDULED_PROCEDURE_STEP_START_TIME),
            WorklistColumn::Modality => item.step_text(tags::MODALITY),
            WorklistColumn::PerformingPhysicianName => item.step_text(tags::SCHEDULED_PERFORMING_PHYSICIAN_NAME),
            WorklistColumn::PatientName => item.text(tags::PATIENT_NAME),
            WorklistColumn::PatientId => item.text(tags::PATIENT_ID),
            WorklistColumn::AccessionNumber => item.text(tags::ACCESSION_NUMBER),
        };
        let start = local_ms(
            item.step_text(tags::SCHEDULED_PROCEDURE_STEP_START_DATE),
            item.step_text(tags::SCHEDULED_PROCEDURE_STEP_START_TIME),
        );
        let now = self.facts.now_ms;
        // An order that comes late is to be found all the same.
        let begins = start.map_or(now, |start| start.max(now));
        let keep = i64::try_from(options.keep.as_millis()).unwrap_or(i64::MAX);
        WorklistRow {
            id: 0,
            values: WorklistColumn::ALL.map(|each| column(each).to_owned()),
            item: item.to_json(),
            character_set: item.character_set.clone(),
            order_key: self.facts.order_keys.first().cloned().unwrap_or_default(),
            source: self.facts.source,
            origin: self.facts.origin.clone(),
            generated: self.generated(),
            warnings: self.warnings.clone(),
            state: WorklistState::Scheduled,
            received_ms: now,
            changed_ms: now,
            expires_ms: begins.saturating_add(keep),
            message_time: self.facts.message_time.clone(),
        }
    }
}

/// Returns a UID that is the same for the same parts: 2.25 and a name-based UUID (RFC 9562 5.5).
pub(super) fn study_uid(parts: &[&str]) -> String {
    /// The name space of these UUIDs. It was drawn once, and must never change.
    const NAME_SPACE: [u8; 16] =
        [0x8d, 0x1f, 0x0c, 0x5e, 0x36, 0x3b, 0x4b, 0x8a, 0x9d, 0x52, 0x41, 0xe7, 0x6f, 0x20, 0xb9, 0x14];
    let mut name = NAME_SPACE.to_vec();
    for part in parts {
        name.extend(part.as_bytes());
        name.push(0);
    }
    let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, &name);
    let mut uuid = [0; 16];
    uuid.iter_mut().zip(hash.as_ref()).for_each(|(to, from)| *to = *from);
    uid_of_uuid(uuid, 5)
}

/// Returns the last characters that fit into an identifier. Numbers differ most at their end.
fn last_characters(text: &str) -> String {
    let count = text.chars().count();
    text.chars().skip(count.saturating_sub(MAX_ID)).collect()
}

fn meaning(codes: &[Vec<KeyElement>]) -> String {
    codes.first().map_or("", |code| text_in(code, tags::CODE_MEANING)).to_owned()
}

fn clean(elements: &mut Vec<KeyElement>, warnings: &mut Vec<String>) {
    elements.retain_mut(|element| {
        let (tag, vr) = (element.tag, element.vr);
        match &mut element.value {
            KeyValue::Items(items) => {
                items.iter_mut().for_each(|item| clean(item, warnings));
                true
            }
            KeyValue::Text(text) => {
                let cleaned = cleaned(vr, text);
                if cleaned.was_cut {
                    warnings.push(format!("{} was cut, because it is too long", keys::keyword(tag)));
                }
                if cleaned.text.is_empty() && !text.trim().is_empty() && matches!(vr, VR::DA | VR::TM) {
                    warnings.push(format!("{} has no valid value and was left out", keys::keyword(tag)));
                }
                *text = cleaned.text;
                if SINGLE_VALUES.contains(&tag)
                    && let Some(end) = text.find('\\')
                {
                    warnings.push(format!("{} has several values, and the first was kept", keys::keyword(tag)));
                    text.truncate(end);
                }
                !text.is_empty()
            }
        }
    });
}

struct CleanedText {
    text: String,
    was_cut: bool,
}

fn cleaned(vr: VR, text: &str) -> CleanedText {
    let mut was_cut = false;
    let mut one = |value: &str| {
        let value = trim(vr, value);
        match vr {
            VR::DA => datetime::one_day(value).or_else(|| iso_day(value)).map(datetime::day_text).unwrap_or_default(),
            VR::TM => datetime::times(value).map(|_| value.replace(':', "")).unwrap_or_default(),
            VR::CS => cut(&value.to_uppercase(), vr, &mut was_cut),
            VR::PN => {
                let groups: Vec<_> = value.split('=').take(3).map(|group| cut(group, vr, &mut was_cut)).collect();
                groups.join("=").trim_end_matches('=').to_owned()
            }
            _ => cut(value, vr, &mut was_cut),
        }
    };
    let text =
        if separates_values(vr) { text.split('\\').map(&mut one).collect::<Vec<_>>().join("\\") } else { one(text) };
    // Values that are all empty are none.
    let text = if text.bytes().all(|byte| byte == b'\\') { String::new() } else { text };
    CleanedText { text, was_cut }
}

/// Reads `2026-12-01`, as programs write a date in JSON. Words such as `today` are no part of an
/// order.
fn iso_day(text: &str) -> Option<Day> {
    written_time::day(text, 0).filter(|_| text.len() == 10 && text.starts_with(|first: char| first.is_ascii_digit()))
}

fn cut(text: &str, vr: VR, was_cut: &mut bool) -> String {
    let Some(max) = max_characters(vr).filter(|max| text.chars().count() > *max) else { return text.to_owned() };
    *was_cut = true;
    text.chars().take(max).collect::<String>().trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> OrderFacts {
        OrderFacts {
            source: WorklistSource::Command,
            origin: String::new(),
            order_keys: Vec::new(),
            message_time: String::new(),
            now_ms: local_ms("20261129", "101500").unwrap(),
        }
    }

    fn item(json: &str) -> WorklistItem {
        let value: serde_json::Value = serde_json::from_str(json).unwrap();
        WorklistItem::from_json(value.as_object().unwrap()).unwrap()
    }

    fn completed(json: &str) -> Draft {
        complete(item(json), facts(), &IntakeOptions::default()).unwrap()
    }

    #[test]
    fn what_an_order_lacks_is_made_and_is_the_same_again() {
        let order = r#"{"PatientID": "P1", "AccessionNumber": "A-2026-1", "Modality": "CT"}"#;
        let (one, again) = (completed(order), completed(order));
        assert!(one == again);
        let uid = one.item.text(tags::STUDY_INSTANCE_UID).to_owned();
        assert!(is_valid_uid(&uid) && uid.starts_with("2.25."), "{uid}");
        assert_eq!(one.item.text(tags::REQUESTED_PROCEDURE_ID), "A-2026-1");
        assert_eq!(one.item.step_text(tags::SCHEDULED_PROCEDURE_STEP_ID), "A-2026-1");
        assert_eq!(
            (
                one.item.step_text(tags::SCHEDULED_PROCEDURE_STEP_START_DATE),
                one.item.step_text(tags::SCHEDULED_PROCEDURE_STEP_START_TIME)
            ),
            ("20261129", "101500")
        );
        let made = one.generated();
        for keyword in ["StudyInstanceUID", "RequestedProcedureID", "ScheduledProcedureStepID", "PatientName"] {
            assert!(made.iter().any(|name| name == keyword), "{keyword} {made:?}");
        }
        let other = completed(r#"{"PatientID": "P1", "AccessionNumber": "A-2026-2"}"#);
        assert_ne!(other.item.text(tags::STUDY_INSTANCE_UID), uid);
    }

    #[test]
    fn values_that_are_too_long_are_cut_with_a_warning() {
        let long = completed(&format!(r#"{{"PatientID": "P1", "AccessionNumber": "{}1"}}"#, "0123456789".repeat(2)));
        assert_eq!(long.item.text(tags::ACCESSION_NUMBER), "0123456789012345");
        assert_eq!(long.item.step_text(tags::SCHEDULED_PROCEDURE_STEP_ID), "5678901234567891");
        assert!(long.warnings().iter().any(|warning| warning.contains("AccessionNumber was cut")));
        let other = completed(&format!(r#"{{"PatientID": "P1", "AccessionNumber": "{}2"}}"#, "0123456789".repeat(2)));
        assert_ne!(
            other.item.text(tags::STUDY_INSTANCE_UID),
            long.item.text(tags::STUDY_INSTANCE_UID),
            "the whole number counts"
        );
    }

    #[test]
    fn a_given_identifier_stays_and_an_invalid_uid_does_not() {
        let given = completed(
            r#"{"PatientID": "P1", "StudyInstanceUID": "1.2.3", "RequestedProcedureID": "R1",
                "ScheduledProcedureStepSequence": [{"ScheduledProcedureStepID": "S1", "ScheduledProcedureStepStartDate":
                "2026.11.30"}]}"#,
        );
        assert_eq!(
            (given.item.text(tags::STUDY_INSTANCE_UID), given.item.step_text(tags::SCHEDULED_PROCEDURE_STEP_ID)),
            ("1.2.3", "S1")
        );
        assert_eq!(
            given.item.step_text(tags::SCHEDULED_PROCEDURE_STEP_START_DATE),
            "20261130",
            "dates are kept in one form"
        );
        let invalid = completed(r#"{"PatientID": "P1", "StudyInstanceUID": "1.02.x", "AccessionNumber": "A"}"#);
        assert!(is_valid_uid(invalid.item.text(tags::STUDY_INSTANCE_UID)));
    }

    #[test]
    fn a_start_as_programs_write_it_is_read_and_one_that_is_no_date_is_refused() {
        let of = |start: &str| {
            let step = format!(r#"[{{"ScheduledProcedureStepStartDate": "{start}"}}]"#);
            let order = format!(r#"{{"PatientID": "P1", "AccessionNumber": "A", "00400100": {step}}}"#);
            complete(item(&order), facts(), &IntakeOptions::default())
        };
        for (start, expected) in [("2026-12-01", "20261201"), ("20261201", "20261201"), ("2026.12.01", "20261201")] {
            assert_eq!(
                of(start).unwrap().item.step_text(tags::SCHEDULED_PROCEDURE_STEP_START_DATE),
                expected,
                "{start}"
            );
        }
        for start in ["20261399", "2026-13-01", "2026-12", "tomorrow", "today", "01.12.2026", "2026-12-01T08:00"] {
            assert_eq!(of(start).unwrap_err(), IntakeError::NoStartDate, "{start}");
        }
        assert_eq!(
            of(" ").unwrap().item.step_text(tags::SCHEDULED_PROCEDURE_STEP_START_DATE),
            "20261129",
            "an order without a start is for now"
        );
        let born = completed(r#"{"PatientID": "P1", "AccessionNumber": "A", "PatientBirthDate": "1980-05-06"}"#);
        assert_eq!(born.item.text(tags::PATIENT_BIRTH_DATE), "19800506");
    }

    #[test]
    fn stations_of_the_settings_fill_what_the_order_does_not_name() {
        let options = IntakeOptions {
            stations: [("CT", "CT1"), ("CT", "CT2"), ("MR", "MR1")].map(|(m, t)| (m.into(), t.into())).into(),
            ..IntakeOptions::default()
        };
        let station = |json: &str| {
            let draft = complete(item(json), facts(), &options).unwrap();
            (
                draft.item.step_text(tags::MODALITY).to_owned(),
                draft.item.step_text(tags::SCHEDULED_STATION_AE_TITLE).to_owned(),
            )
        };
        let of = |step: &str| format!(r#"{{"PatientID": "1", "AccessionNumber": "1", "00400100": [{step}]}}"#);
        assert_eq!(station(&of(r#"{"Modality": "ct"}"#)), ("CT".into(), "CT1\\CT2".into()));
        assert_eq!(station(&of(r#"{"ScheduledStationAETitle": "MR1"}"#)), ("MR".into(), "MR1".into()));
        assert_eq!(station(&of(r#"{"Modality": "US"}"#)), ("US".into(), NO_STATION.into()));
    }

    #[test]
    fn an_order_without_patient_or_number_is_refused() {
        let refused = |json: &str| complete(item(json), facts(), &IntakeOptions::default()).unwrap_err();
        assert_eq!(refused(r#"{"AccessionNumber": "A", "PatientName": "X"}"#), IntakeError::NoPatient);
        assert_eq!(refused(r#"{"PatientID": "P1", "PatientName": "X"}"#), IntakeError::NoOrder);
    }
}
