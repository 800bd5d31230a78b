//! Results from the index for the last requests for metadata. As long as the index is unchanged,
//! the same request asks it nothing.
//!
//! An index that is being written changes with each transaction. Then every request asks it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::weighted_cache::WeightedCache;
use crate::audit::AuditedStudy;
use crate::model::location::Location;
use crate::qr::readers::IndexVersion;

/// Maximum number of locations of all recalled answers. Each takes some 200 bytes.
const MAX_LOCATIONS: usize = 50_000;

/// Divisor for the largest answer that is recalled, as a part of all.
const PART: usize = 4;

/// Locations that an answer counts for besides its own.
const ANSWER_COST: usize = 8;

/// Time for which an answer is recalled. Whether files are there that no scan has missed is not in
/// the index. Larger: an answer counts as unchanged after they were removed. Smaller: the index is
/// asked more often.
const RECALLED_FOR: Duration = Duration::from_secs(60);

/// Cached result of the index for a request.
#[derive(Clone, Debug)]
pub(super) struct FromIndex {
    /// Hash of everything that may change the answer. These are the instances, the places of their
    /// objects, and size and time of each. The URL of the service is in it as well.
    pub(super) hash: u128,
    /// Number of instances whose objects are not at hand.
    pub(super) unavailable: usize,
    /// The place of each object.
    pub(super) locations: Arc<[Location]>,
    /// Studies and patients, for the audit trail. Empty without one.
    pub(super) studies: Arc<[AuditedStudy]>,
}

/// The answers that were given last, by what their requests have that an answer depends on.
pub(super) struct RecalledAnswers(WeightedCache<String, RecalledAnswer>);

#[derive(Clone)]
struct RecalledAnswer {
    state: IndexVersion,
    since: Instant,
    known: FromIndex,
}

impl Default for RecalledAnswers {
    fn default() -> Self {
        Self(WeightedCache::new(MAX_LOCATIONS))
    }
}

impl RecalledAnswers {
    /// Returns what the index said for this request in this state.
    pub(super) fn get(&self, request: &str, state: IndexVersion, now: Instant) -> Option<FromIndex> {
        let answer = self.0.get(request)?;
        if answer.state != state || now.duration_since(answer.since) >= RECALLED_FOR {
            self.0.remove(request);
            return None;
        }
        Some(answer.known)
    }

    /// Keeps what the index said since it had this state.
    pub(super) fn put(&self, request: String, state: IndexVersion, known: FromIndex, now: Instant) {
        let cost = known.locations.len() + ANSWER_COST;
        self.0.put(request, RecalledAnswer { state, since: now, known }, cost, PART);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::location::Place;

    fn known(count: usize) -> FromIndex {
        let location = Location {
            place: Place::Managed,
            directory: "/objects".into(),
            file_name: "1".into(),
            size: 1,
            mtime_ms: 1,
        };
        FromIndex { hash: 7, unavailable: 0, locations: vec![location; count].into(), studies: Arc::default() }
    }

    #[test]
    fn an_answer_is_recalled_while_the_index_is_unchanged() {
        let (answers, now) = (RecalledAnswers::default(), Instant::now());
        let (state, other) = (IndexVersion::new(1, 5), IndexVersion::new(1, 6));
        answers.put("1".to_owned(), state, known(2), now);
        assert_eq!(answers.get("1", state, now).map(|known| known.hash), Some(7));
        assert!(answers.get("2", state, now).is_none());
        assert!(answers.get("1", other, now).is_none(), "the index changed");
        assert!(answers.get("1", state, now).is_none(), "what changed is gone");
        answers.put("1".to_owned(), state, known(2), now);
        assert!(answers.get("1", state, now + RECALLED_FOR).is_none(), "it is too old");
    }

    #[test]
    fn an_answer_that_is_too_long_is_not_recalled() {
        let (answers, state, now) = (RecalledAnswers::default(), IndexVersion::new(1, 5), Instant::now());
        let most = MAX_LOCATIONS / PART - ANSWER_COST;
        answers.put("0".to_owned(), state, known(most + 1), now);
        answers.put("1".to_owned(), state, known(most), now);
        assert!(answers.get("0", state, now).is_none() && answers.get("1", state, now).is_some());
    }
}
