//! What the last requests for metadata found in the index. As long as the index is unchanged, the
//! same request asks it nothing.
//!
//! An index that is being written changes with each transaction. Then every request asks it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::audit::AuditedStudy;
use crate::model::location::Location;
use crate::qr::readers::IndexVersion;

/// Maximum number of locations of all recalled answers. Each takes some 200 bytes.
const MAX_LOCATIONS: usize = 50_000;

/// Maximum number of locations of one recalled answer.
const MAX_LOCATIONS_OF_ONE: usize = MAX_LOCATIONS / 4;

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
#[derive(Debug, Default)]
pub(super) struct RecalledAnswers(Mutex<HashMap<String, RecalledAnswer>>);

#[derive(Debug)]
struct RecalledAnswer {
    state: IndexVersion,
    since: Instant,
    used: Instant,
    said: FromIndex,
}

impl RecalledAnswers {
    /// Returns what the index said for this request in this state.
    pub(super) fn get(&self, request: &str, state: IndexVersion, now: Instant) -> Option<FromIndex> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = kept.get_mut(request)?;
        if answer.state != state || now.duration_since(answer.since) >= RECALLED_FOR {
            kept.remove(request);
            return None;
        }
        answer.used = now;
        Some(answer.said.clone())
    }

    /// Keeps what the index said since it had this state. The answers that were not used for the
    /// longest time make room.
    pub(super) fn put(&self, request: String, state: IndexVersion, said: FromIndex, now: Instant) {
        if said.locations.len() > MAX_LOCATIONS_OF_ONE {
            return;
        }
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.insert(request, RecalledAnswer { state, since: now, used: now, said });
        while kept.values().map(|answer| answer.said.locations.len() + ANSWER_COST).sum::<usize>() > MAX_LOCATIONS {
            let oldest = kept.iter().min_by_key(|(_, answer)| answer.used).map(|(request, _)| request.clone());
            let Some(oldest) = oldest else { return };
            kept.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::location::Place;

    fn said(count: usize) -> FromIndex {
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
        answers.put("1".to_owned(), state, said(2), now);
        assert_eq!(answers.get("1", state, now).map(|said| said.hash), Some(7));
        assert!(answers.get("2", state, now).is_none());
        assert!(answers.get("1", other, now).is_none(), "the index changed");
        assert!(answers.get("1", state, now).is_none(), "what changed is gone");
        answers.put("1".to_owned(), state, said(2), now);
        assert!(answers.get("1", state, now + RECALLED_FOR).is_none(), "it is too old");
    }

    #[test]
    fn answers_that_were_not_used_for_longest_make_room() {
        let (answers, state, start) = (RecalledAnswers::default(), IndexVersion::new(1, 5), Instant::now());
        let at = |second| start + Duration::from_secs(second);
        answers.put("0".to_owned(), state, said(MAX_LOCATIONS_OF_ONE + 1), start);
        assert!(answers.get("0", state, start).is_none(), "longer than one may be");
        for study in 1..=3 {
            answers.put(study.to_string(), state, said(MAX_LOCATIONS_OF_ONE), at(study));
        }
        assert!(answers.get("1", state, at(4)).is_some());
        answers.put("4".to_owned(), state, said(MAX_LOCATIONS_OF_ONE), at(5));
        let kept = [1, 2, 3, 4].map(|study| answers.get(&study.to_string(), state, at(6)).is_some());
        assert_eq!(kept, [true, false, true, true]);
    }
}
