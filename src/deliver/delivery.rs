//! What all retrievals have in common: readers of the index, threads, and the lists that are held.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;

use crate::db::Search;
use crate::model::find::FindRequest;
use crate::qr::readers::Readers;
use crate::qr::{self, FindError, Instances, RetrieveError};
use crate::shares::{CountedPeer, Share, Shares, Turns};
use crate::store::Verified;
use crate::telemetry::metrics;

/// Threads that read objects for peers, at one time. More wait for their turn. Larger: more of the threads that the runtime has
/// for all that blocks may wait for a slow disk. Smaller: disks that answer many at once wait for us.
const READING_THREADS: usize = 64;

/// Instances of all retrievals that go on, in all, or twice those of one where that is more: a peer may have half. Each takes
/// some 70 bytes.
const MAX_LISTED: usize = 1 << 20;

/// What can be set about the sending of objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryOptions {
    /// Instances of one retrieval; more are refused. Each takes some 70 bytes while it lasts.
    pub max_instances: usize,
    /// Time for the file system to give the next bytes of an object.
    pub source_timeout: Duration,
    /// How long an object whose checksum was verified counts as sound while its file is untouched.
    pub verification_holds: Duration,
}

/// What sending objects needs. One for each index: C-GET, C-MOVE and WADO-RS share it.
#[derive(Debug)]
pub struct Delivery {
    pub(crate) readers: Readers,
    /// Threads that read objects.
    pub(super) threads: Arc<Turns>,
    /// One for each instance of a retrieval that goes on.
    listed: Arc<Shares>,
    options: DeliveryOptions,
    verified: Arc<Verified>,
}

impl Delivery {
    /// Sends what this index names.
    #[must_use]
    pub fn new(index: PathBuf, options: DeliveryOptions) -> Self {
        let listed = MAX_LISTED.max(options.max_instances.saturating_mul(2));
        let listed = Shares::new(listed, 0, &metrics::RETRIEVALS_REFUSED_A_SHARE);
        let verified = Arc::new(Verified::new(options.verification_holds));
        let (readers, threads) = (Readers::new(index), Turns::new(READING_THREADS));
        Self { readers, threads, listed, options, verified }
    }

    /// What is known of the objects whose checksums were verified.
    #[must_use]
    pub fn verified(&self) -> &Arc<Verified> {
        &self.verified
    }

    /// Time for the file system to give the next bytes of an object.
    pub(super) fn source_timeout(&self) -> Duration {
        self.options.source_timeout
    }

    /// Asks the index which instances are meant, within `time_limit`; with what is counted for the
    /// list. `question` is called on a thread that may block.
    ///
    /// # Errors
    /// Those of `question`, and [`FindError::TimeLimit`], [`FindError::NoRoom`],
    /// [`RetrieveError::TooManyInstances`].
    pub(crate) async fn instances(
        self: &Arc<Self>,
        peer: &CountedPeer,
        time_limit: Duration,
        question: impl FnOnce() -> Result<FindRequest, RetrieveError> + Send + 'static,
    ) -> Result<(Instances, Share), RetrieveError> {
        let instances = self.list(peer, time_limit, question).await?;
        let share = self.listed.take(peer, instances.len());
        share.map(|share| (instances, share)).ok_or(RetrieveError::Query(FindError::NoRoom))
    }

    async fn list(
        self: &Arc<Self>,
        peer: &CountedPeer,
        time_limit: Duration,
        question: impl FnOnce() -> Result<FindRequest, RetrieveError> + Send + 'static,
    ) -> Result<Instances, RetrieveError> {
        let (interrupt_sender, interrupt) = tokio::sync::oneshot::channel();
        let turns = self.readers.turns();
        let Ok(turn) = tokio::time::timeout(time_limit, turns.take(peer)).await else {
            return Err(RetrieveError::Query(FindError::TimeLimit));
        };
        let this = Arc::clone(self);
        let mut asking = spawn_blocking(move || {
            let _until_its_end = turn;
            let question = question()?;
            let mut reader = this.readers.take()?;
            // Nobody takes it when the time is up already.
            let _ = interrupt_sender.send(reader.interrupt());
            let instances = qr::instances(&mut reader, &question, this.options.max_instances)?;
            this.readers.give_back(reader);
            Ok(instances)
        });
        let found = match tokio::time::timeout(time_limit, &mut asking).await {
            Ok(found) => found,
            Err(_) => {
                if let Ok(interrupt) = interrupt.await {
                    interrupt.interrupt();
                }
                asking.await
            }
        };
        found.unwrap_or(Err(RetrieveError::Query(FindError::TimeLimit)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::peer::CountedAs;

    #[test]
    fn a_list_that_is_as_long_as_one_may_be_has_room() {
        for max_instances in [200_000, 3_000_000] {
            let (source_timeout, verification_holds) = (Duration::from_secs(60), Duration::ZERO);
            let options = DeliveryOptions { max_instances, source_timeout, verification_holds };
            let delivery = Delivery::new("/nowhere".into(), options);
            let peer: CountedPeer = Arc::new(CountedAs::address([10, 0, 0, 1].into()));
            assert!(delivery.listed.take(&peer, max_instances).is_some(), "{max_instances}");
        }
    }
}
