//! Checks of unique identifiers (PS3.5 chapter 9). A UID is a text here: archives hold UIDs that
//! break the rules, and these are found and sent all the same.
//!
//! Three checks, from the strictest to the most lenient:
//!
//! | check | takes | asked about |
//! |---|---|---|
//! | [`is_valid_uid`] | a UID by PS3.5 9.1 | UIDs that the node makes or answers for, and those in its log |
//! | [`is_uid_shaped`] | digits and full stops, up to 64 | proposals of peers, whose UIDs may have leading zeros |
//! | [`is_acceptable_uid`] | any text without `\`, `*` and `?`, up to 128 | UIDs of objects and of keys: archives hold such |

/// Maximum length of a UID in characters (PS3.5 9.1).
pub const MAX_UID_LENGTH: usize = 64;

/// Maximum length of a text that is accepted in place of a UID. Archives hold UIDs that break PS3.5
/// 9.1. Up to this length they are kept and reported.
pub const MAX_LENIENT_UID_LENGTH: usize = 128;

/// Whether `text` is a UID by PS3.5 9.1.
///
/// A UID has at most 64 characters. Its components are digits without leading zeros, separated by
/// single full stops.
#[must_use]
pub fn is_valid_uid(text: &str) -> bool {
    #[derive(PartialEq)]
    enum At {
        Beginning,
        LoneZero,
        Number,
    }
    // One pass without a search for full stops is faster, and every indexed file has three UIDs.
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

/// Makes a UID of a UUID: 2.25 and its number (PS3.5 B.2). `bytes` get the marks of this version of
/// RFC 9562.
#[must_use]
pub fn uid_of_uuid(mut bytes: [u8; 16], version: u8) -> String {
    bytes[6] = bytes[6] & 0x0F | version << 4;
    bytes[8] = bytes[8] & 0x3F | 0x80;
    format!("2.25.{}", u128::from_be_bytes(bytes))
}

/// Whether `text`, without padding, is accepted in place of a UID: see [`MAX_LENIENT_UID_LENGTH`].
///
/// A backslash separates values, and `*` and `?` are wild cards (PS3.4 C.2.2.2.4). No request could
/// name an object with one of these.
#[must_use]
pub fn is_acceptable_uid(text: &str) -> bool {
    let is_name = |byte: u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'\\' | b'*' | b'?');
    !text.is_empty()
        && text.len() <= MAX_LENIENT_UID_LENGTH
        && (text.bytes().all(is_name)
            || !text.chars().any(|char| char.is_control() || matches!(char, '\\' | '*' | '?')))
}

/// Whether a text consists of digits and full stops, as a UID does. Leading zeros and similar
/// faults (PS3.5 9.1) are allowed.
#[must_use]
pub fn is_uid_shaped(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_UID_LENGTH && text.bytes().all(|b| b.is_ascii_digit() || b == b'.')
}

/// Returns a UID for a log line at level debug. A UID that breaks PS3.5 9.1 is not shown, because
/// peers and files write any text there, even names.
#[must_use]
pub fn for_log(uid: &str) -> &str {
    if is_valid_uid(uid) { uid } else { "(not valid)" }
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
        assert!(is_acceptable_uid("1.2.03") && !is_valid_uid("1.2.03"));
        for bad in ["", "1.2\n3", "1.2.*", "1.?", "1.2\\1.3", "ä*", &"1".repeat(129)] {
            assert!(!is_acceptable_uid(bad), "{bad:?}");
        }
    }
}
