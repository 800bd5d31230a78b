//! Buffers of the pieces that go out. They are used again when the client has taken their bytes.
//!
//! A new buffer of this size comes from the kernel, which clears each page, and goes back to it.
//! With frames of 0.5 MB that was a third of the processor time.

use std::sync::{Arc, Mutex, PoisonError};

use hyper::body::Bytes;

/// Number of bytes of one piece. Larger: more memory for each response. Smaller: more changes
/// between threads.
pub(super) const PIECE_BYTES: usize = 256 << 10;

/// Maximum number of buffers that are kept without use: 8 MiB.
const KEPT_BUFFERS: usize = 32;

/// The buffers that nobody uses now.
#[derive(Debug, Default)]
pub(super) struct PieceBuffers(Mutex<Vec<Vec<u8>>>);

/// One buffer. It goes back when it is dropped, also by way of its bytes.
#[derive(Debug)]
pub(super) struct PieceBuffer {
    /// Always of the whole length.
    bytes: Vec<u8>,
    filled: usize,
    home: Arc<PieceBuffers>,
}

impl PieceBuffers {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns an empty buffer.
    pub(super) fn take(this: &Arc<Self>) -> PieceBuffer {
        let free = this.lock().pop();
        PieceBuffer { bytes: free.unwrap_or_else(|| vec![0; PIECE_BYTES]), filled: 0, home: Arc::clone(this) }
    }
}

impl PieceBuffer {
    /// Appends what has room, and returns the rest.
    pub(super) fn push<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        let space = self.bytes.get_mut(self.filled..).unwrap_or_default();
        let (now, rest) = bytes.split_at(bytes.len().min(space.len()));
        if let Some(space) = space.get_mut(..now.len()) {
            space.copy_from_slice(now);
        }
        self.filled += now.len();
        rest
    }

    /// Whether nothing more has room.
    pub(super) fn is_full(&self) -> bool {
        self.filled == self.bytes.len()
    }

    /// Returns up to so many bytes to read into. What they hold is old.
    pub(super) fn space(&mut self, most: u64) -> &mut [u8] {
        let count = usize::try_from(most).map_or(self.bytes.len(), |most| most.min(self.bytes.len()));
        self.bytes.get_mut(..count).unwrap_or_default()
    }

    /// Returns its bytes, which keep the buffer until they are dropped. A few bytes are copied: a
    /// slow client would keep a whole buffer for them.
    pub(super) fn into_bytes(self) -> Bytes {
        if self.filled < PIECE_BYTES / 8 { Bytes::copy_from_slice(self.as_ref()) } else { Bytes::from_owner(self) }
    }
}

impl AsRef<[u8]> for PieceBuffer {
    fn as_ref(&self) -> &[u8] {
        self.bytes.get(..self.filled).unwrap_or_default()
    }
}

impl Drop for PieceBuffer {
    fn drop(&mut self) {
        let mut free = self.home.lock();
        if free.len() < KEPT_BUFFERS {
            free.push(std::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_used_again_and_shows_nothing_old() {
        let buffers = Arc::new(PieceBuffers::default());
        let mut first = PieceBuffers::take(&buffers);
        assert_eq!(first.push(&vec![7; PIECE_BYTES + 3]).len(), 3);
        assert!(first.is_full());
        let bytes = first.into_bytes();
        let clone = bytes.clone();
        drop(bytes);
        assert!(buffers.lock().is_empty(), "the clone still has it");
        assert!(clone.len() == PIECE_BYTES && clone.iter().all(|byte| *byte == 7));
        drop(clone);
        assert_eq!(buffers.lock().len(), 1);
        let mut second = PieceBuffers::take(&buffers);
        assert!(buffers.lock().is_empty());
        assert_eq!(second.push(b"ab"), b"");
        assert_eq!(second.into_bytes(), b"ab".as_slice());
        let many: Vec<_> = (0..KEPT_BUFFERS + 5).map(|_| PieceBuffers::take(&buffers)).collect();
        drop(many);
        assert_eq!(buffers.lock().len(), KEPT_BUFFERS);
    }
}
