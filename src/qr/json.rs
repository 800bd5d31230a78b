//! Answers in the DICOM JSON Model (PS3.18 annex F): text for an HTTP client.
//!
//! The parts that all answers of a query share are built once. Each answer is appended to a text
//! that the caller sends in pieces.

use dicom_core::{Tag, VR};
use dicom_dictionary_std::tags;
use serde_json::{Map, Value};

use crate::encoding::tag::tag_number;
use crate::model::attribute::AttributeId;
use crate::model::availability::ObjectAvailability;
use crate::model::dicom_json::{push_key, push_stored, push_string};
use crate::model::find::{FindAnswer, ItemKey};
use crate::model::level::QueryRetrieveLevel;
use crate::model::matching::{ItemMatching, json_key};
use crate::qr::answered::{AnsweredContent, AnsweredElement, AnsweredSequence};
use crate::qr::parse::Query;
use crate::qr::stored_items::stored_items;

/// Writes the answers to one query.
#[derive(Debug)]
pub struct JsonWriter {
    /// Sorted by tag.
    fields: Vec<JsonField>,
    /// Start of a Retrieve URL: the URL of the service, without `/studies`.
    service: String,
    /// Numbers of the return keys with the UIDs of study, series and instance, down to the query
    /// level.
    uids: Vec<usize>,
    availability: Option<usize>,
    /// Whether the availability in the index is wrong, because the object was not found at its
    /// location.
    is_gone: bool,
}

#[derive(Debug)]
struct JsonField {
    tag: u32,
    content: JsonContent,
}

#[derive(Debug)]
enum JsonContent {
    /// A whole element that is the same in every answer.
    Constant(String),
    RetrieveUrl,
    /// The value of the return key with this number.
    Value {
        at: usize,
        vr: VR,
    },
    /// Items that the index keeps.
    Sequence(AnsweredSequence),
}

/// The part of a URL before the UID of each level.
const LEVELS: [(AttributeId, QueryRetrieveLevel, &str); 3] = [
    (AttributeId::StudyInstanceUID, QueryRetrieveLevel::Study, "/studies/"),
    (AttributeId::SeriesInstanceUID, QueryRetrieveLevel::Series, "/series/"),
    (AttributeId::SOPInstanceUID, QueryRetrieveLevel::Image, "/instances/"),
];

impl JsonWriter {
    /// Prepares the answers to a query. `service` is the URL of the DICOMweb service.
    #[must_use]
    pub fn new(query: &Query, service: &str) -> Self {
        let request = &query.request;
        let place = |id: AttributeId| request.return_keys.iter().position(|key| key.attribute == id);
        let elements = query.answered_elements().into_iter();
        let mut fields: Vec<_> = elements
            .map(|AnsweredElement { tag, content }| match content {
                AnsweredContent::Creator(creator) => constant(tag, VR::LO, &creator),
                AnsweredContent::Value { at, vr } => {
                    JsonField { tag: tag_number(tag), content: JsonContent::Value { at, vr } }
                }
                AnsweredContent::Sequence(sequence) => {
                    JsonField { tag: tag_number(tag), content: JsonContent::Sequence(sequence) }
                }
            })
            .collect();
        // The text is UTF-8 (PS3.18 F.2.2), whatever character set the objects have.
        fields.retain(|field| field.tag != tag_number(tags::SPECIFIC_CHARACTER_SET));
        fields.push(constant(tags::SPECIFIC_CHARACTER_SET, VR::CS, "ISO_IR 192"));
        fields.push(JsonField { tag: tag_number(tags::RETRIEVE_URL), content: JsonContent::RetrieveUrl });
        fields.sort_by_key(|field| field.tag);
        fields.dedup_by_key(|field| field.tag);
        let of_levels = LEVELS.iter().take_while(|(_, level, _)| *level <= request.level);
        let uids = of_levels.filter_map(|(id, ..)| place(*id)).collect();
        let availability = place(AttributeId::InstanceAvailability);
        Self { fields, service: service.to_owned(), uids, availability, is_gone: false }
    }

    /// Returns a writer of answers without a Retrieve URL, for a reader that is no HTTP client.
    #[must_use]
    pub fn without_retrieve_url(mut self) -> Self {
        self.fields.retain(|field| !matches!(field.content, JsonContent::RetrieveUrl));
        self
    }

    /// Returns a writer for entities whose objects were not found at their locations.
    #[must_use]
    pub fn for_what_is_gone(self) -> Self {
        Self { is_gone: true, ..self }
    }

