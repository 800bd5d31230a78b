//! The words of a patient's name by which an index finds it.

use std::collections::BTreeSet;

use crate::model::person_name;

/// Most words that are kept of one patient. No person's name has more. Such a name is kept under
/// [`ANY_WORD`] alone.
const MAX_WORDS: usize = 64;

/// Longest word that is kept, in bytes. A name with a longer one is kept under [`ANY_WORD`] alone.
const MAX_WORD_LENGTH: usize = 256;

/// Stands for every word. A search for a word also searches for this one.
pub(super) const ANY_WORD: &str = "";

/// The words to keep of a name, which is given as its component groups in normal form.
pub(super) fn words<'n>(forms: &[&'n str]) -> BTreeSet<&'n str> {
    let mut words = BTreeSet::new();
    // Several names break the data dictionary. Each has groups of its own (PS3.4 C.2.2.3).
    if forms.iter().any(|form| form.contains('\\')) {
        return BTreeSet::from([ANY_WORD]);
    }
    for word in forms.iter().flat_map(|form| person_name::words(form)) {
        words.insert(word);
        if word.len() > MAX_WORD_LENGTH || words.len() > MAX_WORDS {
            return BTreeSet::from([ANY_WORD]);
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_all_groups_each_once() {
        let found = words(&["smith^john-paul", "山田^太郎", "smith"]);
        assert_eq!(found, BTreeSet::from(["smith", "john", "paul", "山田", "太郎"]));
        assert!(words(&["", "", ""]).is_empty());
        assert_eq!(words(&["jones^a\\smith^b"]), BTreeSet::from([ANY_WORD]));
    }

    #[test]
    fn a_name_with_too_many_words_or_too_long_ones_may_have_any() {
        let many: Vec<String> = (0..100).map(|n| n.to_string()).collect();
        assert_eq!(words(&[&many.join("^")]), BTreeSet::from([ANY_WORD]));
        assert_eq!(words(&["a", &"b".repeat(1_000)]), BTreeSet::from([ANY_WORD]));
        // A word that occurs a thousand times is one word.
        assert_eq!(words(&["a ".repeat(1_000).trim()]), BTreeSet::from(["a"]));
    }
}
