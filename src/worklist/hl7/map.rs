//! Map of the fields of a message to attributes. The defaults are those of IHE RAD TF vol. 2 (RAD-4
//! and RAD-5), and the settings replace any line.

use std::collections::HashSet;
use std::fmt;

use dicom_core::{Tag, VR};
use dicom_dictionary_std::tags;

use super::message::{
    Delimiters, FieldPath, FieldPathError, Hl7Segment, Message, component_of, nth, text_of, unescaped,
};
use super::observation::Observation;
use crate::model::datetime;
use crate::model::local_time::local_date_and_time;
use crate::model::matching::{KeyElement, KeyValue};
use crate::worklist::item::{WorklistItem, set_in};

/// Name of the segments with observations.
const OBSERVATION_SEGMENT: &str = "OBX";

/// Maximum number of texts of one line. More would not fit into an element.
const MAX_TEXTS: usize = 100;

/// Text in place of those that are too many.
const MORE_TEXTS: &str = "(more than can be shown)";

/// Form that a line gives to its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LineKind {
    /// A text.
    Text,
    /// The texts of all repetitions of a field in all segments, with this between them. A warning
    /// that is left out harms the patient.
    Texts(&'static str),
    /// A name (XPN): family, given, middle, suffix, prefix.
    Name,
    /// A person (XCN): an identifier, and then as in a name.
    Person,
    /// A code (CE): value, meaning, scheme.
    Code,
    /// A code, if it names its scheme. Otherwise the field is a text.
    CodeWithScheme,
    /// An authority in one component (HD).
    Authority,
    /// The authority of an order number (EI): the components after the number.
    OrderAuthority,
    /// A date.
    Date,
    /// Date and time of the start.
    Start,
    /// A priority of HL7 table 0485 or 0038.
    Priority,
    /// A sex of HL7 table 0001.
    Sex,
    /// An ambulatory status: B6 is pregnant.
    Pregnancy,
    /// A number with its unit, of the OBX segment that has this observation. In other segments it
    /// is a text in the unit of DICOM.
    Observed(Observation),
}

/// Target of the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LineTarget {
    /// An attribute at the root.
    Root(Tag),
    /// An attribute of the scheduled procedure step.
    Step(Tag),
}

/// A line of the mapping.
struct MapLine {
    name: &'static str,
    kind: LineKind,
    target: LineTarget,
    /// Fields, the strongest first.
    fields: &'static str,
}

impl MapLine {
    /// Notes that the message says that there is no value.
    fn empty(&self, item: &mut WorklistItem) {
        match self.target {
            LineTarget::Root(tag) => item.empty(tag),
            LineTarget::Step(tag) => item.empty_of_step(tag),
        }
    }
}

const fn line(name: &'static str, kind: LineKind, target: LineTarget, fields: &'static str) -> MapLine {
    MapLine { name, kind, target, fields }
}

