//! Sequences as the index keeps them: items of the DICOM JSON Model.

use std::collections::HashSet;

use dicom_core::Tag;
use serde_json::Value;

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

/// Parses the items of a stored sequence.
///
/// The text is an array. If a study answers for its series, it is several arrays separated by
/// backslashes. Each item of those stands once.
pub(super) fn stored_items(text: &str) -> Vec<Value> {
    let (mut items, mut arrays_read) = (Vec::new(), 0);
    let mut rest = text;
    while !rest.is_empty() {
        let mut deserializer = serde_json::Deserializer::from_str(rest);
        // The default limit of `serde_json` is less than `MAX_DEPTH` of ingest allows. One deep
        // item would then hide all items.
        deserializer.disable_recursion_limit();
        let mut arrays = deserializer.into_iter::<Vec<Value>>();
        // Text that is not an array has no items.
        let Some(Ok(array)) = arrays.next() else { break };
        items.extend(array);
        arrays_read += 1;
        rest = rest.get(arrays.byte_offset()..).unwrap_or_default().trim_start_matches('\\');
    }
    if arrays_read > 1 {
        let mut seen = HashSet::new();
        items.retain(|item: &Value| seen.insert(item.to_string()));
    }
    items
}