    /// Appends one answer as a JSON object.
    pub fn write(&self, out: &mut String, answer: &FindAnswer) {
        let value = |at: usize| match answer.values.get(at) {
            Some(_) if self.is_gone && self.availability == Some(at) => ObjectAvailability::Unavailable.as_str(),
            Some(value) => value,
            None => "",
        };
        let mut separator = '{';
        for field in &self.fields {
            out.push(separator);
            separator = ',';
            let start = out.len();
            match &field.content {
                JsonContent::Constant(text) => out.push_str(text),
                JsonContent::Value { at, vr } => push_stored(out, field.tag, *vr, value(*at)),
                JsonContent::Sequence(AnsweredSequence { at, wanted, condition }) => {
                    let matching = condition.as_ref().map(|condition| condition.on(answer));
                    push_sequence(out, field.tag, stored_items(value(*at)), wanted, matching);
                }
                JsonContent::RetrieveUrl => self.push_url(out, value),
            }
            if out.len() == start {
                // The field wrote nothing, so its separator is used for the next one.
                separator = out.pop().unwrap_or('{');
            }
        }
        out.push('}');
    }

    /// Appends the Retrieve URL. It appends nothing if this node cannot deliver the entity.
    fn push_url<'a>(&self, out: &mut String, value: impl Fn(usize) -> &'a str) {
        if self.is_gone || self.availability.is_some_and(|at| value(at) == ObjectAvailability::Unavailable.as_str()) {
            return;
        }
        let mut url = self.service.clone();
        for (at, (.., part)) in self.uids.iter().zip(LEVELS) {
            url.push_str(part);
            url.push_str(&encoded_uid(value(*at)));
        }
        push_key(out, tag_number(tags::RETRIEVE_URL), VR::UR);
        out.push_str(",\"Value\":[");
        push_string(out, &url);
        out.push_str("]}");
    }
}

fn constant(tag: Tag, vr: VR, text: &str) -> JsonField {
    let mut element = String::new();
    push_stored(&mut element, tag_number(tag), vr, text);
    JsonField { tag: tag_number(tag), content: JsonContent::Constant(element) }
}