/// All lines. IPC comes first: "the values in IPC take precedence" over those in OBR.
const LINES: &[MapLine] = &[
    line("patient_id", LineKind::Text, LineTarget::Root(tags::PATIENT_ID), "PID-3.1, PID-2.1"),
    line("issuer_of_patient_id", LineKind::Text, LineTarget::Root(tags::ISSUER_OF_PATIENT_ID), "PID-3.4.1"),
    line("patient_name", LineKind::Name, LineTarget::Root(tags::PATIENT_NAME), "PID-5"),
    line("patient_birth_date", LineKind::Date, LineTarget::Root(tags::PATIENT_BIRTH_DATE), "PID-7.1"),
    line("patient_sex", LineKind::Sex, LineTarget::Root(tags::PATIENT_SEX), "PID-8.1"),
    line("patient_weight", LineKind::Observed(Observation::Weight), LineTarget::Root(tags::PATIENT_WEIGHT), "OBX-5.1"),
    line("patient_size", LineKind::Observed(Observation::Height), LineTarget::Root(tags::PATIENT_SIZE), "OBX-5.1"),
    line("admission_id", LineKind::Text, LineTarget::Root(tags::ADMISSION_ID), "PV1-19.1, PID-18.1"),
    line(
        "issuer_of_admission_id",
        LineKind::Authority,
        LineTarget::Root(tags::ISSUER_OF_ADMISSION_ID_SEQUENCE),
        "PV1-19.4, PID-18.4",
    ),
    line("patient_location", LineKind::Text, LineTarget::Root(tags::CURRENT_PATIENT_LOCATION), "PV1-3"),
    line("pregnancy_status", LineKind::Pregnancy, LineTarget::Root(tags::PREGNANCY_STATUS), "PV1-15.1"),
    line(
        "confidentiality",
        LineKind::Text,
        LineTarget::Root(tags::CONFIDENTIALITY_CONSTRAINT_ON_PATIENT_DATA_DESCRIPTION),
        "",
    ),
    line("referring_physician", LineKind::Person, LineTarget::Root(tags::REFERRING_PHYSICIAN_NAME), "PV1-8"),
    line("requesting_physician", LineKind::Person, LineTarget::Root(tags::REQUESTING_PHYSICIAN), "OBR-16, ORC-12"),
    line(
        "placer_order_number",
        LineKind::Text,
        LineTarget::Root(tags::PLACER_ORDER_NUMBER_IMAGING_SERVICE_REQUEST),
        "ORC-2.1, OBR-2.1",
    ),
    line(
        "filler_order_number",
        LineKind::Text,
        LineTarget::Root(tags::FILLER_ORDER_NUMBER_IMAGING_SERVICE_REQUEST),
        "ORC-3.1, OBR-3.1",
    ),
    line(
        "placer_order_issuer",
        LineKind::OrderAuthority,
        LineTarget::Root(tags::ORDER_PLACER_IDENTIFIER_SEQUENCE),
        "ORC-2.2, OBR-2.2",
    ),
    line(
        "filler_order_issuer",
        LineKind::OrderAuthority,
        LineTarget::Root(tags::ORDER_FILLER_IDENTIFIER_SEQUENCE),
        "ORC-3.2, OBR-3.2",
    ),
    line("accession_number", LineKind::Text, LineTarget::Root(tags::ACCESSION_NUMBER), "IPC-1.1, OBR-18.1"),
    line("requested_procedure_id", LineKind::Text, LineTarget::Root(tags::REQUESTED_PROCEDURE_ID), "IPC-2.1, OBR-19.1"),
    line("study_instance_uid", LineKind::Text, LineTarget::Root(tags::STUDY_INSTANCE_UID), "IPC-3.1, ZDS-1.1"),
    line(
        "priority",
        LineKind::Priority,
        LineTarget::Root(tags::REQUESTED_PROCEDURE_PRIORITY),
        "TQ1-9.1, ORC-7.6, OBR-27.6, OBR-5.1",
    ),
    line("procedure_code", LineKind::Code, LineTarget::Root(tags::REQUESTED_PROCEDURE_CODE_SEQUENCE), "OBR-44, OBR-4"),
    line(
        "procedure_description",
        LineKind::Text,
        LineTarget::Root(tags::REQUESTED_PROCEDURE_DESCRIPTION),
        "OBR-44.2, OBR-4.2",
    ),
    line("patient_state", LineKind::Texts(", "), LineTarget::Root(tags::PATIENT_STATE), "OBR-12.2, OBR-12.1"),
    line("medical_alerts", LineKind::Texts("\\"), LineTarget::Root(tags::MEDICAL_ALERTS), "OBR-13"),
    line("allergies", LineKind::Texts("\\"), LineTarget::Root(tags::ALLERGIES), "AL1-3.2, AL1-3.1"),
    line("patient_transport", LineKind::Text, LineTarget::Root(tags::PATIENT_TRANSPORT_ARRANGEMENTS), "OBR-30.1"),
    line("reason", LineKind::Text, LineTarget::Root(tags::REASON_FOR_THE_REQUESTED_PROCEDURE), "OBR-31.2, OBR-31.1"),
    line(
        "reason_code",
        LineKind::CodeWithScheme,
        LineTarget::Root(tags::REASON_FOR_REQUESTED_PROCEDURE_CODE_SEQUENCE),
        "OBR-31",
    ),
    line("step_id", LineKind::Text, LineTarget::Step(tags::SCHEDULED_PROCEDURE_STEP_ID), "IPC-4.1, OBR-20.1"),
    line("modality", LineKind::Text, LineTarget::Step(tags::MODALITY), "IPC-5.1, OBR-24.1"),
    line("protocol_code", LineKind::Code, LineTarget::Step(tags::SCHEDULED_PROTOCOL_CODE_SEQUENCE), "IPC-6, OBR-4.4"),
    line(
        "step_description",
        LineKind::Text,
        LineTarget::Step(tags::SCHEDULED_PROCEDURE_STEP_DESCRIPTION),
        "IPC-6.2, OBR-4.5",
    ),
    line("station_name", LineKind::Text, LineTarget::Step(tags::SCHEDULED_STATION_NAME), "IPC-7.1"),
    line("step_location", LineKind::Text, LineTarget::Step(tags::SCHEDULED_PROCEDURE_STEP_LOCATION), "IPC-8.1"),
    line("station_ae_title", LineKind::Text, LineTarget::Step(tags::SCHEDULED_STATION_AE_TITLE), "IPC-9.1"),
    line(
        "start",
        LineKind::Start,
        LineTarget::Step(tags::SCHEDULED_PROCEDURE_STEP_START_DATE),
        "TQ1-7.1, ORC-7.4, OBR-27.4, OBR-36.1",
    ),
    line(
        "performing_physician",
        LineKind::Person,
        LineTarget::Step(tags::SCHEDULED_PERFORMING_PHYSICIAN_NAME),
        "OBR-34",
    ),
];

