//! Reads every object of our own slowly, to find damage while another copy may still exist
//! somewhere.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::archive::Archives;
use crate::db::ScanLedger;
use crate::db::open::Reader;
use crate::db::{Error as IndexError, LocatedInstance};
use crate::deliver::object::{Identity, ObjectError, StoredObject};
use crate::model::location::Place;
use crate::store::Verified;

/// Directories in one request to the index.
const PAGE_DIRECTORIES: usize = 100;

/// Time of one pause. Larger: reading comes in bursts. Smaller: more wake-ups.
const LEAST_PAUSE: Duration = Duration::from_millis(100);

/// The objects of a scrub, and its speed.
#[derive(Clone, Debug)]
pub struct Scrub {
    /// The index.
    pub index: PathBuf,
    /// Maximum bytes read in a second. It is not 0.
    pub bytes_per_second: u64,
    /// The record of verified objects.
    pub verified: Arc<Verified>,
}

/// The result of a round, in objects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScrubTally {
    /// Objects as they were received. Without a checksum, they have the same length.
    pub sound: u64,
    /// Objects that differ from what was received.
    pub damaged: u64,
    /// Objects that are not at their location, or not accessible.
    pub gone: u64,
    /// Number of bytes read.
    pub bytes: u64,
}

/// Waits for a time. Returns whether to go on.
type Wait<'w> = dyn FnMut(Duration) -> ControlFlow<()> + 'w;

impl Scrub {
    /// Reads every object of our own once. `wait` waits between reads. When it breaks, the round
    /// ends early.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn round(&self, wait: &mut Wait<'_>) -> Result<ScrubTally, IndexError> {
        let mut reader = Reader::open(&self.index)?;
        let mut round = Round { scrub: self, tally: ScrubTally::default(), owed: Duration::ZERO };
        let root = Path::new("/");
        let mut after = root.to_owned();
        loop {
            let page = reader.directories_below(Place::Managed, root, &after, PAGE_DIRECTORIES)?;
            let Some(last) = page.last() else { return Ok(round.tally) };
            after.clone_from(last);
            for directory in &page {
                for instance in reader.located_instances(Place::Managed, directory)? {
                    if round.verify(&instance, wait).is_break() {
                        return Ok(round.tally);
                    }
                }
            }
        }
    }
}

struct Round<'s> {
    scrub: &'s Scrub,
    tally: ScrubTally,
    /// The time that the bytes read so far must take.
    owed: Duration,
}

impl Round<'_> {
    fn verify(&mut self, instance: &LocatedInstance, wait: &mut Wait<'_>) -> ControlFlow<()> {
        let identity = Identity {
            sop_instance_uid: &instance.sop_instance_uid,
            sop_class_uid: Some(&instance.sop_class_uid),
            transfer_syntax: Some(&instance.transfer_syntax),
        };
        let opened = StoredObject::open(&instance.location, &identity, &Archives::default())
            .and_then(|object| object.expecting(instance.checksum, &self.scrub.verified));
        let mut stopped = ControlFlow::Continue(());
        let found = opened.and_then(|object| {
            object.read_to_end_with(&mut |count| {
                stopped = self.pay_for(count, wait);
                stopped
            })
        });
        stopped?;
        match found {
            Ok(()) => self.tally.sound += 1,
            Err(ObjectError::Damaged | ObjectError::Changed(_) | ObjectError::OtherClass) => self.tally.damaged += 1,
            Err(
                ObjectError::NotKept
                | ObjectError::Store(_)
                | ObjectError::Read(_)
                | ObjectError::Rewrite(_)
                | ObjectError::Decompress(_),
            ) => self.tally.gone += 1,
        }
        ControlFlow::Continue(())
    }

    fn pay_for(&mut self, count: usize, wait: &mut Wait<'_>) -> ControlFlow<()> {
        self.tally.bytes += count as u64;
        let nanoseconds = (count as u64).saturating_mul(1_000_000_000) / self.scrub.bytes_per_second.max(1);
        self.owed += Duration::from_nanos(nanoseconds);
        if self.owed < LEAST_PAUSE {
            return ControlFlow::Continue(());
        }
        wait(std::mem::take(&mut self.owed))
    }
}
