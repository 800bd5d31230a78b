//! Status codes of DIMSE responses (PS3.7 annex C; PS3.4 for those of a service class).

use std::fmt;

/// A status, (0000,0900). Unknown values are kept as they are.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Status(pub u16);

/// The class of a status (PS3.7 C.1 to C.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StatusClass {
    /// Success (PS3.7 C.1).
    Success,
    /// Warning: it is done or continues, with something to report (PS3.7 C.4).
    Warning,
    /// Failure (PS3.7 C.5).
    Failure,
    /// Cancel: the requestor ended it (PS3.7 C.3).
    Cancel,
    /// Pending: more responses follow (PS3.7 C.2).
    Pending,
}

impl Status {
    /// Success (PS3.7 C.1).
    pub const SUCCESS: Self = Self(0x0000);
    /// Cancel: matching terminated due to a C-CANCEL request (PS3.7 C.3, PS3.4 table C.4-1).
    pub const CANCEL: Self = Self(0xFE00);
    /// Pending: matches are continuing, and every optional key is supported (PS3.4 table C.4-1).
    pub const PENDING: Self = Self(0xFF00);
    /// Pending: matches are continuing, "one or more Optional Keys were not supported" (PS3.4 table
    /// C.4-1).
    pub const PENDING_WITHOUT_OPTIONAL_KEYS: Self = Self(0xFF01);

    /// Invalid attribute value (PS3.7 C.5).
    pub const INVALID_ATTRIBUTE_VALUE: Self = Self(0x0106);
    /// Processing failure (PS3.7 C.5).
    pub const PROCESSING_FAILURE: Self = Self(0x0110);
    /// Duplicate SOP Instance (PS3.7 C.5).
    pub const DUPLICATE_SOP_INSTANCE: Self = Self(0x0111);
    /// No such SOP Instance (PS3.7 C.5).
    pub const NO_SUCH_SOP_INSTANCE: Self = Self(0x0112);
    /// Invalid argument value (PS3.7 C.5).
    pub const INVALID_ARGUMENT_VALUE: Self = Self(0x0115);
    /// Invalid SOP Instance: the UID given "violated the UID construction rules" (PS3.7 C.5).
    pub const INVALID_SOP_INSTANCE: Self = Self(0x0117);
    /// No such SOP Class (PS3.7 C.5).
    pub const NO_SUCH_SOP_CLASS: Self = Self(0x0118);
    /// Class-instance conflict (PS3.7 C.5).
    pub const CLASS_INSTANCE_CONFLICT: Self = Self(0x0119);
    /// Missing attribute: "a required Attribute was not supplied" (PS3.7 C.5).
    pub const MISSING_ATTRIBUTE: Self = Self(0x0120);
    /// Missing attribute value: "a required Attribute Value was not supplied" (PS3.7 C.5).
    pub const MISSING_ATTRIBUTE_VALUE: Self = Self(0x0121);
    /// Refused: SOP Class not supported (PS3.7 C.5 and the status tables of 9.1.1 to 9.1.5).
    pub const SOP_CLASS_NOT_SUPPORTED: Self = Self(0x0122);
    /// No such action type (PS3.7 C.5).
    pub const NO_SUCH_ACTION_TYPE: Self = Self(0x0123);
    /// Refused: not authorized (PS3.7 C.5).
    pub const NOT_AUTHORIZED: Self = Self(0x0124);
    /// Unrecognized operation (PS3.7 C.5).
    pub const UNRECOGNIZED_OPERATION: Self = Self(0x0211);
    /// Mistyped argument: "one of the parameters supplied has not been agreed for use on the
    /// Association" (PS3.7 C.5).
    pub const MISTYPED_ARGUMENT: Self = Self(0x0212);
    /// Resource limitation (PS3.7 C.5).
    pub const RESOURCE_LIMITATION: Self = Self(0x0213);