/// The mapping in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hl7Map {
    /// Fields of each line, in the order of [`LINES`].
    fields: Vec<Vec<FieldPath>>,
    /// Assigning authority whose identifier of a patient counts. Empty if none is preferred.
    patient_authority: String,
}

/// Reason why a line of the settings cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Hl7MapError {
    /// It is written in another way.
    #[error("`{0}` is not written as in \"modality = IPC-5, OBR-24\"")]
    Form(String),
    /// There is no such line.
    #[error("`{0}` is no line of the mapping; the lines are {names}", names = names())]
    UnknownLine(String),
    /// A field is written in another way.
    #[error(transparent)]
    Field(#[from] FieldPathError),
}

fn names() -> String {
    LINES.iter().map(|line| line.name).collect::<Vec<_>>().join(", ")
}

impl Default for Hl7Map {
    fn default() -> Self {
        let fields = LINES.iter().map(|line| paths(line.fields).expect("the defaults are fields; a test reads them"));
        Self { fields: fields.collect(), patient_authority: String::new() }
    }
}

fn paths(text: &str) -> Result<Vec<FieldPath>, FieldPathError> {
    text.split(',').map(str::trim).filter(|path| !path.is_empty()).map(str::parse).collect()
}

impl Hl7Map {
    /// Replaces the fields of a line, as in `modality = IPC-5, OBR-24`. No fields switch the line
    /// off.
    ///
    /// # Errors
    /// See [`Hl7MapError`].
    pub fn replace(&mut self, text: &str) -> Result<(), Hl7MapError> {
        let (name, fields) = text.split_once('=').ok_or_else(|| Hl7MapError::Form(text.to_owned()))?;
        let at = LINES.iter().position(|line| line.name == name.trim());
        let at = at.ok_or_else(|| Hl7MapError::UnknownLine(name.trim().to_owned()))?;
        let fields = paths(fields)?;
        if let Some(place) = self.fields.get_mut(at) {
            *place = fields;
        }
        Ok(())
    }

    /// Sets the assigning authority whose identifier counts if a patient has several. Its name or
    /// its universal ID. Empty for none.
    pub fn set_patient_authority(&mut self, authority: &str) {
        authority.clone_into(&mut self.patient_authority);
    }

