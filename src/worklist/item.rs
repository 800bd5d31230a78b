//! A worklist item as a list of elements, and its form in the DICOM JSON Model (PS3.18 annex F).

use dicom_core::{Tag, VR};
use dicom_dictionary_std::tags;
use serde_json::{Map, Value};

use super::attributes::STEP_ATTRIBUTES;
use crate::encoding::tag::tag_number;
use crate::encoding::vr::{is_binary, is_binary_number};
use crate::model::dicom_json::{push_key, push_text_value};
use crate::model::matching::{KeyElement, KeyValue, joined_values, separates_values, trim};
use crate::qr::keys;

/// Maximum depth of sequences in an item. The Standard has no deeper ones than four.
pub(super) const MAX_DEPTH: usize = 16;

/// A worklist item: a scheduled procedure step with its patient, visit, request and procedure.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct WorklistItem {
    /// Its elements. [`WorklistItem::sort`] orders them.
    pub(super) elements: Vec<KeyElement>,
    /// Specific Character Set of what it came from. Empty for the default repertoire.
    pub(super) character_set: String,
}

/// Without the elements, which are of a patient.
impl std::fmt::Debug for WorklistItem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WorklistItem").field("elements", &self.elements.len()).finish_non_exhaustive()
    }
}

impl WorklistItem {
    /// Creates an item from these elements.
    #[must_use]
    pub fn new(elements: Vec<KeyElement>, character_set: String) -> Self {
        let mut item = Self { elements, character_set };
        item.sort();
        item
    }

    /// Returns the text of an element at the root. Empty if there is none.
    pub(super) fn text(&self, tag: Tag) -> &str {
        text_in(&self.elements, tag)
    }

    /// Returns the text of an element of the scheduled procedure step.
    pub(super) fn step_text(&self, tag: Tag) -> &str {
        self.step().map_or("", |step| text_in(step, tag))
    }

    /// Returns the value of an element, at the root or of the scheduled procedure step.
    pub(super) fn value(&self, tag: Tag) -> Option<&KeyValue> {
        let mut elements = self.elements.iter().chain(self.step().unwrap_or_default());
        elements.find(|element| element.tag == tag).map(|element| &element.value)
    }

    /// Returns the elements of the first item of Scheduled Procedure Step Sequence.
    pub(super) fn step(&self) -> Option<&[KeyElement]> {
        items_in(&self.elements, tags::SCHEDULED_PROCEDURE_STEP_SEQUENCE).first().map(Vec::as_slice)
    }

    /// Sets an element at the root. An empty text removes it.
    pub(super) fn set(&mut self, tag: Tag, text: &str) {
        set_in(&mut self.elements, tag, text);
    }

    /// Sets an element of the scheduled procedure step.
    pub(super) fn set_step(&mut self, tag: Tag, text: &str) {
        set_in(self.step_mut(), tag, text);
    }

    /// Notes that an element at the root has no value, which is more than that it is missing.
    pub(super) fn empty(&mut self, tag: Tag) {
        self.elements.push(empty_element(tag));
    }

    /// Notes that an element of the scheduled procedure step has no value.
    pub(super) fn empty_of_step(&mut self, tag: Tag) {
        self.step_mut().push(empty_element(tag));
    }

    /// Returns the tags of its elements, and of those of the scheduled procedure step.
    pub(super) fn tags(&self) -> impl Iterator<Item = Tag> {
        self.elements.iter().chain(self.step().unwrap_or_default()).map(|element| element.tag)
    }

    /// Takes elements of another item that this one lacks, at the root and in the scheduled
    /// procedure step, where they are `wanted`.
    pub(super) fn take_missing(&mut self, other: &Self, wanted: impl Fn(Tag) -> bool) {
        let is_wanted =
            |element: &&KeyElement| element.tag != tags::SCHEDULED_PROCEDURE_STEP_SEQUENCE && wanted(element.tag);
        let of_step = other.step().unwrap_or_default().iter().filter(is_wanted).cloned();
        take_missing(self.step_mut(), of_step);
        take_missing(&mut self.elements, other.elements.iter().filter(is_wanted).cloned());
        self.sort();
    }

    /// Sets the items of a sequence at the root.
    pub(super) fn set_items(&mut self, tag: Tag, items: Vec<Vec<KeyElement>>) {
        set_value(&mut self.elements, tag, VR::SQ, KeyValue::Items(items));
    }

