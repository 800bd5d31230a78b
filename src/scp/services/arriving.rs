//! An Identifier, or another data set that asks for something, on its way in.

use crate::qr::{Encoding, IdentifierError, MAX_IDENTIFIER_LENGTH};
use crate::scp::negotiation::PresentationContext;

/// An Identifier that is arriving.
pub(super) struct ArrivingIdentifier {
    /// What it is encoded in.
    pub(super) encoding: Encoding,
    bytes: Result<Vec<u8>, IdentifierError>,
}

impl ArrivingIdentifier {
    /// Nothing of it is there yet; `None` when the SOP Class of its request is not that of the context, or nothing can be
    /// read in the transfer syntax of that.
    pub(super) fn begin(sop_class_uid: &str, context: &PresentationContext) -> Option<Self> {
        if sop_class_uid != context.abstract_syntax {
            return None;
        }
        Some(Self { encoding: Encoding::of_uid(&context.transfer_syntax)?, bytes: Ok(Vec::new()) })
    }

    /// Takes the next fragment. What is longer than an Identifier may be is not kept.
    pub(super) fn accept(&mut self, fragment: &[u8]) {
        if let Ok(bytes) = &mut self.bytes {
            if bytes.len() + fragment.len() > MAX_IDENTIFIER_LENGTH {
                self.bytes = Err(IdentifierError::TooLong);
            } else {
                bytes.extend_from_slice(fragment);
            }
        }
    }

    /// All of it.
    ///
    /// # Errors
    /// [`IdentifierError::TooLong`].
    pub(super) fn finish(self) -> Result<Vec<u8>, IdentifierError> {
        self.bytes
    }
}
