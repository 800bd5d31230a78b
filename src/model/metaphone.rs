//! The sound of a word, for fuzzy semantic matching of person names (PS3.4 C.2.2.2.1.1).

use rphonetic::DoubleMetaphone;

/// Maximum length of a code, in sounds. Names rarely have more, and eight sounds still tell long
/// names apart.
const MAX_CODE_LENGTH: usize = 8;

/// Maximum length of a word that gets a code, in letters.
const MAX_HEARD_LENGTH: usize = 64;

/// Minimum length of a word that gets a code, in letters. One or two letters are initials or the
/// beginning of a word, and sound like half of all names.
const MIN_HEARD_LENGTH: usize = 3;

/// The sound codes of a word.
///
/// There are two, because a name may be pronounced in two ways: `Schmidt` by a German and by an
/// American. Two words sound alike if they share a code.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sound {
    primary: String,
    alternate: String,
}

impl Sound {
    /// Computes the codes of a word in normal form (see [`super::person_name`]) by Double Metaphone
    /// (Philips 2000).
    ///
    /// The algorithm is made for European names in Latin letters. Words in other letters give
    /// `None`, and so do words that are too short or too long.
    #[must_use]
    pub fn of_word(word: &str) -> Option<Self> {
        let letters: String = word.chars().filter(|c| *c != '\'').collect();
        if !(MIN_HEARD_LENGTH..=MAX_HEARD_LENGTH).contains(&letters.len())
            || !letters.bytes().all(|byte| byte.is_ascii_lowercase())
        {
            return None;
        }
        let code = DoubleMetaphone::new(Some(MAX_CODE_LENGTH)).double_metaphone(&letters);
        let (primary, alternate) = (code.primary(), code.alternate());
        // All vowels share one code. Some words have no code at all.
        (!primary.is_empty()).then_some(Self { primary, alternate })
    }

    /// Whether two words sound alike.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        self.codes().any(|code| other.codes().any(|also| code == also))
    }

    /// Returns the codes, without duplicates.
    pub fn codes(&self) -> impl Iterator<Item = &str> {
        let alternate = Some(self.alternate.as_str()).filter(|code| !code.is_empty() && *code != self.primary);
        std::iter::once(self.primary.as_str()).chain(alternate)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn are_alike(one: &str, other: &str) -> bool {
        Sound::of_word(one).unwrap().is_like(&Sound::of_word(other).unwrap())
    }

    #[test]
    fn spellings_of_one_name_sound_alike() {
        for (one, other) in [
            ("meier", "meyer"),
            ("maier", "mayer"),
            ("meier", "mayr"),
            ("smith", "smyth"),
            ("smith", "schmidt"),
            ("schmidt", "schmitt"),
            ("muller", "mueller"),
            ("stephen", "steven"),
            ("catherine", "kathryn"),
            ("philip", "filip"),
            ("o'brien", "obrian"),
            ("johnson", "jonson"),
        ] {
            assert!(are_alike(one, other), "{one} {other}");
        }
    }

    #[test]
    fn other_names_do_not() {
        for (one, other) in
            [("smith", "jones"), ("meier", "muller"), ("smith", "smithson"), ("garcia", "rossi"), ("anna", "hanna")]
        {
            assert!(!are_alike(one, other), "{one} {other}");
        }
    }

    #[test]
    fn what_double_metaphone_was_not_made_for_has_no_sound() {
        for word in ["", "li", "山田", "иванов", "müller", "3rd", "a'b", &"a".repeat(65)] {
            assert_eq!(Sound::of_word(word), None, "{word}");
        }
    }

    proptest! {
        #[test]
        fn every_word_has_a_sound_or_none(word in "[a-z']{0,70}") {
            if let Some(sound) = Sound::of_word(&word) {
                prop_assert!(sound.codes().all(|code| !code.is_empty() && code.len() <= MAX_CODE_LENGTH));
            }
        }
    }
}