    /// Sets the items of a sequence of the scheduled procedure step.
    pub(super) fn set_step_items(&mut self, tag: Tag, items: Vec<Vec<KeyElement>>) {
        set_value(self.step_mut(), tag, VR::SQ, KeyValue::Items(items));
    }

    /// Takes all elements of another item in place of its own.
    pub(super) fn take_all(&mut self, other: &Self) {
        self.elements.retain(|own| !other.elements.iter().any(|element| element.tag == own.tag));
        self.elements.extend(other.elements.iter().cloned());
        self.sort();
    }

    fn step_mut(&mut self) -> &mut Vec<KeyElement> {
        let at = match self.elements.iter().position(|element| element.tag == tags::SCHEDULED_PROCEDURE_STEP_SEQUENCE) {
            Some(at) => at,
            None => {
                let value = KeyValue::Items(vec![Vec::new()]);
                self.elements.push(KeyElement { tag: tags::SCHEDULED_PROCEDURE_STEP_SEQUENCE, vr: VR::SQ, value });
                self.elements.len() - 1
            }
        };
        let element = &mut self.elements[at];
        if !matches!(&element.value, KeyValue::Items(items) if !items.is_empty()) {
            *element = KeyElement {
                tag: tags::SCHEDULED_PROCEDURE_STEP_SEQUENCE,
                vr: VR::SQ,
                value: KeyValue::Items(vec![Vec::new()]),
            };
        }
        match &mut element.value {
            KeyValue::Items(items) => &mut items[0],
            KeyValue::Text(_) => unreachable!("it was made a sequence above"),
        }
    }

    /// Moves attributes of the scheduled procedure step that stand at the root into it. Some
    /// writers of JSON leave the sequence out.
    pub(super) fn gather_step(&mut self) {
        for tag in STEP_ATTRIBUTES {
            let text = self.text(*tag).to_owned();
            if text.is_empty() {
                continue;
            }
            self.set(*tag, "");
            if self.step_text(*tag).is_empty() {
                self.set_step(*tag, &text);
            }
        }
    }

    /// Returns one item for each item of Scheduled Procedure Step Sequence, which "shall contain
    /// only a single Item" (PS3.4 table K.6-1).
    pub(super) fn by_step(self) -> Vec<Self> {
        let steps = items_in(&self.elements, tags::SCHEDULED_PROCEDURE_STEP_SEQUENCE).to_vec();
        if steps.len() < 2 {
            return vec![self];
        }
        let of_step = |step| {
            let mut item = self.clone();
            item.set_items(tags::SCHEDULED_PROCEDURE_STEP_SEQUENCE, vec![step]);
            item
        };
        steps.into_iter().map(of_step).collect()
    }

    /// Sorts all elements by their tags. Of several with one tag, the last stays.
    pub(super) fn sort(&mut self) {
        sort(&mut self.elements);
    }

    /// Returns the item in the DICOM JSON Model.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut out = String::with_capacity(1024);
        push_elements(&mut out, &self.elements);
        out
    }

    /// Reads an item from a JSON object.
    ///
    /// Its names are keywords or tags. Its values are those of the DICOM JSON Model, texts,
    /// numbers, or lists of these. A sequence is a list of objects.
    ///
    /// # Errors
    /// Says which name cannot be used, without its value.
    pub fn from_json(object: &Map<String, Value>) -> Result<Self, JsonItemError> {
        let object = match object.get("Tags") {
            Some(Value::Object(tags)) => tags,
            _ => object,
        };
        let elements = elements_of(object, 0)?;
        let character_set = text_in(&elements, tags::SPECIFIC_CHARACTER_SET).to_owned();
        Ok(Self::new(elements, character_set))
    }
}

/// Reason why a JSON object is not an item. The message has no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonItemError {
    /// A name is neither a keyword nor a tag.
    #[error("`{0}` is neither a keyword of the DICOM data dictionary nor a tag")]
    UnknownName(String),
    /// A value has the wrong form.
    #[error("`{0}` has a value of the wrong form")]
    WrongForm(String),
    /// Sequences are nested too deep.
    #[error("sequences are nested deeper than {MAX_DEPTH}")]
    TooDeep,
}

/// Longest name in an error message.
const SHOWN_NAME: usize = 40;

