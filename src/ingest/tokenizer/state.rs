//! The states of the reader.

use crate::encoding::syntax::Encoding;

/// Encoding of a data set: explicit or implicit VR, big or little endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Syntax {
    pub(super) explicit: bool,
    pub(super) big_endian: bool,
}

impl Syntax {
    /// The same as a transfer syntax. Implicit VR is always little endian (PS3.5 A.1).
    pub(super) const fn encoding(self) -> Encoding {
        match (self.explicit, self.big_endian) {
            (false, _) => Encoding::ImplicitLittle,
            (true, false) => Encoding::ExplicitLittle,
            (true, true) => Encoding::ExplicitBig,
        }
    }
}

pub(super) const IMPLICIT_LE: Syntax = Syntax { explicit: false, big_endian: false };

pub(super) const EXPLICIT_LE: Syntax = Syntax { explicit: true, big_endian: false };

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Nothing is known yet.
    Start,
    /// In group 0002.
    Meta,
    /// Before the first element of the data set.
    DataSetStart,
    /// In the data set. `frames` holds the position.
    DataSet,
    /// The data set is deflated. The next bytes must go through an inflater, see
    /// `Core::begin_inflated`.
    Deflated,
    Done,
}

/// Bytes after the value of an element that was looked past.
#[derive(Debug, Clone, Copy)]
pub(super) enum FollowingBytes<'r> {
    Bytes(&'r [u8; 8]),
    /// The deciding bytes are not there yet.
    Wait,
    /// The value is longer than the look-ahead limit, or extends past the end of the object.
    TooFar,
    /// The object ends there.
    End,
}

/// Action for an element that does not simply follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unusual {
    Read,
    PassDelimiter,
    Stop,
}

/// Bytes that are read behind the last wanted element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BehindWanted {
    /// Nothing.
    Nothing,
    /// The bytes that came together with the last wanted element. They cost no further read.
    AtHand,
    /// Everything.
    Everything,
}