/// Encodes a UID as a part of a path. Objects may have any text in place of a UID.
#[must_use]
pub fn encoded_uid(uid: &str) -> String {
    let mut out = String::with_capacity(uid.len());
    for byte in uid.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// Appends the items that match. Each has the elements that the request asks for (PS3.4 C.2.2.2.6).
fn push_sequence(
    out: &mut String,
    tag: u32,
    mut items: Vec<Value>,
    wanted: &[ItemKey],
    matching: Option<ItemMatching<'_>>,
) {
    items.retain(|item| matching.is_none_or(|matching| matching.matches(item)));
    let items: Vec<_> = items.into_iter().map(|item| cut_down(item, wanted)).collect();
    push_key(out, tag, VR::SQ);
    if !items.is_empty() {
        out.push_str(",\"Value\":");
        out.push_str(&Value::Array(items).to_string());
    }
    out.push('}');
}

/// Keeps of an item what is wanted, or all of it if nothing is named.
///
/// A character set of its own is left out. The text of the answer is UTF-8 (PS3.18 F.2.2).
fn cut_down(item: Value, wanted: &[ItemKey]) -> Value {
    let Value::Object(mut members) = item else { return item };
    members.remove(&json_key(tags::SPECIFIC_CHARACTER_SET));
    if wanted.is_empty() {
        members.values_mut().for_each(|member| cut_down_items(member, &[]));
        return Value::Object(members);
    }
    let mut kept = Map::new();
    for key in wanted {
        let name = json_key(key.tag);
        let Some(mut member) = members.remove(&name) else { continue };
        cut_down_items(&mut member, &key.items);
        kept.insert(name, member);
    }
    Value::Object(kept)
}

/// Cuts down the items of an element, if it is a sequence.
fn cut_down_items(element: &mut Value, wanted: &[ItemKey]) {
    let is_sequence = element.get("vr").and_then(Value::as_str) == Some("SQ");
    if is_sequence && let Some(Value::Array(items)) = element.get_mut("Value") {
        *items = std::mem::take(items).into_iter().map(|item| cut_down(item, wanted)).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::super::{NegotiatedOptions, Options, keys, parse};
    use super::*;
    use crate::model::level::InformationModel;

    fn json(level: QueryRetrieveLevel, of: &[&str], values: &[(&str, &str)]) -> Value {
        let identifier = keys::identifier(level, of.iter().copied()).unwrap();
        let negotiated = NegotiatedOptions { relational_queries: true, ..NegotiatedOptions::default() };
        let query = parse(InformationModel::StudyRoot, &identifier, negotiated, &Options::default()).unwrap();
        let of_key = |keyword: &str| values.iter().find(|(name, _)| *name == keyword).map_or("", |(_, value)| value);
        let returned = query.request.return_keys.iter();
        let values = returned.map(|key| of_key(key.attribute.attribute().keyword).to_owned()).collect();
        let mut out = String::new();
        let answer = FindAnswer { values, ..FindAnswer::default() };
        JsonWriter::new(&query, "http://a/dicom-web").write(&mut out, &answer);
        serde_json::from_str(&out).unwrap()
    }

    #[test]
    fn an_answer_has_its_values_and_its_url() {
        let study = json(
            QueryRetrieveLevel::Study,
            &["StudyInstanceUID", "PatientName", "ModalitiesInStudy", "StudyDate", "InstanceAvailability"],
            &[("StudyInstanceUID", "1.2"), ("PatientName", "A\"^B=\u{738b}"), ("ModalitiesInStudy", "CT\\MR")],
        );
        assert_eq!(study["00081190"]["Value"][0], "http://a/dicom-web/studies/1.2");
        assert_eq!(study["00100010"]["Value"][0]["Alphabetic"], "A\"^B");
        assert_eq!(study["00100010"]["Value"][0]["Ideographic"], "\u{738b}");
        assert_eq!(study["00080061"]["Value"][1], "MR");
        assert_eq!(study["00080020"]["vr"], "DA");
        assert!(study["00080020"].get("Value").is_none());
        assert_eq!(study["00080005"]["Value"][0], "ISO_IR 192");
        let tags: Vec<_> = study.as_object().unwrap().keys().cloned().collect();
        assert!(tags.is_sorted(), "{tags:?}");
    }

    #[test]
    fn what_cannot_be_retrieved_has_no_url() {
        let values = [("StudyInstanceUID", "1.2"), ("InstanceAvailability", "UNAVAILABLE")];
        let study = json(QueryRetrieveLevel::Study, &["InstanceAvailability", "StudyInstanceUID"], &values);
        assert!(study.get("00081190").is_none());
    }

    #[test]
    fn a_text_in_place_of_a_uid_cannot_leave_its_part_of_the_url() {
        let values = [("StudyInstanceUID", "1.2"), ("SeriesInstanceUID", "../a b\"?")];
        let series = json(QueryRetrieveLevel::Series, &["SeriesInstanceUID"], &values);
        assert_eq!(series["00081190"]["Value"][0], "http://a/dicom-web/studies/1.2/series/..%2Fa%20b%22%3F");
    }

    #[test]
    fn of_items_only_what_is_wanted_is_answered() {
        let items = r#"[{"00400009":{"vr":"SH","Value":["S1"]},"00401001":{"vr":"SH","Value":["R1"]}},
            {"00400009":{"vr":"SH","Value":["S2"]}}]"#;
        let values = [("SeriesInstanceUID", "1.3"), ("RequestAttributesSequence", items)];
        let key = "RequestAttributesSequence.ScheduledProcedureStepID";
        let series = json(QueryRetrieveLevel::Series, &[key], &values);
        let found = series["00400275"]["Value"].as_array().unwrap();
        assert_eq!((found.len(), found[0].as_object().unwrap().len()), (2, 1));
        let one = json(QueryRetrieveLevel::Series, &[&format!("{key}=S2")], &values);
        assert_eq!(one["00400275"]["Value"].as_array().unwrap().len(), 1);
    }

    // PS3.18 F.2.2: the text is UTF-8, whatever character set the item had.
    #[test]
    fn no_item_has_a_character_set_of_its_own() {
        let items = r#"[{"00080005":{"vr":"CS","Value":["ISO_IR 144"]},"00400007":{"vr":"LO","Value":["Люк"]},
            "00400008":{"vr":"SQ","Value":[{"00080005":{"vr":"CS","Value":["ISO_IR 100"]},
            "00080104":{"vr":"LO","Value":["Mülle"]}}]}}]"#;
        let values = [("SeriesInstanceUID", "1.3"), ("RequestAttributesSequence", items)];
        for key in ["RequestAttributesSequence", "RequestAttributesSequence.ScheduledProtocolCodeSequence"] {
            let series = json(QueryRetrieveLevel::Series, &[key], &values);
            let item = &series["00400275"]["Value"][0];
            assert_eq!(item["00400008"]["Value"][0]["00080104"]["Value"][0], "Mülle", "{key}");
            assert!(!item.to_string().contains("00080005"), "{key}: {item}");
        }
    }
}
