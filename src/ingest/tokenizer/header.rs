//! Element headers, and the states of a reader.

/// Encoding of a data set: explicit VR or not, big endian or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Syntax {
    pub(super) explicit: bool,
    pub(super) big: bool,
}

pub(super) const IMPLICIT_LE: Syntax = Syntax { explicit: false, big: false };

pub(super) const EXPLICIT_LE: Syntax = Syntax { explicit: true, big: false };

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Before the first byte that tells what this is.
    Start,
    /// In group 0002.
    Meta,
    /// Before the first element of the data set.
    DataSetStart,
    /// In the data set; `frames` tell where.
    DataSet,
    /// The data set is deflated: the next bytes must go through an inflater, see [`Core::begin_inflated`].
    Deflated,
    Done,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Header {
    pub(super) tag: u32,
    pub(super) vr: [u8; 2],
    pub(super) length: u32,
    /// Its own bytes: 8 or 12.
    pub(super) size: usize,
    /// False for an element that stands in implicit form in an explicit data set.
    pub(super) explicit: bool,
}

/// What follows an element that is looked past.
#[derive(Debug, Clone, Copy)]
pub(super) enum Look<'r> {
    Bytes(&'r [u8; 8]),
    /// The bytes that tell have not come yet.
    Wait,
    /// More than is looked past, or past the end of the object.
    TooFar,
    /// The object ends there.
    End,
}
