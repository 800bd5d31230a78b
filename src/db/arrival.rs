//! Arrivals: what one source brought without a pause (docs/adr/0015).

use std::sync::Arc;

use foldhash::HashMap;

use super::ReceivedFrom;
use crate::model::calendar::DAY_MS;

/// Pause of a source after which a new arrival begins, in milliseconds. Larger: arrivals with
/// different reasons become one. Smaller: more instance groups, of some 500 bytes each.
const LONGEST_PAUSE_MS: i64 = 10 * 60 * 1000;

/// Longest time of an arrival, in milliseconds. Larger: the time of an arrival says less. Smaller:
/// more instance groups.
pub(in crate::db) const LONGEST_ARRIVAL_MS: i64 = 60 * 60 * 1000;

/// Sources whose arrivals are remembered. A source takes some 100 bytes.
const REMEMBERED_SOURCES: usize = 4096;

/// Source of instances.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::db) enum SourceOfInstances {
    /// Nobody that is known.
    Unknown,
    /// The scan with this number.
    Scan(i64),
    /// A sender.
    Received(Arc<ReceivedFrom>),
}

/// Source of an arrival, as its row has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::db) struct ArrivalSource {
    pub(in crate::db) kind: String,
    pub(in crate::db) calling_ae_title: String,
    pub(in crate::db) address: String,
    pub(in crate::db) scan: Option<i64>,
}

impl SourceOfInstances {
    /// Contents of the row of an arrival. `None` if there is no row.
    pub(in crate::db) fn told(&self) -> Option<ArrivalSource> {
        match self {
            Self::Unknown => None,
            Self::Scan(scan) => {
                Some(ArrivalSource { kind: "scan".into(), scan: Some(*scan), ..ArrivalSource::default() })
            }
            Self::Received(from) => Some(ArrivalSource {
                kind: "c-store".into(),
                calling_ae_title: from.calling_ae_title.clone(),
                address: from.address.map(|address| address.to_string()).unwrap_or_default(),
                scan: None,
            }),
        }
    }
}

/// The row of an arrival.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::db) struct ArrivalEntry {
    pub(in crate::db) source: ArrivalSource,
    /// When it began, in milliseconds since 1970 UTC.
    pub(in crate::db) first_ms: i64,
}

/// An arrival that may go on.
struct OpenArrival {
    id: i64,
    first_ms: i64,
    last_ms: i64,
}

impl OpenArrival {
    fn goes_on(&self, now_ms: i64) -> bool {
        (0..LONGEST_PAUSE_MS).contains(&(now_ms - self.last_ms))
            && now_ms - self.first_ms < LONGEST_ARRIVAL_MS
            && now_ms.div_euclid(DAY_MS) == self.first_ms.div_euclid(DAY_MS)
    }
}

/// The arrivals of a writer that may go on, by their numbers.
#[derive(Default)]
pub(in crate::db) struct OpenArrivals(HashMap<SourceOfInstances, OpenArrival>);

impl OpenArrivals {
    /// The arrival of a source, if it goes on.
    pub(in crate::db) fn going_on(&mut self, source: &SourceOfInstances, now_ms: i64) -> Option<i64> {
        let open = self.0.get_mut(source).filter(|open| open.goes_on(now_ms))?;
        open.last_ms = now_ms;
        Some(open.id)
    }

    /// Notes that an arrival has begun.
    pub(in crate::db) fn begin(&mut self, source: SourceOfInstances, id: i64, now_ms: i64) {
        if self.0.len() >= REMEMBERED_SOURCES {
            self.0.retain(|_, open| open.goes_on(now_ms));
        }
        if self.0.len() >= REMEMBERED_SOURCES {
            self.0.clear();
        }
        self.0.insert(source, OpenArrival { id, first_ms: now_ms, last_ms: now_ms });
    }

    /// Forgets all of them, because their rows may be gone.
    pub(in crate::db) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arrival_goes_on_within_its_day_and_hour_and_without_a_pause() {
        let noon = 12 * LONGEST_ARRIVAL_MS;
        let open = |first_ms, last_ms| OpenArrival { id: 1, first_ms, last_ms };
        assert!(open(noon, noon).goes_on(noon));
        assert!(open(noon, noon).goes_on(noon + LONGEST_PAUSE_MS - 1));
        assert!(!open(noon, noon).goes_on(noon + LONGEST_PAUSE_MS));
        assert!(!open(noon, noon + LONGEST_ARRIVAL_MS - 1).goes_on(noon + LONGEST_ARRIVAL_MS));
        assert!(!open(DAY_MS - 1, DAY_MS - 1).goes_on(DAY_MS));
        // A clock that was set back.
        assert!(!open(noon, noon).goes_on(noon - 1));
    }
}