    /// Returns the assigning authority whose identifier counts.
    pub(super) fn patient_authority(&self) -> &str {
        &self.patient_authority
    }

    /// Returns all lines and their default fields, for documents.
    #[must_use]
    pub fn lines() -> Vec<(&'static str, &'static str)> {
        LINES.iter().map(|line| (line.name, line.fields)).collect()
    }

    /// Makes an item of an order.
    pub(super) fn item(&self, order: &OrderSegments<'_>, message: &Message) -> WorklistItem {
        let mut item = WorklistItem::new(Vec::new(), message.character_set.clone());
        for (line, fields) in LINES.iter().zip(&self.fields) {
            if let LineKind::Texts(separator) = line.kind {
                let has_value = set_text(line, &texts(fields, order, message.delimiters).join(separator), &mut item);
                let says = |field: &FieldPath| {
                    order.segments(&field.segment).any(|segment| segment.says(field.field, None, message.delimiters))
                };
                if !has_value && fields.iter().any(says) {
                    line.empty(&mut item);
                }
                continue;
            }
            let (mut has_value, mut is_said) = (false, false);
            for field in fields {
                let mut segments = order.segments(&field.segment);
                let segment = match line.kind {
                    LineKind::Observed(observation) if field.segment == OBSERVATION_SEGMENT => {
                        segments.find(|segment| observation.is_in(segment, message.delimiters))
                    }
                    _ => segments.next(),
                };
                let Some(segment) = segment else { continue };
                has_value = apply(line, field, segment, message.delimiters, &mut item);
                if has_value {
                    break;
                }
                is_said |= segment.says(field.field, field.component, message.delimiters);
            }
            if is_said && !has_value {
                line.empty(&mut item);
            }
        }
        item
    }
}

/// The segments of one order, and those that all orders of the message share.
pub(super) struct OrderSegments<'m> {
    pub(super) common: &'m [Hl7Segment],
    pub(super) own: Vec<&'m Hl7Segment>,
}

impl<'m> OrderSegments<'m> {
    /// Returns the segments of a name, those of the order first.
    fn segments<'o>(&'o self, name: &'o str) -> impl Iterator<Item = &'m Hl7Segment> + 'o {
        self.own.iter().copied().chain(self.common).filter(move |segment| segment.name == name)
    }
}

impl fmt::Debug for OrderSegments<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OrderSegments").finish_non_exhaustive()
    }
}

/// Applies a line. Returns whether the field had a value.
fn apply(
    line: &MapLine,
    field: &FieldPath,
    segment: &Hl7Segment,
    delimiters: Delimiters,
    item: &mut WorklistItem,
) -> bool {
    let text = segment.text(field.field, field.component, field.subcomponent, delimiters);
    let first_component = field.component.unwrap_or(1);
    let part = |number: usize| {
        let part = segment.part(field.field, first_component + number - 1, None, delimiters);
        unescaped(part, delimiters)
    };
    let value = match line.kind {
        LineKind::Text | LineKind::Texts(_) => text,
        LineKind::Observed(observation) if segment.name == OBSERVATION_SEGMENT => {
            observation.value(&text, segment, delimiters).unwrap_or_default()
        }
        LineKind::Observed(_) => text,
        LineKind::Date => text.get(..8).unwrap_or_default().to_owned(),
        LineKind::Sex => sex(&text).to_owned(),
        LineKind::Priority => priority(&text).to_owned(),
        LineKind::Pregnancy => {
            let values = segment.repetitions(field.field, delimiters);
            let is_pregnant = values.map(|value| unescaped(value, delimiters)).any(|value| value == "B6");
            // PS3.3 C.2.4: 0003H is "definitely pregnant".
            if is_pregnant { "3".to_owned() } else { String::new() }
        }
        LineKind::Name => {
            let names = segment.repetitions(field.field, delimiters);
            in_groups(names.map(|one| RepeatedName::of_xpn(one, first_component, delimiters)))
        }
        LineKind::Person => {
            let persons = segment.repetitions(field.field, delimiters);
            in_groups(persons.map(|one| RepeatedName::of_xcn(one, delimiters)))
        }
        LineKind::CodeWithScheme if part(3).is_empty() => return false,
        LineKind::Code | LineKind::CodeWithScheme => return code(line, &part(1), &part(2), &part(3), item),
        LineKind::Authority => {
            let sub =
                |number| unescaped(segment.part(field.field, first_component, Some(number), delimiters), delimiters);
            return authority(line, &[1, 2, 3].map(sub), item);
        }
        LineKind::OrderAuthority => return authority(line, &[1, 2, 3].map(part), item),
        LineKind::Start => return start(&text, item),
    };
    set_text(line, &value, item)
}

