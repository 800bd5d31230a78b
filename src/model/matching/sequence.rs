//! Sequence matching (PS3.4 C.2.2.2.6) on items in the DICOM JSON Model (PS3.18 F.2).

use dicom_core::Tag;
use serde::Deserialize as _;
use serde_json::Value;

use super::Matching;

/// Conditions on the attributes of one item; a sequence matches when one of its items fulfils all of them.
#[derive(Clone, Debug)]
pub struct SequenceMatching {
    pub(super) conditions: Vec<ItemCondition>,
}

/// A condition on one attribute of an item.
#[derive(Clone, Debug)]
pub(super) struct ItemCondition {
    pub(super) tag: Tag,
    /// The tag as the key of the DICOM JSON Model.
    pub(super) json_key: String,
    pub(super) matching: Matching,
}

/// The key under which the DICOM JSON Model has an attribute (PS3.18 F.2.2): eight hexadecimal digits, in upper case.
#[must_use]
pub fn json_key(tag: Tag) -> String {
    format!("{:04X}{:04X}", tag.group(), tag.element())
}

impl SequenceMatching {
    pub(super) fn matches(&self, stored: &str) -> bool {
        let mut deserializer = serde_json::Deserializer::from_str(stored);
        // How deep items lie is limited when they are read from an object; this limit would be less.
        deserializer.disable_recursion_limit();
        // No value, or not what the index keeps of a sequence: there is no item that could match.
        let items = Vec::<Value>::deserialize(&mut deserializer).unwrap_or_default();
        deserializer.end().is_ok() && items.iter().any(|item| self.matches_item(item))
    }

    /// Whether an item (an object of the DICOM JSON Model) fulfils all conditions; only such items are answered.
    #[must_use]
    pub fn matches_item(&self, item: &Value) -> bool {
        self.conditions.iter().all(|condition| {
            let element = item.get(condition.json_key.as_str());
            let values = element.and_then(|element| element.get("Value")).and_then(Value::as_array);
            match &condition.matching {
                Matching::Sequence(nested) => {
                    values.is_some_and(|items| items.iter().any(|item| nested.matches_item(item)))
                }
                other => other.matches(&values.map(|values| joined_values(values)).unwrap_or_default()),
            }
        })
    }

    /// The condition on a sequence within the items, if there is one.
    #[must_use]
    pub fn nested(&self, tag: Tag) -> Option<&Self> {
        self.conditions.iter().find_map(|condition| match &condition.matching {
            Matching::Sequence(nested) if condition.tag == tag => Some(nested),
            _ => None,
        })
    }
}

/// The values of an element of the DICOM JSON Model as one text, in the form of
/// [`crate::model::record::InstanceRecord`].
#[must_use]
pub fn joined_values(values: &[Value]) -> String {
    let mut text = String::new();
    for (at, value) in values.iter().enumerate() {
        if at > 0 {
            text.push('\\');
        }
        match value {
            Value::String(value) => text.push_str(value),
            Value::Number(value) => text.push_str(&value.to_string()),
            Value::Object(name) => {
                // A person name (PS3.18 F.2.2).
                let start = text.len();
                for (at, group) in ["Alphabetic", "Ideographic", "Phonetic"].into_iter().enumerate() {
                    if at > 0 {
                        text.push('=');
                    }
                    text.push_str(name.get(group).and_then(Value::as_str).unwrap_or_default());
                }
                let kept = text.get(start..).unwrap_or_default().trim_end_matches('=').len();
                text.truncate(start + kept);
            }
            Value::Null | Value::Bool(_) | Value::Array(_) => {}
        }
    }
    text
}
