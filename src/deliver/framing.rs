//! What stands around a data set on its way out: the seam between reading objects and a protocol.

use std::io;

use super::buffer::Buffer;
use super::error::DeliverError;
use super::object::DataSet;
use crate::encoding::syntax::NativeSyntax;
use crate::qr::{ObjectKind, RetrievedInstance};

/// The form in which an object is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ObjectForm {
    /// The presentation context; 0 where the protocol has none.
    pub(crate) context_id: u8,
    /// What it is rewritten to; `None`: byte for byte as it lies.
    pub(crate) rewrite: Option<NativeSyntax>,
}

/// How a protocol writes objects: C-STORE-RQs in PDUs, or the parts of an HTTP response.
///
/// [`ReadAhead`](super::read_ahead::ReadAhead) calls it on threads that may block, for one object after
/// the other: `choose`, `begin`, then `fill` until it says that the data set has ended. An object that
/// fails in one location is begun again with the next one; `begin` is called once for it all the same.
pub(crate) trait Framing: Send + Sync {
    /// Chooses the form for objects of a kind.
    ///
    /// # Errors
    /// [`DeliverError::NotAccepted`] where the peer takes none.
    fn choose(&self, kind: &ObjectKind) -> Result<ObjectForm, DeliverError>;

    /// Appends what comes before the data set. `number` counts the objects from 1.
    fn begin(&self, form: ObjectForm, instance: &RetrievedInstance<'_>, number: usize, out: &mut Vec<u8>);

    /// Appends bytes of the data set until about `piece_length` are in the buffer; whether these were
    /// the last. By default they go out as they are.
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
