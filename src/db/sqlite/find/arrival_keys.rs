//! Keys about how instances came into the index (docs/adr/0015), and what has changed since
//! (docs/adr/0061).

use rusqlite::Connection;

use super::super::limits::CHANGES_IN_BLOCK;
use super::super::losses::losses;
use super::parameters::Parameters;
use crate::model::find::ArrivalKeys;
use crate::model::level::QueryRetrieveLevel::{self, Image, Patient, Series, Study};

/// The conditions of these keys on an entity.
pub(super) fn arrival_conditions(
    connection: &Connection,
    parameters: &mut Parameters,
    keys: &ArrivalKeys,
    level: QueryRetrieveLevel,
) -> rusqlite::Result<Vec<String>> {
    let mut conditions = Vec::new();
    if let Some(since) = keys.since {
        conditions.push(changed_since(connection, parameters, since, level)?);
    }
    conditions.extend(arrived(parameters, keys, level));
    Ok(conditions)
}

/// The condition that an entity came or changed after a change, or lost something after it.
fn changed_since(
    connection: &Connection,
    parameters: &mut Parameters,
    since: i64,
    level: QueryRetrieveLevel,
) -> rusqlite::Result<String> {
    let group = if level == Image { "h" } else { "g" };
    // The index of blocks narrows this: a later change is in a block that began less than one
    // block before it.
    let block = parameters.add(since.saturating_sub(CHANGES_IN_BLOCK));
    let since = parameters.add(since);
    let changed = format!("{group}.change_block > {block} AND {group}.change > {since}");
    if level == Image {
        return Ok(changed);
    }
    let losses = losses(connection)?;
    let lost =
        |level: QueryRetrieveLevel| format!("SELECT id FROM {losses} WHERE level = '{level}' AND change > {since}");
    let groups = format!("FROM instance_group g JOIN study_series b ON b.id = g.series WHERE {changed}");
    Ok(match level {
        Image => changed,
        Series => format!("e.id IN (SELECT g.series FROM instance_group g WHERE {changed} UNION ALL {})", lost(Series)),
        Study => format!("s.id IN (SELECT b.study {groups} UNION ALL {})", lost(Study)),
        // One answer stands for all studies of a Patient ID, and each changes it.
        Patient => format!(
            "(p.patient_id, p.identity) IN (WITH changed (study) AS (SELECT b.study {groups} UNION ALL {}) \
             SELECT q.patient_id, q.identity FROM patient q WHERE q.id IN (SELECT a.patient FROM study a \
             WHERE a.id IN (SELECT study FROM changed) UNION ALL SELECT x.patient FROM study_patient x \
             WHERE x.study IN (SELECT study FROM changed) UNION ALL {}))",
            lost(Study),
            lost(Patient)
        ),
    })
}

/// The condition that an instance group of an entity came so. `None` if nothing is asked.
fn arrived(parameters: &mut Parameters, keys: &ArrivalKeys, level: QueryRetrieveLevel) -> Option<String> {
    let mut arrivals = Vec::new();
    if let Some((from_ms, to_ms)) = keys.received_ms {
        arrivals.push(format!("first_ms >= {} AND first_ms < {}", parameters.add(from_ms), parameters.add(to_ms)));
    }
    if let Some(sender) = &keys.sender {
        let is_pattern = sender.contains(['*', '?']);
        // Only '*' and '?' are special (PS3.4 C.2.2.2.4). A bracket is literal here, but means a
        // set in GLOB.
        let pattern = if is_pattern { sender.replace('[', "[[]") } else { sender.clone() };
        let operator = if is_pattern { "GLOB" } else { "=" };
        arrivals.push(format!("calling_ae_title {operator} {} AND kind = 'c-store'", parameters.add(pattern)));
    }
    if arrivals.is_empty() {
        return None;
    }
    let group = if level == Image { "h" } else { "g" };
    let condition = format!("{group}.arrival IN (SELECT id FROM arrival WHERE {})", arrivals.join(" AND "));
    Some(match level {
        Image => condition,
        Series => format!("e.id IN (SELECT g.series FROM instance_group g WHERE {condition})"),
        Study => format!(
            "s.id IN (SELECT b.study FROM instance_group g JOIN study_series b ON b.id = g.series WHERE {condition})"
        ),
        Patient => format!(
            "p.id IN (SELECT ifnull(g.patient, a.patient) FROM instance_group g JOIN study_series b ON b.id = g.series \
             JOIN study a ON a.id = b.study WHERE {condition})"
        ),
    })
}
