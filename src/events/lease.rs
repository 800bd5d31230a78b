//! Choice of the node that serves a receiver, where several nodes tell the events of one index.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::db::open::WriterHandle;
use crate::db::{Error, EventChanges as _};

/// Time for which a receiver stays with a node. Larger: after a crash of the node, events wait
/// longer for another one. Smaller: a pause of the server gives the receiver to another node.
const LEASE: Duration = Duration::from_secs(6);

/// Time before its end at which the node takes a lease for over. No delivery begins then.
const MARGIN: Duration = Duration::from_secs(2);

/// A receiver, and until when this node serves it.
pub(super) struct ReceiverLease {
    receiver: String,
    /// A name that no other node has.
    holder: String,
    valid_until: Mutex<Option<Instant>>,
}

impl ReceiverLease {
    pub(super) fn new(receiver: String) -> Self {
        let random = RandomState::new().hash_one(std::process::id());
        Self { receiver, holder: format!("{random:016x}"), valid_until: Mutex::new(None) }
    }

    pub(super) fn holder(&self) -> &str {
        &self.holder
    }

    /// Whether this node serves the receiver now.
    pub(super) fn is_valid(&self) -> bool {
        self.valid_until().is_some_and(|until| Instant::now() < until)
    }

    /// Asks for the receiver, or for more time. Returns whether this node serves it.
    pub(super) fn renew(&self, writer: &WriterHandle) -> Result<bool, Error> {
        let asked = Instant::now();
        let is_ours = writer.hold_receiver(&self.receiver, &self.holder, LEASE)?;
        self.set(is_ours.then(|| asked + LEASE - MARGIN));
        Ok(is_ours)
    }

    /// Leaves the receiver to others.
    pub(super) fn end(&self, writer: &WriterHandle) {
        if self.valid_until().is_some() {
            self.set(None);
            // If this fails, another node waits until the time is over.
            let _waits = writer.hold_receiver(&self.receiver, &self.holder, Duration::ZERO);
        }
    }

    fn valid_until(&self) -> Option<Instant> {
        *self.valid_until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, until: Option<Instant>) {
        *self.valid_until.lock().unwrap_or_else(PoisonError::into_inner) = until;
    }
}
