//! Functions that statements of writers and readers use.

use std::collections::HashSet;

use dicom_core::VR;
use rusqlite::functions::FunctionFlags;
use rusqlite::{Connection, Error};

use crate::db::rules;

/// Adds them to a connection.
pub(super) fn register(connection: &Connection) -> rusqlite::Result<()> {
    let pure = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DIRECTONLY | FunctionFlags::SQLITE_DETERMINISTIC;
    // dcm_each_once(values): values joined by '\', each only where it first occurs.
    connection.create_scalar_function("dcm_each_once", 1, pure, |context| {
        Ok(context.get_raw(0).as_str_or_null()?.map(each_once))
    })?;
    // dcm_joined_items(sequences): one sequence with the items of several. Each of these is a line.
    connection.create_scalar_function("dcm_joined_items", 1, pure, |context| {
        let Some(sequences) = context.get_raw(0).as_str_or_null()? else { return Ok(None) };
        let sequences = sequences.split('\n').map(str::to_owned).collect();
        rules::joined(VR::SQ, &sequences).map(Some).map_err(|error| Error::UserFunctionError(error.into()))
    })?;
    // dcm_is_valid(vr, value): whether the value has the form of its VR.
    connection.create_scalar_function("dcm_is_valid", 2, pure, |context| {
        let vr = context.get_raw(0).as_str()?.parse().unwrap_or(VR::UN);
        Ok(rules::is_valid(vr, context.get_raw(1).as_str()?))
    })
}

fn each_once(values: &str) -> String {
    let mut seen = HashSet::new();
    let mut once: Vec<&str> = values.split('\\').collect();
    once.retain(|value| seen.insert(*value));
    once.join("\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_stands_once_where_it_stood_first() {
        assert_eq!(each_once("A\\B\\B"), "A\\B");
        assert_eq!(each_once("B\\A\\A\\C\\B"), "B\\A\\C");
        assert_eq!(each_once("A"), "A");
        assert_eq!(each_once(""), "");
    }
}
