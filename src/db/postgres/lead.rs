//! Ways to the studies of a query.
//!
//! A key of the query may lead to a few studies by an index. They are looked up in statements of
//! their own. A key that leads to many becomes a condition of the cursor that goes through all
//! studies. Nothing here has the last word: `view` decides what matches.

use std::collections::HashSet;

use tokio_postgres::types::Type;

use super::connection::ServerConnection;
use super::error::ServerFailure;
use super::flight::SqlParameter;
use super::keys::{RowKey, leading, to_column};
use crate::db::plan::after_prefix;
use crate::model::attribute::AttributeId::*;
use crate::model::find::{ArrivalKeys, FindRequest, MatchingKey};
use crate::model::matching::Narrowing;

/// Most studies that count as few. They are sorted before the first answer. See `FEW` in `plan` for
/// what SQLite does: there it is a number of rows of any table.
const FEW: i64 = 2_000;

/// A condition on a row of `study`.
#[derive(Debug)]
pub(super) enum LeadCondition {
    /// Studies whose numbers this subquery has. It names its parameter `$1`.
    In(&'static str, LeadParameter),
    /// Studies between two dates.
    Dates(String, String),
}

/// A parameter of a look-up.
#[derive(Debug)]
pub(super) enum LeadParameter {
    Keys(Vec<RowKey>),
    Texts(Vec<String>),
    /// From one text up to before another one, or without an end.
    Range(Vec<String>),
}

impl LeadParameter {
    pub(super) fn value(&self) -> (SqlParameter<'_>, Type) {
        match self {
            Self::Keys(keys) => (keys, Type::UUID_ARRAY),
            Self::Texts(texts) | Self::Range(texts) => (texts, Type::TEXT_ARRAY),
        }
    }
}

/// Way to the studies of a query.
pub(super) enum Lead {
    /// These studies, which are few.
    Few(Vec<i64>),
    /// All studies that fulfil these conditions.
    Many(Vec<LeadCondition>),
}

const BY_STUDY: &str = "SELECT id FROM study WHERE uid_key = ANY($1)";
const BY_STUDY_OR_SEPARATED: &str =
    "SELECT id FROM study WHERE uid_key = ANY($1) UNION ALL SELECT id FROM study WHERE is_separated";
const BY_SERIES: &str = "SELECT study FROM shelf WHERE series_key = ANY($1) \
     UNION ALL SELECT id FROM study WHERE is_separated";
const BY_INSTANCE: &str = "SELECT h.study FROM instance i JOIN shelf h ON h.id = i.shelf WHERE i.uid_key = ANY($1) \
     UNION ALL SELECT h.study FROM instance i JOIN shelf h ON h.id = i.shelf WHERE i.flags & 4 <> 0";
const BY_ACCESSION_NUMBER: &str = "SELECT id FROM study WHERE accession_number = ANY($1) \
     UNION ALL SELECT id FROM study WHERE is_separated";
const BY_ACCESSION_NUMBERS: &str = "SELECT id FROM study WHERE accession_number >= ($1::text[])[1] \
     AND (cardinality($1::text[]) < 2 OR accession_number < ($1::text[])[2]) \
     UNION ALL SELECT id FROM study WHERE is_separated";
const BY_PATIENT_ID: &str = "SELECT study FROM study_patient WHERE patient_id = ANY($1) \
     UNION ALL SELECT study FROM study_patient WHERE is_separated";
const BY_PATIENT_IDS: &str = "SELECT study FROM study_patient WHERE patient_id >= ($1::text[])[1] \
     AND (cardinality($1::text[]) < 2 OR patient_id < ($1::text[])[2]) \
     UNION ALL SELECT study FROM study_patient WHERE is_separated";
const BY_NAME: &str = "SELECT study FROM study_patient WHERE name LIKE ($1::text[])[1] \
     UNION ALL SELECT study FROM study_patient WHERE is_separated";

/// Conditions on an instance group `h` and its arrival `a` (docs/adr/0015). The parameter has two
/// bounds of the time of arrival, and a pattern for the sender. Their extremes ask nothing.
macro_rules! arrival_condition {
    () => {
        "(($1::text[])[1]::bigint = -9223372036854775808 AND ($1::text[])[2]::bigint = 9223372036854775807 \
         OR a.first_ms >= ($1::text[])[1]::bigint AND a.first_ms < ($1::text[])[2]::bigint) \
         AND (($1::text[])[3] = '' OR a.kind = 'c-store' AND a.calling_ae_title LIKE ($1::text[])[3])"
    };
}

const BY_ARRIVAL: &str =
    concat!("SELECT h.study FROM shelf h LEFT JOIN arrival a ON a.id = h.arrival WHERE ", arrival_condition!());

/// Studies with an instance group that changed after a number.
macro_rules! by_change {
    () => {
        "SELECT study FROM shelf WHERE change > ($1::text[])[1]::bigint \
         AND change_block >= ($1::text[])[1]::bigint - ($1::text[])[1]::bigint % 4096"
    };
}

/// For a database in which no writer has made the table of losses.
const BY_CHANGE: &str = by_change!();

/// Studies of [`BY_CHANGE`], studies that lost something, and studies of patients that did.
const BY_CHANGE_OR_LOSS: &str = concat!(
    by_change!(),
    " UNION ALL SELECT study FROM loss WHERE level <> 'PATIENT' AND change > ($1::text[])[1]::bigint \
     UNION ALL SELECT p.study FROM loss l JOIN study_patient p ON p.person_key = l.key \
     WHERE l.level = 'PATIENT' AND l.change > ($1::text[])[1]::bigint"
);

/// The parameter of [`arrival_condition`]. `None` if nothing is asked.
fn arrival_texts(keys: &ArrivalKeys) -> Option<Vec<String>> {
    if (&keys.received_ms, &keys.sender) == (&None, &None) {
        return None;
    }
    let (from, to) = keys.received_ms.unwrap_or((i64::MIN, i64::MAX));
    let sender = keys.sender.as_ref().map(|sender| escaped(sender).replace('*', "%").replace('?', "_"));
    Some(vec![from.to_string(), to.to_string(), sender.unwrap_or_default()])
}

/// The instance groups of studies whose instances came as a query says. `None` if it does not ask.
pub(super) fn arrived_groups(
    connection: &mut ServerConnection,
    keys: &ArrivalKeys,
    studies: &[i64],
) -> Result<Option<HashSet<i64>>, ServerFailure> {
    let Some(texts) = arrival_texts(keys) else { return Ok(None) };
    let sql = concat!(
        "SELECT h.id FROM shelf h LEFT JOIN arrival a ON a.id = h.arrival WHERE h.study = ANY($2) AND ",
        arrival_condition!()
    );
    let rows = connection.query(sql, &[&texts, &studies])?;
    Ok(Some(rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?))
}

/// The look-ups for how instances came, and for what has changed since.
fn of_arrival(connection: &mut ServerConnection, keys: &ArrivalKeys) -> Result<Vec<LeadCondition>, ServerFailure> {
    let came = arrival_texts(keys).map(|texts| LeadCondition::In(BY_ARRIVAL, LeadParameter::Texts(texts)));
    let mut conditions: Vec<LeadCondition> = came.into_iter().collect();
    if let Some(since) = keys.since {
        let sql = if connection.has_table("loss")? { BY_CHANGE_OR_LOSS } else { BY_CHANGE };
        // Numbers begin with 1.
        conditions.push(LeadCondition::In(sql, LeadParameter::Texts(vec![since.max(0).to_string()])));
    }
    Ok(conditions)
}

impl LeadCondition {
    /// The condition that a key gives. `None` if each study may match.
    fn of(key: &MatchingKey) -> Option<Self> {
        let narrowing = key.matching.narrowing();
        if key.attribute == PatientName {
            let pattern = match narrowing {
                Narrowing::NamePrefix(prefix) => format!("%\n{}%", escaped(&prefix)),
                Narrowing::NamePart(part) => format!("%{}%", escaped(&part.text)),
                Narrowing::NameWord { prefix, sounds } if sounds.is_empty() => format!("%{}%", escaped(&prefix)),
                _ => return None,
            };
            return Some(Self::In(BY_NAME, LeadParameter::Texts(vec![pattern])));
        }
        match narrowing {
            Narrowing::Equals(values) => Self::of_values(key, &values),
            Narrowing::Prefix(prefix) => {
                let from = leading(&prefix);
                let range = [Some(from.clone()), after_prefix(&from)].into_iter().flatten().collect();
                match key.attribute {
                    PatientID => Some(Self::In(BY_PATIENT_IDS, LeadParameter::Range(range))),
                    AccessionNumber => Some(Self::In(BY_ACCESSION_NUMBERS, LeadParameter::Range(range))),
                    _ => None,
                }
            }
            Narrowing::Between(from, to) if key.attribute == StudyDate => {
                Some(Self::Dates(leading(&from), leading(&to)))
            }
            _ => None,
        }
    }