fn elements_of(object: &Map<String, Value>, depth: usize) -> Result<Vec<KeyElement>, JsonItemError> {
    if depth > MAX_DEPTH {
        return Err(JsonItemError::TooDeep);
    }
    let mut elements = Vec::with_capacity(object.len());
    for (name, value) in object {
        let shown = || name.chars().take(SHOWN_NAME).collect::<String>();
        let tag = keys::tag(name).map_err(|_| JsonItemError::UnknownName(shown()))?;
        let wrong = || JsonItemError::WrongForm(shown());
        let (vr, value) = match value {
            Value::Object(element) if element.contains_key("vr") => {
                let vr = element.get("vr").and_then(Value::as_str).and_then(|vr| vr.parse().ok()).ok_or_else(wrong)?;
                (vr, element.get("Value").unwrap_or(&Value::Null))
            }
            other => (keys::vr(tag), other),
        };
        let value = match value {
            Value::Null if vr == VR::SQ => KeyValue::Items(Vec::new()),
            Value::Array(items) if vr == VR::SQ => {
                let items = items.iter().map(|item| match item {
                    Value::Object(item) => elements_of(item, depth + 1),
                    _ => Err(wrong()),
                });
                KeyValue::Items(items.collect::<Result<_, _>>()?)
            }
            Value::Object(item) if vr == VR::SQ => KeyValue::Items(vec![elements_of(item, depth + 1)?]),
            _ if vr == VR::SQ => return Err(wrong()),
            Value::Null => KeyValue::Text(String::new()),
            Value::Bool(_) => return Err(wrong()),
            Value::Array(values) if values.iter().all(|value| is_one_value(value, vr)) => {
                KeyValue::Text(joined_values(values))
            }
            one if is_one_value(one, vr) => KeyValue::Text(joined_values(std::slice::from_ref(one))),
            _ => return Err(wrong()),
        };
        elements.push(KeyElement { tag, vr, value });
    }
    Ok(elements)
}

fn is_one_value(value: &Value, vr: VR) -> bool {
    match value {
        Value::Null | Value::String(_) | Value::Number(_) => true,
        Value::Object(_) => vr == VR::PN,
        Value::Bool(_) | Value::Array(_) => false,
    }
}

pub(super) fn text_in(elements: &[KeyElement], tag: Tag) -> &str {
    let element = elements.iter().find(|element| element.tag == tag);
    element.map_or("", |element| match &element.value {
        KeyValue::Text(text) => text.as_str(),
        KeyValue::Items(_) => "",
    })
}

pub(super) fn items_in(elements: &[KeyElement], tag: Tag) -> &[Vec<KeyElement>] {
    let element = elements.iter().find(|element| element.tag == tag);
    element.map_or(&[], |element| match &element.value {
        KeyValue::Items(items) => items.as_slice(),
        KeyValue::Text(_) => &[],
    })
}

pub(super) fn set_in(elements: &mut Vec<KeyElement>, tag: Tag, text: &str) {
    set_value(elements, tag, keys::vr(tag), KeyValue::Text(text.to_owned()));
}

fn empty_element(tag: Tag) -> KeyElement {
    KeyElement { tag, vr: keys::vr(tag), value: KeyValue::Text(String::new()) }
}

fn take_missing(elements: &mut Vec<KeyElement>, others: impl Iterator<Item = KeyElement>) {
    let own: Vec<Tag> = elements.iter().map(|element| element.tag).collect();
    elements.extend(others.filter(|other| !own.contains(&other.tag)));
}

fn set_value(elements: &mut Vec<KeyElement>, tag: Tag, vr: VR, value: KeyValue) {
    elements.retain(|element| element.tag != tag);
    let is_empty = match &value {
        KeyValue::Text(text) => text.is_empty(),
        KeyValue::Items(items) => items.is_empty(),
    };
    if !is_empty {
        let at = elements.partition_point(|element| element.tag < tag);
        elements.insert(at, KeyElement { tag, vr, value });
    }
}

fn sort(elements: &mut Vec<KeyElement>) {
    elements.reverse();
    elements.sort_by_key(|element| element.tag);
    elements.dedup_by_key(|element| element.tag);
    for element in elements {
        if let KeyValue::Items(items) = &mut element.value {
            items.iter_mut().for_each(sort);
        }
    }
}

