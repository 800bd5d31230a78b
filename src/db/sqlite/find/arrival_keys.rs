//! Keys about how instances came into the index (docs/adr/0015). They are conditions on an instance
//! group below the entity.

use super::super::limits::CHANGES_IN_BLOCK;
use super::parameters::Parameters;
use crate::model::find::ArrivalKeys;
use crate::model::level::QueryRetrieveLevel::{self, Image, Patient, Series, Study};

/// The condition of these keys on an entity. `None` if there are no such keys.
pub(super) fn arrival_condition(
    parameters: &mut Parameters,
    keys: &ArrivalKeys,
    level: QueryRetrieveLevel,
) -> Option<String> {
    let group = if level == Image { "h" } else { "g" };
    let mut conditions = Vec::new();
    if let Some(since) = keys.since {
        // The index of blocks narrows this: a later change is in a block that began less than one
        // block before it.
        let block = parameters.add(since.saturating_sub(CHANGES_IN_BLOCK));
        conditions.push(format!("{group}.change_block > {block} AND {group}.change > {}", parameters.add(since)));
    }
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
    if !arrivals.is_empty() {
        conditions.push(format!("{group}.arrival IN (SELECT id FROM arrival WHERE {})", arrivals.join(" AND ")));
    }
    if conditions.is_empty() {
        return None;
    }
    let condition = conditions.join(" AND ");
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
