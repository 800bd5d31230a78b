//! Remembers the results of verifying managed objects against their checksums.

use std::collections::HashMap;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;

use crate::files::FileMark;
use crate::model::checksum::Checksum;
use crate::model::clock::Clock;
use crate::model::location::Location;
use crate::telemetry::metrics;

/// Maximum objects in each of two generations. An object takes some 120 bytes, all of them together
/// 16 MB.
const GENERATION: usize = 65_536;

/// If a file changed less than this before the check, it may change again with the same change
/// time.
const TICK_MS: i64 = 2_000;

/// Default time for which an object counts as sound. Smaller: objects are read and compared more
/// often. Larger: damage on the disk is found later.
pub const DEFAULT_HOLDS: Duration = Duration::from_secs(24 * 60 * 60);

/// The result of comparing a checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Soundness {
    /// The bytes are those that the node received.
    Sound,
    /// The bytes differ from those that the node received.
    Damaged,
}

#[derive(Debug)]
struct VerifiedFile {
    mark: FileMark,
    expected: Checksum,
    soundness: Soundness,
    since: Instant,
}

/// Results of earlier checks, limited in time and number.
#[derive(Debug)]
pub struct Verified {
    holds: Duration,
    generations: Mutex<[HashMap<(u64, u64), VerifiedFile>; 2]>,
    /// Channel that takes the SOP Instance UIDs of damaged objects.
    told: OnceLock<Sender<String>>,
}

impl Default for Verified {
    fn default() -> Self {
        Self::new(DEFAULT_HOLDS)
    }
}

impl Verified {
    /// Remembers each result for this time.
    #[must_use]
    pub fn new(holds: Duration) -> Self {
        Self { holds, generations: Mutex::default(), told: OnceLock::new() }
    }

    /// Sends the SOP Instance UID of each object that is found damaged from now on. It never waits:
    /// an object that does not fit into the channel is found again by the next check.
    pub fn tell_damaged(&self, to: Sender<String>) {
        // A second one would be a defect of the node, and the first one stays.
        let _first = self.told.set(to);
    }

    /// The result for the file with this mark. `None` if the file must be read.
    #[must_use]
    pub fn known(&self, mark: &FileMark, expected: Checksum) -> Option<Soundness> {
        let generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = generations.iter().find_map(|generation| generation.get(&(mark.device, mark.inode)))?;
        let holds = entry.mark == *mark && entry.expected == expected && entry.since.elapsed() < self.holds;
        holds.then_some(entry.soundness)
    }

    /// Whether the file of a location is known to have other bytes than those that were received.
    #[must_use]
    pub fn is_damaged(&self, location: &Location, expected: Checksum) -> bool {
        let metadata = location.file().and_then(|file| file.metadata().ok());
        metadata.is_some_and(|metadata| self.known(&FileMark::of(&metadata), expected) == Some(Soundness::Damaged))
    }

    /// Stores a result. It also counts it and logs a damaged object.
    pub fn note(&self, sop_instance_uid: &str, mark: FileMark, expected: Checksum, soundness: Soundness) {
        match soundness {
            Soundness::Sound => metrics::OBJECTS_SOUND.increment(),
            Soundness::Damaged => {
                metrics::OBJECTS_DAMAGED.increment();
                // A channel that is full or gone loses nothing for good: see `tell_damaged`.
                let _lost = self.told.get().map(|told| told.try_send(sop_instance_uid.to_owned()));
                tracing::error!(
                    "a stored object is damaged: its bytes differ from those received; it is neither sent nor committed; \
                     `dcmdex check --files` names it"
                );
            }
        }
        let changed_ms = mark.changed.0.saturating_mul(1000).saturating_add(mark.changed.1 / 1_000_000);
        if soundness == Soundness::Sound && Clock::System.now_ms().saturating_sub(changed_ms) < TICK_MS {
            return;
        }
        let entry = VerifiedFile { mark, expected, soundness, since: Instant::now() };
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        let [new, old] = &mut *generations;
        if new.len() >= GENERATION {
            *old = std::mem::take(new);
        }
        old.remove(&(mark.device, mark.inode));
        new.insert((mark.device, mark.inode), entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(inode: u64) -> FileMark {
        FileMark { device: 1, inode, size: 10, modified: (1, 0), changed: (1, 0) }
    }

    #[test]
    fn what_was_found_holds_for_the_same_file_and_its_time() {
        let [expected, other] = [Checksum::of(b"one"), Checksum::of(b"other")];
        let verified = Verified::default();
        verified.note("1.2", mark(1), expected, Soundness::Sound);
        verified.note("1.2", mark(2), expected, Soundness::Damaged);
        assert_eq!(verified.known(&mark(1), expected), Some(Soundness::Sound));
        assert_eq!(verified.known(&mark(2), expected), Some(Soundness::Damaged));
        assert_eq!(verified.known(&mark(1), other), None);
        assert_eq!(verified.known(&FileMark { changed: (1, 1), ..mark(1) }, expected), None);
        assert_eq!(verified.known(&mark(3), expected), None);
        let forgetful = Verified::new(Duration::ZERO);
        forgetful.note("1.2", mark(1), expected, Soundness::Sound);
        assert_eq!(forgetful.known(&mark(1), expected), None);
    }

    #[test]
    fn a_file_that_has_just_changed_is_not_taken_for_sound_later() {
        let now_ms = Clock::System.now_ms();
        let fresh = FileMark { changed: (now_ms / 1000, 0), ..mark(1) };
        let verified = Verified::default();
        verified.note("1.2", fresh, Checksum::of(b""), Soundness::Sound);
        assert_eq!(verified.known(&fresh, Checksum::of(b"")), None);
    }

    #[test]
    fn the_number_of_objects_remembered_is_limited() {
        let (verified, expected) = (Verified::default(), Checksum::of(b""));
        for inode in 0..(3 * GENERATION as u64) {
            verified.note("1.2", mark(inode), expected, Soundness::Sound);
        }
        let held: usize = verified.generations.lock().unwrap().iter().map(HashMap::len).sum();
        assert!(held <= 2 * GENERATION);
        assert_eq!(verified.known(&mark(3 * GENERATION as u64 - 1), expected), Some(Soundness::Sound));
    }
}
