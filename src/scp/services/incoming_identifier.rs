//! An Identifier, or another data set of a request, while it arrives.

use crate::encoding::syntax::Encoding;
use crate::qr::{FindError, IdentifierError, MAX_IDENTIFIER_LENGTH};
use crate::scp::negotiation::PresentationContext;
use crate::shares::{PeerMemory, Share};
use crate::ul::pdu_io::UNASKED_LENGTH;

/// An Identifier that is arriving.
pub(super) struct ArrivingIdentifier {
    /// Its encoding.
    pub(super) encoding: Encoding,
    memory: PeerMemory,
    bytes: Result<CountedBytes, FindError>,
}

/// The bytes, and the memory that is counted for them until they are dropped.
#[derive(Default)]
pub(super) struct CountedBytes {
    bytes: Vec<u8>,
    share: Option<Share>,
}

impl ArrivingIdentifier {
    /// Begins without any bytes. `None` if the SOP Class of the request is not that of the context,
    /// or if the transfer syntax of the context cannot be read.
    pub(super) fn begin(sop_class_uid: &str, context: &PresentationContext, memory: &PeerMemory) -> Option<Self> {
        if sop_class_uid != context.abstract_syntax {
            return None;
        }
        let encoding = Encoding::of_uid(&context.transfer_syntax)?;
        Some(Self { encoding, memory: memory.clone(), bytes: Ok(CountedBytes::default()) })
    }

    /// Takes the next fragment. Keeps nothing if the Identifier is too long, or if the peer has no
    /// memory left.
    pub(super) fn accept(&mut self, fragment: &[u8]) {
        if let Ok(kept) = &mut self.bytes
            && let Err(error) = kept.extend(fragment, &self.memory)
        {
            self.bytes = Err(error);
        }
    }

    /// Returns all of it.
    ///
    /// # Errors
    /// [`IdentifierError::TooLong`], or [`FindError::NoRoom`].
    pub(super) fn finish(self) -> Result<CountedBytes, FindError> {
        self.bytes
    }
}

impl CountedBytes {
    fn extend(&mut self, fragment: &[u8], memory: &PeerMemory) -> Result<(), FindError> {
        let length = self.bytes.len() + fragment.len();
        if length > MAX_IDENTIFIER_LENGTH {
            return Err(IdentifierError::TooLong.into());
        }
        if length > self.bytes.capacity() {
            let capacity = length.max(2 * self.bytes.capacity()).min(MAX_IDENTIFIER_LENGTH);
            let asked = capacity.saturating_sub(UNASKED_LENGTH);
            let granted = match &mut self.share {
                _ if asked == 0 => true,
                Some(share) => share.grow(asked.saturating_sub(share.count())),
                none => {
                    *none = memory.take(asked);
                    none.is_some()
                }
            };
            if !granted {
                return Err(FindError::NoRoom);
            }
            self.bytes.reserve_exact(capacity - self.bytes.len());
        }
        self.bytes.extend_from_slice(fragment);
        Ok(())
    }

    /// Returns the bytes.
    pub(super) fn as_slice(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::peer::CountedAs;
    use crate::shares::Shares;
    use crate::telemetry::metrics;

    #[test]
    fn unfinished_identifiers_have_one_budget_and_each_peer_a_share_of_it() {
        let all = Shares::new(8 << 20, 0, &metrics::MEMORY_REFUSED);
        let of = |number| PeerMemory::new(&all, &Arc::new(CountedAs::address([10, 0, 0, number].into())));
        // Each of a hundred associations sends as much as an Identifier may have.
        let fragment = vec![0; 64 << 10];
        let arriving = |memory: &PeerMemory| {
            let mut kept = CountedBytes::default();
            (0..24).try_for_each(|_| kept.extend(&fragment, memory)).map(|()| kept)
        };
        let greedy: Vec<_> = (0..100).map(|_| arriving(&of(1))).collect();
        let kept: usize = greedy.iter().flatten().map(|kept| kept.bytes.capacity()).sum();
        assert!(kept <= 4 << 20, "{kept}");
        assert!(greedy.iter().any(|it| matches!(it, Err(FindError::NoRoom))));
        // Another peer is heard, and an Identifier of usual length always is.
        assert!(arriving(&of(2)).is_ok());
        assert!(CountedBytes::default().extend(&fragment[..4096], &of(1)).is_ok());
        drop(greedy);
        assert!(arriving(&of(1)).is_ok());
        let mut long = arriving(&of(1)).unwrap();
        assert!(matches!(long.extend(&fragment, &of(1)), Err(FindError::Identifier(IdentifierError::TooLong))));
    }
}