/// Sets the text of a line. Returns whether there is one.
fn set_text(line: &MapLine, value: &str, item: &mut WorklistItem) -> bool {
    if value.is_empty() {
        return false;
    }
    match line.target {
        LineTarget::Root(tag) => item.set(tag, value),
        LineTarget::Step(tag) => item.set_step(tag, value),
    }
    true
}

/// The texts of all repetitions of these fields, each once. Of one repetition, the first path that
/// has a value counts.
fn texts(fields: &[FieldPath], order: &OrderSegments<'_>, delimiters: Delimiters) -> Vec<String> {
    let mut texts: Vec<String> = Vec::new();
    let mut seen = HashSet::new();
    for same in fields.chunk_by(|one, next| (&one.segment, one.field) == (&next.segment, next.field)) {
        let Some(FieldPath { segment: name, field, .. }) = same.first() else { continue };
        for segment in order.segments(name) {
            for repetition in segment.repetitions(*field, delimiters) {
                let mut values =
                    same.iter().map(|path| text_of(repetition, path.component, path.subcomponent, delimiters));
                let Some(value) = values.find(|value| !value.is_empty()) else { continue };
                if texts.len() == MAX_TEXTS {
                    texts.push(MORE_TEXTS.to_owned());
                    return texts;
                }
                if seen.insert(value.clone()) {
                    texts.push(value);
                }
            }
        }
    }
    texts
}

/// A repetition of a field that holds names.
struct RepeatedName {
    /// The name as a component group of PN (PS3.5 6.2.1.1).
    group: String,
    /// Name Representation Code (HL7 table 0465): A, I or P.
    representation: String,
    /// The identifier of the person and the type of the name (HL7 table 0200).
    of: [String; 2],
}

impl RepeatedName {
    /// Reads an XPN (HL7 2.5.1, 2.A.88) that begins at a component.
    fn of_xpn(repetition: &str, first: usize, delimiters: Delimiters) -> Self {
        let part = |number: usize| unescaped(component_of(repetition, first + number - 1, 1, delimiters), delimiters);
        Self { group: name(&[1, 2, 3, 4, 5].map(part)), representation: part(8), of: [String::new(), part(7)] }
    }

    /// Reads an XCN (HL7 2.5.1, 2.A.86), or a CNN in the first component.
    fn of_xcn(repetition: &str, delimiters: Delimiters) -> Self {
        let first = nth(repetition, Some(delimiters.component), 1);
        let in_first = delimiters.subcomponent.filter(|delimiter| first.contains(*delimiter));
        let part = |number: usize| {
            let part = match in_first {
                Some(_) => nth(first, in_first, number),
                // A family name may have subcomponents of its own.
                None => component_of(repetition, number, 1, delimiters),
            };
            unescaped(part, delimiters)
        };
        let mut group = name(&[2, 3, 4, 5, 6].map(part));
        let alone = part(1);
        // A lone text is a name, unless it is a number.
        if group.is_empty() && alone.chars().any(char::is_alphabetic) && !alone.chars().any(|c| c.is_ascii_digit()) {
            group.clone_from(&alone);
        }
        Self { group, representation: part(15), of: [alone, part(10)] }
    }

    /// Whether both are the same name of the same person. Senders may leave out what is the same.
    fn is_of_same(&self, other: &Self) -> bool {
        self.of.iter().zip(&other.of).all(|(one, other)| one == other || one.is_empty() || other.is_empty())
    }
}

