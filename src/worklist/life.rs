//! The life of items. An item is started when the first object of its step arrives, and done when
//! nothing has come for a while. Some weeks later it is forgotten.

use std::time::Duration;

use super::intake::Intake;
use super::mpps;
use crate::db::{Error, WorklistArrival, WorklistSearch, WorklistState};

/// Settings of the life of items.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LifeOptions {
    /// Time without a new instance after which a study is complete.
    pub quiet: Duration,
    /// Time after which items that are over are removed.
    pub remove_after: Duration,
}

/// Time after its expiry in which an item is still compared with studies. An examination may be
/// late.
const LATE_MS: i64 = 48 * 3_600_000;

/// Pause between two rounds.
pub const ROUND_AFTER: Duration = Duration::from_secs(20);

/// Looks once which items have started, are done, or are to be removed.
///
/// # Errors
/// Fails with [`Error`] if the transaction failed; nothing of it is kept.
pub fn live(reader: &mut impl WorklistSearch, intake: &Intake, options: LifeOptions, now_ms: i64) -> Result<(), Error> {
    let quiet_ms = i64::try_from(options.quiet.as_millis()).unwrap_or(i64::MAX);
    let arrivals = reader.worklist_arrivals(now_ms.saturating_sub(LATE_MS))?;
    let mut changed = Vec::new();
    for arrival in arrivals {
        match change(&arrival, quiet_ms, now_ms) {
            // Its modality says when it is done.
            Some(Change::Quiet) if is_being_performed(reader, &arrival)? => {}
            Some(change) => changed.push((arrival, change)),
            None => {}
        }
    }
    let remove_ms = i64::try_from(options.remove_after.as_millis()).unwrap_or(i64::MAX);
    intake.change(move |tables| {
        for (arrival, change) in changed {
            match change {
                Change::Grown => {
                    tables.note_arrival(arrival.item, arrival.instances, now_ms)?;
                    tables.set_state(arrival.item, WorklistState::Started, now_ms)?;
                }
                Change::Quiet => tables.set_state(arrival.item, WorklistState::Done, now_ms)?,
            }
        }
        tables.forget_before(now_ms.saturating_sub(remove_ms)).map(drop)
    })
}

/// Whether a modality reports that it performs the step of an item.
fn is_being_performed(reader: &mut impl WorklistSearch, arrival: &WorklistArrival) -> Result<bool, Error> {
    let Some(row) = reader.worklist_row(arrival.item)? else { return Ok(false) };
    Ok(reader.performed_steps()?.iter().any(|step| mpps::performs(step, &row)))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    /// Instances have come.
    Grown,
    /// None have come for a while.
    Quiet,
}

fn change(arrival: &WorklistArrival, quiet_ms: i64, now_ms: i64) -> Option<Change> {
    if arrival.noted_ms == 0 || arrival.instances != arrival.noted_instances {
        Some(Change::Grown)
    } else if now_ms.saturating_sub(arrival.noted_ms) >= quiet_ms {
        Some(Change::Quiet)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_study_is_done_when_nothing_came_for_a_while() {
        let arrival = |instances, noted_instances, noted_ms| WorklistArrival {
            item: 1,
            state: WorklistState::Started,
            instances,
            noted_instances,
            noted_ms,
        };
        assert_eq!(change(&arrival(3, 0, 0), 1000, 5000), Some(Change::Grown));
        assert_eq!(change(&arrival(3, 3, 0), 1000, 5000), Some(Change::Grown), "as many as were there before");
        assert_eq!(change(&arrival(3, 3, 4500), 1000, 5000), None);
        assert_eq!(change(&arrival(3, 3, 4000), 1000, 5000), Some(Change::Quiet));
        assert_eq!(change(&arrival(4, 3, 4000), 1000, 5000), Some(Change::Grown), "one came late");
    }
}
