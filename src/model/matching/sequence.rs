//! Sequence matching (PS3.4 C.2.2.2.6) on items in the DICOM JSON Model (PS3.18 F.2).

use dicom_core::Tag;
use serde_json::Value;

/// Returns the key of an attribute in the DICOM JSON Model (PS3.18 F.2.2): eight upper-case
/// hexadecimal digits.
#[must_use]
pub fn json_key(tag: Tag) -> String {
    format!("{:04X}{:04X}", tag.group(), tag.element())
}

/// Joins the values of an element of the DICOM JSON Model to one text, in the form of
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
                // This is a person name (PS3.18 F.2.2).
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
