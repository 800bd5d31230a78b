//! Texts with a backslash in attributes that should have one value.
//!
//! Such a text is also matched as the values that it separates (PS3.4 C.2.2.3), but an index on the
//! column leads only to the whole. Hardly any archive has such texts, so a partial index of each
//! table has the rows that do. A query looks at them only if its attribute has some.

use rusqlite::{Connection, OptionalExtension};

use crate::model::attribute::{Attribute, AttributeId};
use crate::model::level::QueryRetrieveLevel;

/// Most rows of the partial index that are read to find out whether one attribute has any. If there
/// are more, it is assumed to.
const MAX_LOOKED_AT: usize = 1_000;

/// The columns of a level in the condition of its partial index. They are those that an index or an
/// equation leads to.
fn columns(level: QueryRetrieveLevel) -> &'static [AttributeId] {
    use AttributeId::*;
    match level {
        QueryRetrieveLevel::Patient => &[PatientID, IssuerOfPatientID, PatientBirthDate, PatientBirthTime, PatientSex],
        QueryRetrieveLevel::Study => &[StudyDate, StudyTime, AccessionNumber, StudyID, PatientAge, AdmissionID],
        QueryRetrieveLevel::Series => &[
            Modality,
            SeriesDate,
            SeriesTime,
            BodyPartExamined,
            Laterality,
            PatientPosition,
            DeviceSerialNumber,
            PerformedProcedureStepStartDate,
            PerformedProcedureStepStartTime,
            PerformedProcedureStepID,
        ],
        QueryRetrieveLevel::Image => &[],
    }
}

/// The condition of the partial index of a level, word for word as in `schema.sql`.
fn condition(level: QueryRetrieveLevel) -> String {
    let columns: Vec<_> = columns(level).iter().map(|id| id.attribute().column).collect();
    format!("instr({}, '\\')", columns.join(" || "))
}

/// SQL for the rows of the attribute's level that may have such a text. `None` if the attribute has
/// none.
pub(super) fn rows(connection: &Connection, attribute: &Attribute) -> rusqlite::Result<Option<String>> {
    let level = attribute.level;
    if !columns(level).contains(&attribute.id) {
        return Ok(None);
    }
    let (table, alias) = match level {
        QueryRetrieveLevel::Patient => ("patient", "p"),
        QueryRetrieveLevel::Study => ("study", "s"),
        QueryRetrieveLevel::Series | QueryRetrieveLevel::Image => ("study_series", "e"),
    };
    let (condition, column) = (condition(level), attribute.column);
    let sql = format!(
        "SELECT 1 FROM (SELECT count(*) AS seen, max(instr({column}, '\\')) AS found FROM \
         (SELECT {column} FROM {table} WHERE {condition} LIMIT {MAX_LOOKED_AT})) WHERE found > 0 OR seen = {MAX_LOOKED_AT}"
    );
    let found = connection.prepare_cached(&sql)?.query_row([], |_| Ok(())).optional()?;
    Ok(found.map(|()| format!("{alias}.id IN (SELECT id FROM {table} WHERE {condition})")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::attribute::{ATTRIBUTES, ValueSource};
    use crate::model::matching::{KeyValue, MatchPolicy, Matching, Narrowing};

    #[test]
    fn every_attribute_that_is_looked_up_by_its_text_is_in_the_index() {
        for attribute in ATTRIBUTES.iter().filter(|attribute| attribute.level != QueryRetrieveLevel::Image) {
            let key = KeyValue::Text("20240101".to_owned());
            let Ok(matching) = Matching::of_key(attribute, &key, &MatchPolicy::default()) else { continue };
            let narrowed =
                matches!(matching.narrowing(), Narrowing::Equals(_) | Narrowing::Between(..) | Narrowing::Prefix(_));
            let needed = narrowed && matching.looks_into_separated_values() && attribute.source == ValueSource::DataSet;
            // It says how to read the request, and never narrows.
            let needed = needed && attribute.id != AttributeId::TimezoneOffsetFromUTC;
            assert_eq!(columns(attribute.level).contains(&attribute.id), needed, "{}", attribute.keyword);
        }
    }

    #[test]
    fn the_condition_is_that_of_the_schema() {
        let schema = include_str!("schema/schema.sql");
        let squeezed = schema.split_whitespace().collect::<Vec<_>>().join(" ");
        for level in [QueryRetrieveLevel::Patient, QueryRetrieveLevel::Study, QueryRetrieveLevel::Series] {
            assert!(squeezed.contains(&condition(level)), "{level}");
        }
    }
}