/// Appends elements as an object of the DICOM JSON Model. Bytes without a meaning here are left
/// out.
fn push_elements(out: &mut String, elements: &[KeyElement]) {
    out.push('{');
    let start = out.len();
    for element in elements.iter().filter(|element| !is_binary(element.vr)) {
        if out.len() > start {
            out.push(',');
        }
        push_key(out, tag_number(element.tag), element.vr);
        match &element.value {
            KeyValue::Items(items) if !items.is_empty() => {
                out.push_str(",\"Value\":[");
                for (at, item) in items.iter().enumerate() {
                    if at > 0 {
                        out.push(',');
                    }
                    push_elements(out, item);
                }
                out.push(']');
            }
            KeyValue::Text(text) if !text.is_empty() => push_values(out, element.vr, text),
            KeyValue::Items(_) | KeyValue::Text(_) => {}
        }
        out.push('}');
    }
    out.push('}');
}

fn push_values(out: &mut String, vr: VR, text: &str) {
    out.push_str(",\"Value\":[");
    let push = |out: &mut String, value: &str| {
        let value = trim(vr, value);
        match vr {
            vr if is_binary_number(vr) => match value.parse::<serde_json::Number>() {
                Ok(number) => out.push_str(&number.to_string()),
                Err(_) => out.push_str("null"),
            },
            _ => push_text_value(out, vr, value),
        }
    };
    if separates_values(vr) {
        for (at, value) in text.split('\\').enumerate() {
            if at > 0 {
                out.push(',');
            }
            push(out, value);
        }
    } else {
        push(out, text);
    }
    out.push(']');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(json: &str) -> Result<WorklistItem, JsonItemError> {
        WorklistItem::from_json(serde_json::from_str::<Value>(json).unwrap().as_object().unwrap())
    }

    #[test]
    fn keywords_and_the_dicom_json_model_say_the_same() {
        let words = r#"{"Tags": {"PatientName": "Müller^Jürgen", "PatientID": "P1", "PatientWeight": 70.5,
            "ScheduledProcedureStepSequence": [{"Modality": "CT", "ScheduledStationAETitle": ["CT1", "CT2"]}]}}"#;
        let model = r#"{"00100010": {"vr": "PN", "Value": [{"Alphabetic": "Müller^Jürgen"}]},
            "00100020": {"vr": "LO", "Value": ["P1"]}, "00101030": {"vr": "DS", "Value": [70.5]},
            "00400100": {"vr": "SQ", "Value": [{"00080060": {"vr": "CS", "Value": ["CT"]},
            "00400001": {"vr": "AE", "Value": ["CT1", "CT2"]}}]}}"#;
        let (words, model) = (item(words).unwrap(), item(model).unwrap());
        assert!(words == model);
        assert_eq!(words.text(tags::PATIENT_NAME), "Müller^Jürgen");
        assert_eq!(words.step_text(tags::SCHEDULED_STATION_AE_TITLE), "CT1\\CT2");
        // What is written can be read again.
        assert!(item(&words.to_json()).unwrap() == words);
    }

    #[test]
    fn what_is_no_item_is_named_without_its_value() {
        for (json, error) in [
            (r#"{"PatientNam": "x"}"#, "`PatientNam` is neither a keyword of the DICOM data dictionary nor a tag"),
            (r#"{"PatientName": true}"#, "`PatientName` has a value of the wrong form"),
            (r#"{"PatientName": {"a": "b"}}"#, ""),
            (
                r#"{"ScheduledProcedureStepSequence": "x"}"#,
                "`ScheduledProcedureStepSequence` has a value of the wrong form",
            ),
            (r#"{"PatientID": {"vr": "??"}}"#, "`PatientID` has a value of the wrong form"),
        ] {
            match item(json) {
                Err(found) => assert_eq!(found.to_string(), error),
                Ok(item) => assert!(error.is_empty() && item.text(tags::PATIENT_NAME).is_empty(), "{json}"),
            }
        }
        let deep = format!("{}{}{}", r#"{"00081032":["#.repeat(40), "{}", "]}".repeat(40));
        assert_eq!(item(&deep), Err(JsonItemError::TooDeep));
    }

    #[test]
    fn each_step_is_an_item_of_its_own() {
        let two = item(r#"{"PatientID": "1", "00400100": [{"Modality": "CT"}, {"Modality": "MR"}]}"#).unwrap();
        let steps = two.by_step();
        let modalities: Vec<_> =
            steps.iter().map(|item| (item.text(tags::PATIENT_ID), item.step_text(tags::MODALITY))).collect();
        assert_eq!(modalities, [("1", "CT"), ("1", "MR")]);
    }
}
