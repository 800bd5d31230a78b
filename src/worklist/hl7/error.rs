//! Limits of a message, and why bytes are none.

/// Maximum length of a message in bytes. Real orders have some kilobytes.
pub const MAX_MESSAGE_LENGTH: usize = 1 << 20;

/// Maximum number of segments of a message. Real orders have some tens.
pub(super) const MAX_SEGMENTS: usize = 10_000;

/// Reason why bytes are no message. The text has no value of the message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// They do not begin with a message header.
    #[error("it does not begin with MSH, so it is no HL7 version 2 message")]
    NoHeader,
    /// The header does not say how the message is divided.
    #[error("MSH-1 and MSH-2 do not name different delimiters")]
    Delimiters,
    /// There are too many bytes.
    #[error("it is longer than {MAX_MESSAGE_LENGTH} bytes")]
    TooLong,
    /// There are too many segments.
    #[error("it has more than {MAX_SEGMENTS} segments")]
    TooManySegments,
    /// MSH-18 names an unknown character set.
    #[error("MSH-18 names a character set that is not supported")]
    CharacterSet,
}
