//! Parts that all retrievals share: readers of the index, threads, and the memory for lists of
//! instances.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;

use super::decoders::Decoders;
use crate::db::Search;
use crate::model::find::FindRequest;
use crate::qr::readers::Readers;
use crate::qr::{self, FindError, Instances, RetrieveError};
use crate::shares::{CountedPeer, Share, Shares, Turns};
use crate::store::Verified;
use crate::telemetry::metrics;

/// Maximum threads that read objects for peers at one time. More wait for their turn. Larger: more
/// of the threads for blocking work may wait for a slow disk. Smaller: disks that serve many reads
/// at once are not used fully.
const READING_THREADS: usize = 64;

/// Maximum instances of all retrievals under way. It is at least twice the maximum of one
/// retrieval, because a peer may have half. Each takes some 70 bytes.
const MAX_LISTED: usize = 1 << 20;

/// The settings of sending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryOptions {
    /// Maximum instances of one retrieval. More are refused. Each takes some 70 bytes while the
    /// retrieval lasts.
    pub max_instances: usize,
    /// Time for the file system to read the next bytes of an object.
    pub source_timeout: Duration,
    /// Time that an object counts as sound after its checksum was verified, while its file is
    /// unchanged.
    pub verification_holds: Duration,
}

/// Parts that sending objects needs. There is one set for each index, shared by C-GET, C-MOVE and
/// WADO-RS.
#[derive(Debug)]
pub struct Delivery {
    pub(crate) readers: Readers,
    /// Threads that read objects.
    pub(super) threads: Arc<Turns>,
    /// One for each instance of a retrieval under way.
    listed: Arc<Shares>,
    options: DeliveryOptions,
    verified: Arc<Verified>,
    /// Places to decompress frames.
    pub(crate) decoders: Arc<Decoders>,
}

impl Delivery {
    /// Creates it for the objects that this index names.
    #[must_use]
    pub fn new(index: PathBuf, options: DeliveryOptions) -> Self {
        let listed = MAX_LISTED.max(options.max_instances.saturating_mul(2));
        let listed = Shares::new(listed, 0, &metrics::RETRIEVALS_REFUSED_A_SHARE);
        let verified = Arc::new(Verified::new(options.verification_holds));
        let (readers, threads) = (Readers::new(index), Turns::new(READING_THREADS));
        Self { readers, threads, listed, options, verified, decoders: Arc::default() }
    }

    /// Returns the record of objects whose checksums were verified.
    #[must_use]
    pub fn verified(&self) -> &Arc<Verified> {
        &self.verified
    }

    /// Returns the time for the file system to read the next bytes of an object.
    pub(super) fn source_timeout(&self) -> Duration {
        self.options.source_timeout
    }

    /// Asks the index for the instances, within `time_limit`. Returns the list and the memory that
    /// is counted for it. `question` runs on a thread that may block.
    ///
    /// # Errors
    /// The errors of `question`, and [`FindError::TimeLimit`], [`FindError::NoRoom`],
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
            // If the time is already up, nobody takes it.
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
