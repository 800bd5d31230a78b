//! Unique identifiers (PS3.5 chapter 9), one type for each thing that they identify.

use std::fmt;

/// The longest UID that the standard allows, in characters (PS3.5 9.1).
pub const MAX_UID_LENGTH: usize = 64;

/// The longest text that is accepted in place of a UID at all. Archives hold UIDs that break PS3.5 9.1; they are kept and
/// reported, within this bound.
pub const MAX_LENIENT_UID_LENGTH: usize = 128;

/// Whether `text` is a UID as PS3.5 9.1 has it: at most 64 characters, components of digits without leading zeros, joined
/// by single full stops.
#[must_use]
pub fn is_valid_uid(text: &str) -> bool {
    #[derive(PartialEq)]
    enum At {
        Beginning,
        LoneZero,
        Number,
    }
    // One pass, and no search for full stops: every indexed file has three.
    let mut at = At::Beginning;
    for byte in text.bytes() {
        at = match (at, byte) {
            (At::Beginning, b'0') => At::LoneZero,
            (At::Beginning, b'1'..=b'9') | (At::Number, b'0'..=b'9') => At::Number,
            (At::LoneZero | At::Number, b'.') => At::Beginning,
            _ => return false,
        };
    }
    text.len() <= MAX_UID_LENGTH && at != At::Beginning
}

/// Whether `text`, without padding, can stand for a UID at all: see [`MAX_LENIENT_UID_LENGTH`].
#[must_use]
pub fn is_acceptable_uid(text: &str) -> bool {
    let is_printable_ascii = || text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    !text.is_empty()
        && text.len() <= MAX_LENIENT_UID_LENGTH
        && (is_printable_ascii() || !text.chars().any(char::is_control))
}

/// A UID for a log line of level debug. What breaks PS3.5 9.1 is not repeated: peers and files put all kinds of text, names
/// included, where a UID should be.
#[must_use]
pub fn for_log(uid: &str) -> &str {
    if is_valid_uid(uid) { uid } else { "(not valid)" }
}

macro_rules! uid_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// Takes what a file or peer said, trimmed of padding; `None` when it is empty, longer than
            /// [`MAX_LENIENT_UID_LENGTH`] or has control characters. What is accepted may still break PS3.5 9.1: see
            /// [`Self::is_valid`].
            #[must_use]
            pub fn lenient(text: &str) -> Option<Self> {
                let text = text.trim_matches([' ', '\0']);
                is_acceptable_uid(text).then(|| Self(text.to_owned()))
            }

            /// Whether it follows PS3.5 9.1.
            #[must_use]
            pub fn is_valid(&self) -> bool {
                is_valid_uid(&self.0)
            }

            /// The UID as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

uid_type! {
    /// Study Instance UID (0020,000D).
    StudyInstanceUid
}
uid_type! {
    /// Series Instance UID (0020,000E).
    SeriesInstanceUid
}
uid_type! {
    /// SOP Instance UID (0008,0018).
    SopInstanceUid
}
uid_type! {
    /// SOP Class UID (0008,0016).
    SopClassUid
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn validity_follows_ps3_5_9_1() {
        assert!(is_valid_uid("1.2.840.10008.1.1"));
        assert!(is_valid_uid("2.25.0"));
        for bad in ["", "1..2", ".1", "1.", "1.02", "1.a", "1 2", "../../x"] {
            assert!(!is_valid_uid(bad), "{bad}");
        }
        assert!(!is_valid_uid(&"1".repeat(65)));
    }

    #[test]
    fn lenient_keeps_what_archives_hold_and_refuses_the_rest() {
        assert_eq!(SopInstanceUid::lenient("1.2.03\0").map(|uid| uid.to_string()), Some("1.2.03".into()));
        assert!(!SopInstanceUid::lenient("1.2.03").unwrap().is_valid());
        assert_eq!(SopInstanceUid::lenient(" \0"), None);
        assert_eq!(SopInstanceUid::lenient("1.2\n3"), None);
        assert_eq!(SopInstanceUid::lenient(&"1".repeat(129)), None);
    }
}
