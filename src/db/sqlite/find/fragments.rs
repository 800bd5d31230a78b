//! Pieces of SQL that depend on a level or an attribute, and not on the values of a query.

use dicom_core::VR;

use crate::db::plan::{PartedKeys, PatientLink};
use crate::model::attribute::AttributeId;
use crate::model::declared::Unit;
use crate::model::find::FindRequest;
use crate::model::level::QueryRetrieveLevel::{self, Image, Patient, Series, Study};
use crate::model::matching::separates_values;

/// The tables of a statement, and how they are joined.
pub(super) fn from_clause(
    request: &FindRequest,
    keys: &PartedKeys<'_>,
    under: PatientLink,
    from_patient: bool,
) -> String {
    let asked = |wanted: QueryRetrieveLevel| {
        let matched = keys.above.iter().map(|key| key.attribute);
        let matched = matched.chain(keys.moments_above.iter().map(|key| key.date));
        matched.chain(request.return_keys.iter().map(|key| key.attribute)).any(|id| id.attribute().level == wanted)
            || request.declared.iter().any(|key| key.unit.level == wanted)
    };
    let patient = match under {
        PatientLink::FirstPatient if from_patient => "patient p JOIN study s ON s.patient = p.id",
        PatientLink::FirstPatient if asked(Patient) => "study s CROSS JOIN patient p ON p.id = s.patient",
        PatientLink::FirstPatient => "study s",
        // There are few further patients, unless a key leads to fewer rows.
        PatientLink::FurtherPatient if keys.name_few() => {
            "patient p JOIN study_patient sp ON sp.patient = p.id JOIN study s ON s.id = sp.study"
        }
        PatientLink::FurtherPatient => {
            "study_patient sp CROSS JOIN patient p ON p.id = sp.patient CROSS JOIN study s ON s.id = sp.study"
        }
    };
    // From the study down: the answers come in order as they are found, and nothing has to be
    // sorted but what one study holds. The exception is a UID that names the few rows that can
    // match.
    let join = if keys.lead_from_below_study() { "JOIN" } else { "CROSS JOIN" };
    match request.level {
        Patient => "patient p".to_owned(),
        Study => patient.to_owned(),
        Series => format!("{patient} {join} study_series e ON e.study = s.id"),
        Image => {
            let directory = match request.wants_location {
                true => format!("{join} directory d ON d.id = h.directory "),
                false => String::new(),
            };
            format!(
                "{patient} {join} study_series e ON e.study = s.id {join} instance_group h ON h.series = e.id \
                 {directory}{join} instance i ON i.instance_group = h.id"
            )
        }
    }
}

/// The order of answers, as the indexes have it.
pub(super) const fn order_clause(level: QueryRetrieveLevel) -> &'static str {
    match level {
        Patient => {
            " ORDER BY p.patient_id, p.identity, p.issuer_of_patient_id, p.patient_birth_date, p.values_hash, p.id"
        }
        Study => " ORDER BY s.study_date DESC, s.study_time DESC, s.patient, s.id",
        Series => {
            " ORDER BY s.study_date DESC, s.study_time DESC, s.patient, s.id, CAST(e.series_number AS INTEGER), e.id"
        }
        Image => {
            " ORDER BY s.study_date DESC, s.study_time DESC, s.patient, s.id, CAST(e.series_number AS INTEGER), e.id, \
             CAST(i.instance_number AS INTEGER), i.instance_group, i.uid_suffix"
        }
    }
}

/// SQL for the value of a declared attribute at its own level or below it. The key is of our
/// making: letters, digits, `+` and `_`.
pub(super) fn declared_value(unit: &Unit) -> String {
    let key = &unit.key;
    match unit.level {
        Patient => declared_of_patient(unit, "s"),
        Study => declared_above(unit, "study_series b JOIN instance_group c ON c.series = b.id", "b.study = s.id"),
        Series => declared_above(unit, "instance_group c", "c.series = e.id"),
        Image => format!("ifnull(ifnull(i.diff ->> '$.\"{key}\"', h.declared ->> '$.\"{key}\"'), '')"),
    }
}

