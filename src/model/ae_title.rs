//! Application Entity titles (PS3.5 6.2, VR AE; PS3.8 9.3.2).

use std::fmt;
use std::str::FromStr;

/// An Application Entity title (PS3.5 table 6.2-1).
///
/// It has 1 to 16 characters of the default repertoire, without backslash or control characters.
/// Leading and trailing spaces are not significant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AeTitle(String);

/// Reason why a text is not a valid AE title.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AeTitleError {
    /// The text is empty or holds only spaces.
    #[error("an AE title needs at least one character that is not a space")]
    Empty,
    /// The text has more than 16 characters.
    #[error("an AE title has at most 16 characters")]
    TooLong,
    /// The text has a backslash, a control character, or a character outside the default
    /// repertoire.
    #[error("an AE title holds printable ASCII characters only, and no backslash")]
    BadCharacter,
}

impl AeTitle {
    /// The title without padding.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for AeTitle {
    type Err = AeTitleError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim_matches(' ');
        if text.is_empty() {
            return Err(AeTitleError::Empty);
        }
        if text.chars().count() > 16 {
            return Err(AeTitleError::TooLong);
        }
        if text.chars().any(|c| c == '\\' || !(c == ' ' || c.is_ascii_graphic())) {
            return Err(AeTitleError::BadCharacter);
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for AeTitle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_is_not_part_of_the_title() {
        assert_eq!(" DCMDEX  ".parse::<AeTitle>().unwrap().as_str(), "DCMDEX");
    }

    #[test]
    fn what_is_no_title_is_refused() {
        assert_eq!("   ".parse::<AeTitle>(), Err(AeTitleError::Empty));
        assert_eq!("ABCDEFGHIJKLMNOPQ".parse::<AeTitle>(), Err(AeTitleError::TooLong));
        assert_eq!("A\\B".parse::<AeTitle>(), Err(AeTitleError::BadCharacter));
        assert_eq!("A\nB".parse::<AeTitle>(), Err(AeTitleError::BadCharacter));
    }
}
