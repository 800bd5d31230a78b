//! The comparison itself: by days, then by series where numbers differ, then by instances.

use std::collections::{BTreeMap, BTreeSet};

use super::difference::{ArchiveDifference, DifferenceKind, differing_values};
use super::{ArchiveSide, ComparedStudy, DayRange, Error, StudyQuestion};
use crate::model::datetime::{day_of, days_since_1970};

/// Answers after which a range of days is asked for in halves. Many peers stop at some hundred, and
/// some of them do not say so.
const MANY: usize = 100;

/// Compares the studies of a range of days. The result says whether the halves of the range must be
/// asked for one by one. It is `None` if all differences are in `found`.
///
/// # Errors
/// Fails if a side does not answer.
pub fn compare_days(
    here: &mut impl ArchiveSide,
    there: &mut impl ArchiveSide,
    range: DayRange,
    found: &mut Vec<ArchiveDifference>,
) -> Result<Option<[DayRange; 2]>, Error> {
    let question = StudyQuestion::Days(range);
    let halves = halves(range);
    let others = match there.studies(&question) {
        // A peer that is out of resources may answer a smaller question.
        Err(Error::Status(_)) if halves.is_some() => return Ok(halves),
        others => others?,
    };
    if others.len() >= MANY && halves.is_some() {
        return Ok(halves);
    }
    let own = here.studies(&question)?;
    compare_studies(here, there, &own, others, found)?;
    Ok(None)
}

/// Compares the studies without a date. A peer is asked for each of them: C-FIND has no question
/// for all.
///
/// # Errors
/// Fails if a side does not answer.
pub fn compare_undated(
    here: &mut impl ArchiveSide,
    there: &mut impl ArchiveSide,
    found: &mut Vec<ArchiveDifference>,
) -> Result<(), Error> {
    let own = here.studies(&StudyQuestion::WithoutDate)?;
    let others = there.studies(&StudyQuestion::WithoutDate)?;
    compare_studies(here, there, &own, others, found)
}

fn compare_studies(
    here: &mut impl ArchiveSide,
    there: &mut impl ArchiveSide,
    own: &BTreeMap<String, ComparedStudy>,
    mut others: BTreeMap<String, ComparedStudy>,
    found: &mut Vec<ArchiveDifference>,
) -> Result<(), Error> {
    // One side may have another date, or have left something out of a long answer. So each study
    // that seems to be missing is asked for by its UID.
    for uid in own.keys() {
        if !others.contains_key(uid) {
            others.extend(there.studies(&StudyQuestion::Uid(uid.clone()))?);
        }
    }
    for (uid, study) in own {
        let Some(other) = others.get(uid) else {
            found.push(ArchiveDifference::only(DifferenceKind::OnlyHere, &[uid], Some(study)));
            continue;
        };
        found.extend(differing_values(uid, study, other));
        compare_series(here, there, uid, study, other, found)?;
    }
    for (uid, other) in &others {
        if own.contains_key(uid) {
            continue;
        }
        // A study of another date here is compared in the range of that date.
        if here.studies(&StudyQuestion::Uid(uid.clone()))?.is_empty() {
            found.push(ArchiveDifference::only(DifferenceKind::OnlyThere, &[uid], Some(other)));
        }
    }
    Ok(())
}

fn compare_series(
    here: &mut impl ArchiveSide,
    there: &mut impl ArchiveSide,
    study: &str,
    own: &ComparedStudy,
    other: &ComparedStudy,
    found: &mut Vec<ArchiveDifference>,
) -> Result<(), Error> {
    // Equal numbers of instances, and of series if both sides say them.
    let same = |at: usize| match (own.counts[at], other.counts[at]) {
        (Some(one), Some(other)) => Some(one == other),
        _ => None,
    };
    if same(1) == Some(true) && same(0) != Some(false) {
        return Ok(());
    }
    if same(1) == Some(false) {
        found.push(count_difference(&[study], "NumberOfStudyRelatedInstances", own.counts[1], other.counts[1]));
    }
    let (own, others) = (here.series(study)?, there.series(study)?);
    for (series, count) in &own {
        match others.get(series) {
            None => found.push(ArchiveDifference::only(DifferenceKind::OnlyHere, &[study, series], None)),
            Some(other) if count.is_some() && count == other => {}
            Some(other) => compare_instances(here, there, (study, series), (*count, *other), found)?,
        }
    }
    for series in others.keys().filter(|series| !own.contains_key(*series)) {
        found.push(ArchiveDifference::only(DifferenceKind::OnlyThere, &[study, series], None));
    }
    Ok(())
}

fn compare_instances(
    here: &mut impl ArchiveSide,
    there: &mut impl ArchiveSide,
    (study, series): (&str, &str),
    (own_count, other_count): (Option<u64>, Option<u64>),
    found: &mut Vec<ArchiveDifference>,
) -> Result<(), Error> {
    if own_count.is_some() && other_count.is_some() {
        found.push(count_difference(&[study, series], "NumberOfSeriesRelatedInstances", own_count, other_count));
    }
    let own: BTreeSet<String> = here.instances(study, series)?.into_iter().collect();
    let others: BTreeSet<String> = there.instances(study, series)?.into_iter().collect();
    for uid in own.difference(&others) {
        found.push(ArchiveDifference::only(DifferenceKind::OnlyHere, &[study, series, uid], None));
    }
    for uid in others.difference(&own) {
        found.push(ArchiveDifference::only(DifferenceKind::OnlyThere, &[study, series, uid], None));
    }
    Ok(())
}

fn count_difference(
    uids: &[&str],
    attribute: &'static str,
    here: Option<u64>,
    there: Option<u64>,
) -> ArchiveDifference {
    let text = |count: Option<u64>| count.map(|count| count.to_string()).unwrap_or_default();
    let uids = uids.iter().map(|uid| (*uid).to_owned()).collect();
    ArchiveDifference { kind: DifferenceKind::OtherCount, uids, attribute, here: text(here), there: text(there) }
}

/// The two halves of a range of more than one day.
fn halves(range: DayRange) -> Option<[DayRange; 2]> {
    let (first, last) = (days_since_1970(range.first), days_since_1970(range.last));
    if first >= last {
        return None;
    }
    let middle = first + (last - first) / 2;
    Some([
        DayRange { first: range.first, last: day_of(middle) },
        DayRange { first: day_of(middle + 1), last: range.last },
    ])
}

/// Ranges of some days each, from the first day to the last one.
#[must_use]
pub fn ranges(whole: DayRange, days: i64) -> Vec<DayRange> {
    let (mut at, last) = (days_since_1970(whole.first), days_since_1970(whole.last));
    let mut found = Vec::new();
    while at <= last {
        let end = (at + days - 1).min(last);
        found.push(DayRange { first: day_of(at), last: day_of(end) });
        at = end + 1;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_have_each_day_once() {
        let whole = DayRange { first: 20_231_215, last: 20_240_302 };
        let parts = ranges(whole, 31);
        assert_eq!(parts.first().map(|range| range.first), Some(20_231_215));
        assert_eq!(parts.last().map(|range| range.last), Some(20_240_302));
        for pair in parts.windows(2) {
            assert_eq!(days_since_1970(pair[0].last) + 1, days_since_1970(pair[1].first));
        }
        let [one, other] = halves(DayRange { first: 20_240_228, last: 20_240_301 }).unwrap();
        assert_eq!((one.last, other.first), (20_240_229, 20_240_301));
        assert_eq!(halves(DayRange { first: 20_240_101, last: 20_240_101 }), None);
    }
}
