//! Places and memory for frames that are decompressed. All receivers of the node share them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use tokio::runtime::Handle;

use crate::shares::{CountedPeer, Share, Shares, Turn, Turns};
use crate::telemetry::metrics;

/// Maximum number of frames that are decompressed or rendered at a time. Each takes a processor and
/// the memory of the frame. One peer has half of these slots, because a peer may have as many as
/// are left. Larger: other work gets less of the processors. Smaller: peers wait for each other.
const SLOTS: usize = 4;

/// Maximum memory for decompressed frames, in bytes. One peer may have half of it.
const FRAME_BYTES: usize = 1 << 30;

/// The slots and the memory of a node for frames that are decompressed.
#[derive(Debug)]
pub(crate) struct Decoders {
    turns: Arc<Turns>,
    memory: Arc<Shares>,
}

impl Default for Decoders {
    fn default() -> Self {
        Self { turns: Turns::new(SLOTS), memory: Shares::new(FRAME_BYTES, 0, &metrics::MEMORY_REFUSED) }
    }
}

impl Decoders {
    /// Waits for a slot to decompress or render one frame.
    pub(crate) async fn turn(&self, peer: &CountedPeer) -> Turn {
        self.turns.take(peer).await
    }

    /// The same on a thread that may block.
    pub(crate) fn blocking_turn(&self, peer: &CountedPeer) -> Turn {
        Handle::current().block_on(self.turns.take(peer))
    }

    /// Memory for frames, if the peer may have it.
    pub(crate) fn memory(&self, peer: &CountedPeer, bytes: u64) -> Option<Share> {
        self.memory.take(peer, usize::try_from(bytes).ok()?)
    }
}

/// For whom an object is decompressed.
#[derive(Clone, Debug)]
pub(crate) struct DecodingFor {
    pub(crate) decoders: Arc<Decoders>,
    pub(crate) peer: CountedPeer,
    pub(crate) progress: Arc<DecodingProgress>,
}

/// State that the reader of an object and its receiver share, before the first byte goes out.
#[derive(Debug, Default)]
pub(crate) struct DecodingProgress {
    frames: AtomicU64,
    is_given_up: AtomicBool,
}

impl DecodingProgress {
    /// Counts a frame.
    pub(super) fn frame_is_done(&self) {
        self.frames.fetch_add(1, Relaxed);
    }

    /// Returns the number of frames so far.
    pub(super) fn frames(&self) -> u64 {
        self.frames.load(Relaxed)
    }

    /// Says that nobody waits for the object any more.
    pub(super) fn give_up(&self) {
        self.is_given_up.store(true, Relaxed);
    }

    /// Whether nobody waits for the object any more.
    pub(super) fn is_given_up(&self) -> bool {
        self.is_given_up.load(Relaxed)
    }
}