    fn of_values(key: &MatchingKey, values: &[String]) -> Option<Self> {
        let keys = || LeadParameter::Keys(values.iter().map(|value| RowKey::of_uid(value)).collect());
        let texts = || LeadParameter::Texts(values.iter().map(|value| leading(value)).collect());
        // Half of an archive can have none.
        let has_empty = values.iter().any(String::is_empty);
        Some(match key.attribute {
            StudyInstanceUID if key.matching.looks_into_separated_values() => Self::In(BY_STUDY_OR_SEPARATED, keys()),
            StudyInstanceUID => Self::In(BY_STUDY, keys()),
            SeriesInstanceUID => Self::In(BY_SERIES, keys()),
            SOPInstanceUID => Self::In(BY_INSTANCE, keys()),
            PatientID if !has_empty => Self::In(BY_PATIENT_ID, texts()),
            AccessionNumber if !has_empty => Self::In(BY_ACCESSION_NUMBER, texts()),
            StudyDate => {
                let dates = || values.iter().map(|value| leading(value));
                Self::Dates(dates().min()?, dates().max()?)
            }
            _ => return None,
        })
    }

    /// The order in which look-ups are tried.
    fn rank(&self) -> usize {
        let order = [BY_STUDY, BY_STUDY_OR_SEPARATED, BY_INSTANCE, BY_SERIES, BY_ACCESSION_NUMBER, BY_PATIENT_ID];
        match self {
            Self::In(subquery, _) => order.iter().position(|own| own == subquery).unwrap_or(order.len()),
            Self::Dates(..) => order.len() + 1,
        }
    }
}

/// A text as a part of a pattern of LIKE.
fn escaped(text: &str) -> String {
    to_column(text).replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_")
}

/// Looks up what leads to the studies of a query.
pub(super) fn lead(connection: &mut ServerConnection, request: &FindRequest) -> Result<Lead, ServerFailure> {
    let mut conditions: Vec<LeadCondition> = request.matching_keys.iter().filter_map(LeadCondition::of).collect();
    conditions.extend(of_arrival(connection, &request.arrival)?);
    conditions.sort_by_key(LeadCondition::rank);
    for condition in &conditions {
        let LeadCondition::In(subquery, parameter) = condition else { continue };
        let sql = format!("SELECT DISTINCT study FROM (SELECT * FROM ({subquery}) AS a (study) LIMIT {}) b", FEW + 1);
        let rows = connection.query(&sql, &[parameter.value().0])?;
        if rows.len() as i64 <= FEW {
            return Ok(Lead::Few(rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?));
        }
    }
    if conditions.iter().any(|condition| matches!(condition, LeadCondition::Dates(..))) && has_separated(connection)? {
        conditions.retain(|condition| !matches!(condition, LeadCondition::Dates(..)));
    }
    Ok(Lead::Many(conditions))
}

/// Whether the text of some study holds a backslash. Its parts are then no single range.
fn has_separated(connection: &mut ServerConnection) -> Result<bool, ServerFailure> {
    Ok(connection.query_one("SELECT EXISTS (SELECT FROM study WHERE is_separated)", &[])?.try_get(0)?)
}

/// The UIDs that instances of a query must have, if it names them.
pub(super) fn instance_keys(request: &FindRequest) -> Option<Vec<RowKey>> {
    request.matching_keys.iter().filter(|key| key.attribute == SOPInstanceUID).find_map(|key| {
        let Narrowing::Equals(values) = key.matching.narrowing() else { return None };
        Some(values.iter().map(|value| RowKey::of_uid(value)).collect())
    })
}
