//! Sequences as the index keeps them: items of the DICOM JSON Model.

use dicom_core::Tag;
use serde_json::Value;

use crate::model::dicom_json::read_items;
use crate::model::matching::{joined_values, json_key};

/// Returns the values at the end of a path of tags in a stored sequence, joined by `\`.
#[must_use]
pub fn values_in_items(text: &str, path: &[Tag]) -> String {
    fn add(items: &[Value], path: &[Tag], values: &mut Vec<String>) {
        let Some((tag, inner)) = path.split_first() else { return };
        for item in items {
            let element = item.get(json_key(*tag).as_str());
            let Some(Value::Array(found)) = element.and_then(|element| element.get("Value")) else { continue };
            if inner.is_empty() {
                values.push(joined_values(found));
            } else {
                add(found, inner, values);
            }
        }
    }
    let mut values = Vec::new();
    add(&stored_items(text), path, &mut values);
    values.retain(|value| !value.is_empty());
    values.dedup();
    values.join("\\")
}

/// Parses the items of a stored sequence. Text that is not an array has no items.
#[must_use]
pub fn stored_items(text: &str) -> Vec<Value> {
    read_items(text).unwrap_or_default()
}
