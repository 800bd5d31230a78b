//! The retrieval service of a node, shared by C-GET and C-MOVE: its objects, its settings, and the
//! transfer syntaxes that it holds.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::spawn_blocking;
use tracing::{debug, warn};

use crate::db::Search;
use crate::deliver::delivery::{Delivery, DeliveryOptions};
use crate::pixels::codec::Codec;
use crate::qr::Hierarchy;
use crate::scp::negotiation::HeldSyntaxes;

/// Time after which the list of held transfer syntaxes is asked for again.
const HELD_HOLDS: Duration = Duration::from_secs(60);

/// Time that a node waits for that list before it listens. The list comes at once, except in huge
/// archives. There the first associations do without it.
const HELD_WAIT: Duration = Duration::from_secs(2);

/// Compressed objects that are decompressed for peers that do not take them as they are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Decompression {
    /// All whose transfer syntax has a codec. Lossy ones state their loss (PS3.3 C.7.6.1.1.5).
    #[default]
    All,
    /// Objects whose transfer syntax is lossless.
    Lossless,
    /// None.
    Never,
}

impl Decompression {
    /// Whether objects in this transfer syntax are decompressed.
    pub(super) fn covers(self, transfer_syntax: &str) -> bool {
        match self {
            Self::All => Codec::of(transfer_syntax).is_some(),
            Self::Lossless => Codec::lossless(transfer_syntax).is_some(),
            Self::Never => false,
        }
    }
}

/// The settings of retrievals.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Action for retrievals that break PS3.4 C.4.2.2.1. See [`Hierarchy`].
    pub hierarchy: Hierarchy,
    /// The Specific Character Set of requests that name none.
    pub assumed_character_set: String,
    /// Maximum instances of one retrieval. More are refused with A701. Each takes some 70 bytes
    /// while the retrieval lasts.
    pub max_instances: usize,
    /// Objects that are decompressed for peers that do not take them as they are stored.
    pub decompression: Decompression,
    /// Time for a peer to answer a C-STORE-RQ of this node, once it has all of it.
    pub response_timeout: Duration,
    /// Time for the file system to read the next bytes of an object.
    pub source_timeout: Duration,
    /// Time that an object counts as sound after its checksum was compared, while its file is
    /// unchanged.
    pub verification_holds: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            hierarchy: Hierarchy::Lenient,
            assumed_character_set: String::new(),
            max_instances: 200_000,
            decompression: Decompression::default(),
            response_timeout: Duration::from_secs(60),
            source_timeout: Duration::from_secs(60),
            verification_holds: crate::store::DEFAULT_HOLDS,
        }
    }
}

/// The retrieval service of a node.
#[derive(Debug)]
pub struct Retrieve {
    delivery: Arc<Delivery>,
    options: Options,
    held: HeldSyntaxes,
    /// Time of the last request for the list of held transfer syntaxes.
    held_since: Mutex<Option<Instant>>,
}

impl Retrieve {
    /// Creates the service for the objects that this index names.
    #[must_use]
    pub fn new(index: PathBuf, options: Options) -> Self {
        let Options { max_instances, source_timeout, verification_holds, .. } = options;
        let delivery = Delivery::new(index, DeliveryOptions { max_instances, source_timeout, verification_holds });
        let (held, held_since) = (HeldSyntaxes::default(), Mutex::new(None));
        Self { delivery: Arc::new(delivery), options, held, held_since }
    }

    /// Returns what it shares with other ways to get objects.
    #[must_use]
    pub fn delivery(&self) -> &Arc<Delivery> {
        &self.delivery
    }

    /// Returns the settings.
    pub(in crate::scp) fn options(&self) -> &Options {
        &self.options
    }

    /// Returns the transfer syntaxes that are held. Waits a little for the list, so that the first
    /// association has it.
    pub(in crate::scp) async fn held_before_first_association(self: &Arc<Self>) -> HeldSyntaxes {
        if let Some(asking) = self.refresh_held()
            && tokio::time::timeout(HELD_WAIT, asking).await.is_err()
        {
            debug!("the list of held transfer syntaxes is not there yet");
        }
        self.held.clone()
    }

    /// Asks for the list again in the background, if it is old.
    fn refresh_held(self: &Arc<Self>) -> Option<tokio::task::JoinHandle<()>> {
        let mut since = self.held_since.lock().unwrap_or_else(PoisonError::into_inner);
        if since.is_some_and(|since| since.elapsed() < HELD_HOLDS) {
            return None;
        }
        *since = Some(Instant::now());
        let this = Arc::clone(self);
        Some(spawn_blocking(move || {
            let Ok(mut reader) = this.delivery.readers.take() else { return };
            match reader.held_transfer_syntaxes() {
                Ok(rows) => {
                    let mut held: HashMap<String, Vec<String>> = HashMap::new();
                    for (class, transfer_syntax) in rows {
                        held.entry(class).or_default().push(transfer_syntax);
                    }
                    this.held.replace(held);
                    this.delivery.readers.give_back(reader);
                }
                Err(error) => warn!(%error, "the index does not say which transfer syntaxes it holds"),
            }
        }))
    }
}
