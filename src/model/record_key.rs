//! Keys of records (PS3.4 C.6.4.1.1): where a query goes on after an earlier one.

use std::fmt;

use data_encoding::HEXLOWER;

use super::level::QueryRetrieveLevel;
use crate::encoding::padding::without_trailing_padding;

/// Order of answers by the keys of their records. Each answer then carries its key.
///
/// Each entity has one answer, under the first patient of its study.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordOrder {
    /// The record after which the answers begin.
    pub after: Option<RecordKey>,
}

/// Key of the record of a study, a series or an instance. An engine gives it a meaning, and keeps
/// it as long as the record is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordKey {
    /// Level of the entity.
    pub level: QueryRetrieveLevel,
    /// Number of a row, from 1.
    pub row: i64,
    /// Part that tells instances of one row apart.
    pub suffix: Option<RecordSuffix>,
}

/// The second part of the key of an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordSuffix {
    /// Bytes.
    Bytes(Vec<u8>),
    /// Text. All texts come before all bytes.
    Text(String),
}

impl RecordKey {
    /// Reads the text of a key of this level. `None` if it is none.
    #[must_use]
    pub fn parse(level: QueryRetrieveLevel, text: &str) -> Option<Self> {
        let rest = without_trailing_padding(text).strip_prefix(letter(level)?)?;
        let (row, suffix) = match rest.split_once('.') {
            None => (rest, None),
            Some((row, suffix)) => {
                let decoded = |hex: &str| HEXLOWER.decode(hex.as_bytes()).ok();
                let suffix = match (suffix.strip_prefix('b'), suffix.strip_prefix('t')) {
                    (Some(hex), _) => RecordSuffix::Bytes(decoded(hex)?),
                    (_, Some(hex)) => RecordSuffix::Text(String::from_utf8(decoded(hex)?).ok()?),
                    (None, None) => return None,
                };
                (row, Some(suffix))
            }
        };
        let is_whole = suffix.is_some() == (level == QueryRetrieveLevel::Image);
        let is_number = row.starts_with(|first| matches!(first, '1'..='9'));
        Some(Self { level, row: row.parse().ok()?, suffix }).filter(|_| is_whole && is_number)
    }
}

impl fmt::Display for RecordKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", letter(self.level).unwrap_or('?'), self.row)?;
        match &self.suffix {
            None => Ok(()),
            Some(RecordSuffix::Bytes(bytes)) => write!(f, ".b{}", HEXLOWER.encode(bytes)),
            Some(RecordSuffix::Text(text)) => write!(f, ".t{}", HEXLOWER.encode(text.as_bytes())),
        }
    }
}

/// The letter of a level. Patients have no records of their own.
const fn letter(level: QueryRetrieveLevel) -> Option<char> {
    match level {
        QueryRetrieveLevel::Patient => None,
        QueryRetrieveLevel::Study => Some('S'),
        QueryRetrieveLevel::Series => Some('E'),
        QueryRetrieveLevel::Image => Some('I'),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use QueryRetrieveLevel::{Image, Series, Study};

    #[test]
    fn a_key_is_read_as_it_was_written_and_only_at_its_level() {
        for (level, suffix) in [
            (Study, None),
            (Series, None),
            (Image, Some(RecordSuffix::Bytes(vec![0x12, 0xAB]))),
            (Image, Some(RecordSuffix::Text("ü".into()))),
        ] {
            let key = RecordKey { level, row: 4711, suffix };
            assert_eq!(RecordKey::parse(level, &key.to_string()), Some(key.clone()));
            for other in [Study, Series, Image].into_iter().filter(|other| *other != level) {
                assert_eq!(RecordKey::parse(other, &key.to_string()), None);
            }
        }
        for text in ["", "S", "I1", "I1.", "I1.x", "I1.b1", "S1.b12", "S1 x", "1", "S0", "S-5", "S+5", "S05", "I0.b12"]
        {
            assert_eq!(RecordKey::parse(Study, text).or_else(|| RecordKey::parse(Image, text)), None, "{text}");
        }
    }
}