/// Makes a value of PN of the repetitions of a field. Those of the same name as the first one are
/// its component groups (PS3.5 6.2.1.1). A name without a code is alphabetic.
fn in_groups(repetitions: impl Iterator<Item = RepeatedName>) -> String {
    let names: Vec<_> = repetitions.filter(|name| !name.group.is_empty()).collect();
    let Some(first) = names.first() else { return String::new() };
    let mut groups = [""; 3];
    for name in names.iter().filter(|name| name.is_of_same(first)) {
        let at = match name.representation.as_str() {
            "I" => 1,
            "P" => 2,
            _ => 0,
        };
        if let Some(group) = groups.get_mut(at).filter(|group| group.is_empty()) {
            *group = &name.group;
        }
    }
    groups.join("=").trim_end_matches('=').to_owned()
}

/// Makes a component group of PN of its parts. HL7 has the suffix before the prefix.
fn name([family, given, middle, suffix, prefix]: &[String; 5]) -> String {
    let clean = |part: &String| part.replace(['^', '='], " ");
    let name = [family, given, middle, prefix, suffix].map(clean).join("^");
    name.trim_end_matches('^').to_owned()
}

fn code(line: &MapLine, value: &str, meaning: &str, scheme: &str, item: &mut WorklistItem) -> bool {
    if value.is_empty() {
        return false;
    }
    let mut code: Vec<KeyElement> = Vec::new();
    set_in(&mut code, tags::CODE_VALUE, value);
    // A local code of HL7 is "L". DICOM requires a scheme (PS3.3 table 8.8-1).
    set_in(&mut code, tags::CODING_SCHEME_DESIGNATOR, if scheme.is_empty() { "L" } else { scheme });
    set_in(&mut code, tags::CODE_MEANING, if meaning.is_empty() { value } else { meaning });
    debug_assert!(code.iter().all(|element| element.vr != VR::SQ && element.value != KeyValue::Items(Vec::new())));
    set_sequence(line, code, item);
    true
}

/// Sets an authority: name, universal ID and its type (PS3.3 table 10-17).
fn authority(line: &MapLine, [name, id, id_type]: &[String; 3], item: &mut WorklistItem) -> bool {
    let mut authority: Vec<KeyElement> = Vec::new();
    set_in(&mut authority, tags::LOCAL_NAMESPACE_ENTITY_ID, name);
    if !id.is_empty() && !id_type.is_empty() {
        set_in(&mut authority, tags::UNIVERSAL_ENTITY_ID, id);
        set_in(&mut authority, tags::UNIVERSAL_ENTITY_ID_TYPE, id_type);
    }
    let has_any = !authority.is_empty();
    if has_any {
        set_sequence(line, authority, item);
    }
    has_any
}

/// Sets the only item of the sequence of a line.
fn set_sequence(line: &MapLine, content: Vec<KeyElement>, item: &mut WorklistItem) {
    match line.target {
        LineTarget::Root(tag) => item.set_items(tag, vec![content]),
        LineTarget::Step(tag) => item.set_step_items(tag, vec![content]),
    }
}

/// Sets start date and time of a time stamp, `YYYYMMDD[HHMM[SS[.S]]][+ZZZZ]`. Another text is set
/// as it is, so that intake reads it or refuses it.
fn start(text: &str, item: &mut WorklistItem) -> bool {
    let text = text.trim();
    // HL7 2.5.1 2.5.3.1: two quotation marks delete a value.
    if text.is_empty() || text == "\"\"" {
        return false;
    }
    let (date, time) = date_and_time(text).unwrap_or_else(|| (text.to_owned(), String::new()));
    item.set_step(tags::SCHEDULED_PROCEDURE_STEP_START_DATE, &date);
    item.set_step(tags::SCHEDULED_PROCEDURE_STEP_START_TIME, &time);
    true
}

