//! The seam between reading objects and a protocol: what surrounds a data set when it is sent.

use std::io;

use super::buffer::Buffer;
use super::error::DeliverError;
use super::object::DataSet;
use crate::encoding::syntax::NativeSyntax;
use crate::qr::{ObjectKind, RetrievedInstance};

/// The form in which an object is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ObjectForm {
    /// Number that the [`Framing`] chose for itself. It gets it back with each object.
    pub(crate) channel: u8,
    /// Form in which its bytes are sent.
    pub(crate) sent: SentForm,
}

/// Form in which the bytes of an object are sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum SentForm {
    /// They are sent unchanged.
    #[default]
    AsStored,
    /// An object without compression is rewritten to this transfer syntax.
    Rewritten(NativeSyntax),
    /// A compressed object is decompressed, and rewritten to this transfer syntax.
    Decompressed(NativeSyntax),
}

impl SentForm {
    /// Returns the transfer syntax of the bytes that are sent.
    pub(crate) fn transfer_syntax(self, stored: &str) -> &str {
        match self {
            Self::AsStored => stored,
            Self::Rewritten(to) | Self::Decompressed(to) => to.uid(),
        }
    }
}

/// Format in which a protocol writes objects: as C-STORE-RQs in PDUs, or as the parts of an HTTP
/// response.
///
/// [`ReadAhead`](super::read_ahead::ReadAhead) calls it on threads that may block, for one object
/// after the other. It calls `choose`, then `begin`, then `fill` until the data set has ended. If
/// an object fails in one location, it is begun again with the next one. `begin` is still called
/// once.
pub(crate) trait Framing: Send + Sync {
    /// Chooses the form for objects of a kind.
    ///
    /// # Errors
    /// [`DeliverError::NotAccepted`] if the peer accepts none.
    fn choose(&self, kind: &ObjectKind) -> Result<ObjectForm, DeliverError>;

    /// Appends what precedes the data set. `number` counts the objects from 1.
    fn begin(&self, form: ObjectForm, instance: &RetrievedInstance<'_>, number: usize, out: &mut Vec<u8>);

    /// Appends bytes of the data set until the buffer has about `piece_length`. Returns whether
    /// these were the last. By default they are sent unchanged.
    ///
    /// # Errors
    /// When the data set cannot be read.
    fn fill(
        &self,
        _form: ObjectForm,
        data_set: &mut DataSet,
        buffer: &mut Buffer,
        piece_length: usize,
    ) -> io::Result<bool> {
        buffer.fill(data_set, piece_length)
    }
}