    /// C-STORE and C-FIND refused: out of resources (PS3.4 tables B.2-1 and C.4-1). The peer may
    /// try again later.
    pub const OUT_OF_RESOURCES: Self = Self(0xA700);
    /// C-MOVE and C-GET refused: out of resources, unable to calculate number of matches (PS3.4
    /// tables C.4-2 and C.4-3).
    pub const UNABLE_TO_CALCULATE_MATCHES: Self = Self(0xA701);
    /// C-MOVE and C-GET refused: out of resources, unable to perform sub-operations (PS3.4 tables
    /// C.4-2 and C.4-3).
    pub const UNABLE_TO_PERFORM_SUB_OPERATIONS: Self = Self(0xA702);
    /// Repository Query: invalid Prior Record Key (PS3.4 C.6.4.4).
    pub const INVALID_PRIOR_RECORD_KEY: Self = Self(0xA710);
    /// C-MOVE refused: Move Destination unknown (PS3.4 table C.4-2).
    pub const MOVE_DESTINATION_UNKNOWN: Self = Self(0xA801);
    /// C-MOVE and C-GET: sub-operations complete, one or more failures or warnings (PS3.4 tables
    /// C.4-2 and C.4-3).
    pub const SUB_OPERATIONS_WITH_FAILURES: Self = Self(0xB000);
    /// Repository Query: matching reached the response limit (PS3.4 C.6.4.4). A warning.
    pub const RESPONSE_LIMIT_REACHED: Self = Self(0xB001);
    /// C-STORE: data set does not match SOP Class (PS3.4 table B.2-1).
    pub const DATA_SET_DOES_NOT_MATCH_SOP_CLASS: Self = Self(0xA900);
    /// C-FIND, C-MOVE and C-GET: Identifier does not match SOP Class (PS3.4 tables C.4-1 to C.4-3).
    /// The same number as [`Self::DATA_SET_DOES_NOT_MATCH_SOP_CLASS`].
    pub const IDENTIFIER_DOES_NOT_MATCH_SOP_CLASS: Self = Self(0xA900);
    /// C-STORE: cannot understand (PS3.4 table B.2-1: `Cxxx`).
    pub const CANNOT_UNDERSTAND: Self = Self(0xC000);
    /// C-FIND: unable to process (PS3.4 table C.4-1: `Cxxx`). The same number as
    /// [`Self::CANNOT_UNDERSTAND`].
    pub const UNABLE_TO_PROCESS: Self = Self(0xC000);
    /// C-FIND: unable to process, as the Identifier is not a valid data set (PS3.4 table C.4-1:
    /// `Cxxx`).
    pub const UNREADABLE_IDENTIFIER: Self = Self(0xC001);
    /// C-FIND: unable to process, as the index could not answer (PS3.4 table C.4-1: `Cxxx`).
    pub const INDEX_FAILED: Self = Self(0xC002);

    /// Returns the class of this status (PS3.7 annex C). Numbers that annex C does not define are
    /// failures.
    #[must_use]
    pub const fn class(self) -> StatusClass {
        match self.0 {
            0x0000 => StatusClass::Success,
            0x0001 | 0x0107 | 0x0116 | 0xB000..=0xBFFF => StatusClass::Warning,
            0xFE00 => StatusClass::Cancel,
            0xFF00 | 0xFF01 => StatusClass::Pending,
            _ => StatusClass::Failure,
        }
    }
}

/// The format of the Standard: `A700`.
impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04X}", self.0)
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Status({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_follow_annex_c() {
        assert_eq!(Status::SUCCESS.class(), StatusClass::Success);
        assert_eq!(Status(0xB006).class(), StatusClass::Warning);
        assert_eq!(Status(0x0107).class(), StatusClass::Warning);
        assert_eq!(Status::OUT_OF_RESOURCES.class(), StatusClass::Failure);
        assert_eq!(Status(0xC123).class(), StatusClass::Failure);
        assert_eq!(Status(0x0122).class(), StatusClass::Failure);
        assert_eq!(Status::CANCEL.class(), StatusClass::Cancel);
        assert_eq!(Status::PENDING_WITHOUT_OPTIONAL_KEYS.class(), StatusClass::Pending);
    }

    #[test]
    fn a_status_is_shown_as_four_hexadecimal_digits() {
        assert_eq!(Status::DATA_SET_DOES_NOT_MATCH_SOP_CLASS.to_string(), "A900");
        assert_eq!(format!("{:?}", Status(1)), "Status(0001)");
    }
}