/// SQL for the most complete value among the objects of an entity (docs/adr/0008).
fn declared_above(unit: &Unit, from: &str, own: &str) -> String {
    format!(
        "ifnull((SELECT c.declared_above ->> '$.\"{}\"' AS v FROM {from} WHERE {own} AND v <> '' ORDER BY {} LIMIT 1), '')",
        unit.key,
        most_complete_first(unit.vr, "v")
    )
}

/// SQL for an attribute of a patient. Only objects of this study that name the patient `p` count.
pub(super) fn declared_of_patient(unit: &Unit, study: &str) -> String {
    let own = format!("b.study = {study}.id AND ifnull(c.patient, {study}.patient) = p.id");
    declared_above(unit, "study_series b JOIN instance_group c ON c.series = b.id", &own)
}

/// The order of `is_more_complete` in rules.rs.
pub(super) fn most_complete_first(vr: VR, value: &str) -> String {
    format!("dcm_is_valid('{}', {value}) DESC, octet_length({value}) DESC, {value}", vr.to_string())
}

/// Whether a study `a` is under the patient `p`.
pub(super) const UNDER_THIS_PATIENT: &str =
    "(a.patient = p.id OR a.id IN (SELECT study FROM study_patient WHERE patient = p.id))";

/// One value of the values `v` of a study's series, as [`joined`](crate::db::rules::joined) has it.
/// `values` selects them in order, each once.
pub(super) fn joined(vr: VR, values: &str) -> String {
    match vr {
        // JSON has no line feed in it.
        VR::SQ => format!("ifnull(dcm_joined_items((SELECT group_concat(v, char(10)) FROM ({values}))), '')"),
        _ if separates_values(vr) => {
            format!("ifnull(dcm_each_once((SELECT group_concat(v, '\\') FROM ({values}))), '')")
        }
        _ => format!("ifnull((SELECT min(v) FROM ({values})), '')"),
    }
}

/// Whether a series or an instance has objects, or is one, that name the patient under whom it is
/// answered.
pub(super) fn names_this_patient(level: QueryRetrieveLevel, under: PatientLink) -> Option<&'static str> {
    match (level, under) {
        (Patient | Study, _) => None,
        (Series, PatientLink::FirstPatient) => Some(
            "(NOT EXISTS (SELECT 1 FROM study_patient x WHERE x.study = s.id) \
             OR EXISTS (SELECT 1 FROM instance_group o WHERE o.series = e.id AND o.patient IS NULL))",
        ),
        (Series, PatientLink::FurtherPatient) => {
            Some("EXISTS (SELECT 1 FROM instance_group o WHERE o.series = e.id AND o.patient = p.id)")
        }
        (Image, PatientLink::FirstPatient) => Some("h.patient IS NULL"),
        (Image, PatientLink::FurtherPatient) => Some("h.patient = p.id"),
    }
}

pub(super) fn is_availability(id: AttributeId) -> bool {
    id == AttributeId::InstanceAvailability
}

/// Attributes in which all instances of an instance group agree.
pub(super) fn is_instance_group_key(id: AttributeId) -> bool {
    matches!(id, AttributeId::SOPClassUID | AttributeId::AvailableTransferSyntaxUID)
}

pub(super) fn instance_group_join(deepest: QueryRetrieveLevel) -> &'static str {
    if deepest == Image {
        " JOIN instance_group h ON h.series = e.id JOIN instance i ON i.instance_group = h.id"
    } else {
        ""
    }
}

pub(super) fn character_set(level: QueryRetrieveLevel) -> &'static str {
    match level {
        Patient => "p.character_set",
        Study => "s.character_set",
        Series => "e.character_set",
        Image => {
            "CASE WHEN i.diff IS NULL THEN h.specific_character_set ELSE \
                  ifnull(i.diff ->> '$.specific_character_set', h.specific_character_set) END"
        }
    }
}