/// Splits a time stamp of HL7 into date, time, fraction of a second and offset, as written.
/// `None` if it names no day.
fn parts(text: &str) -> Option<[&str; 4]> {
    let (stamp, offset) = text.split_at(text.find(['+', '-']).unwrap_or(text.len()));
    let (digits, fraction) = stamp.split_once('.').unwrap_or((stamp, ""));
    if digits.len() < 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (date, time) = digits.split_at(8);
    let time = time.get(..time.len().min(6) / 2 * 2)?;
    Some([date, time, fraction, offset])
}

/// Returns a time stamp of HL7 as a DT value of DICOM. `None` if it is no time.
pub(super) fn date_time(text: &str) -> Option<String> {
    let [date, time, fraction, offset] = parts(text)?;
    let mut value = format!("{date}{time}");
    let digits: String = fraction.chars().take_while(char::is_ascii_digit).take(6).collect();
    if time.len() == 6 && !digits.is_empty() {
        value.push('.');
        value.push_str(&digits);
    }
    datetime::moments(&value)?;
    Some(datetime::in_zone(&value, offset).into_owned())
}

/// Splits a time stamp of HL7 into a local date and a local time. `None` if it names no day.
pub(super) fn date_and_time(text: &str) -> Option<(String, String)> {
    let [date, time, _, offset] = parts(text)?;
    let moments = datetime::moments(&format!("{date}{time}{offset}"));
    match moments.filter(|_| !offset.is_empty() && !time.is_empty()) {
        Some(moments) => Some(local_date_and_time(datetime::unix_ms(*moments.start()))),
        None => Some((date.to_owned(), time.to_owned())),
    }
}

fn sex(text: &str) -> &'static str {
    match text.to_ascii_uppercase().as_str() {
        "M" => "M",
        "F" => "F",
        "O" | "A" | "N" => "O",
        _ => "",
    }
}

fn priority(text: &str) -> &'static str {
    match text.to_ascii_uppercase().as_str() {
        "S" | "STAT" => "STAT",
        "A" | "P" | "C" | "ASAP" => "HIGH",
        "R" | "ROUTINE" => "ROUTINE",
        "T" => "MEDIUM",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_fields_and_any_line_can_be_replaced() {
        let mut map = Hl7Map::default();
        map.replace("modality = OBR-21.2, OBR-24").unwrap();
        map.replace("allergies=").unwrap();
        for (text, error) in [
            ("modality", "`modality` is not written as in \"modality = IPC-5, OBR-24\""),
            ("modality = OBR", "`OBR` is not written as in OBR-4 or PID-3.4.1"),
            ("modality = OBR-0", "`OBR-0` is not written as in OBR-4 or PID-3.4.1"),
        ] {
            assert_eq!(map.replace(text).unwrap_err().to_string(), error);
        }
        assert!(map.replace("mood = OBR-1").unwrap_err().to_string().starts_with("`mood` is no line of the mapping"));
    }

    #[test]
    fn a_time_stamp_is_a_local_date_and_time() {
        let split = |text| date_and_time(text);
        assert_eq!(split("202611301530"), Some(("20261130".into(), "1530".into())));
        assert_eq!(split("20261130153045.123"), Some(("20261130".into(), "153045".into())));
        assert_eq!(split("20261130"), Some(("20261130".into(), String::new())));
        assert_eq!((split("2026"), split(""), split("tomorrow")), (None, None, None));
        // The same moment in two ways.
        assert_eq!(split("20261130153000+0100"), split("20261130143000+0000"));
    }

    #[test]
    fn a_time_stamp_keeps_its_precision() {
        for (text, expected) in [
            ("20261130153045.1234567+0100", Some("20261130153045.123456+0100")),
            ("20261130153045.", Some("20261130153045")),
            ("20261130153045123", Some("20261130153045")),
            ("202611301530", Some("202611301530")),
            ("20261130+0100", Some("20261130+0100")),
            // This is no offset, so the time is a local one.
            ("20261130153045+|", Some("20261130153045")),
            ("20261130250000", None),
            ("tomorrow", None),
        ] {
            assert_eq!(date_time(text).as_deref(), expected, "{text}");
        }
    }
}
