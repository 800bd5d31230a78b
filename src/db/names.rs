//! The words of patients' names: which there are, and whose they are.
//!
//! An index on names finds those that begin with something. `*MITH*`, and fuzzy matching, ask for what stands anywhere in
//! a name: that is looked for among the distinct words, of which there are few (some ten thousand in a million names), and
//! they lead to the patients. The writer keeps this up with the names, in the same transaction.

use std::collections::BTreeSet;

use rusqlite::{Connection, OptionalExtension, params};

use crate::model::person_name;
use crate::model::sound::Sound;

/// The most words of one patient that are kept. A name that has more, as no person's has, is kept under
/// [`ANY_WORD`] alone.
const MAX_WORDS: usize = 64;

/// The longest word that is kept, in bytes; with a longer one, a name is kept under [`ANY_WORD`] alone.
const MAX_WORD_LENGTH: usize = 256;

/// Stands for every word. Whoever looks for a word looks for this one too.
pub(super) const ANY_WORD: &str = "";

/// The words to keep of a name, given as its component groups in normal form.
pub(super) fn words<'n>(forms: &[&'n str]) -> BTreeSet<&'n str> {
    let mut words = BTreeSet::new();
    // More names than one, against the data dictionary: each has its own groups (PS3.4 C.2.2.3).
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

/// A patient has this name now.
pub(super) fn add(connection: &Connection, patient: i64, forms: &[&str]) -> rusqlite::Result<()> {
    for word in words(forms) {
        let known = word_row(connection, word)?;
        let row = match known {
            Some(row) => row,
            None => {
                let sound = Sound::of_word(word);
                let mut codes = sound.iter().flat_map(Sound::codes);
                let (one, other) = (codes.next().unwrap_or(""), codes.next().unwrap_or(""));
                connection
                    .prepare_cached("INSERT INTO name_word (word, sound, other_sound) VALUES (?1, ?2, ?3)")?
                    .execute([word, one, other])?;
                connection.last_insert_rowid()
            }
        };
        connection
            .prepare_cached("INSERT OR IGNORE INTO patient_name_word (word, patient) VALUES (?1, ?2)")?
            .execute([row, patient])?;
    }
    Ok(())
}

/// A patient no longer has this name.
pub(super) fn remove(connection: &Connection, patient: i64, forms: &[&str]) -> rusqlite::Result<()> {
    for word in words(forms) {
        let Some(row) = word_row(connection, word)? else { continue };
        connection
            .prepare_cached("DELETE FROM patient_name_word WHERE word = ?1 AND patient = ?2")?
            .execute([row, patient])?;
        connection
            .prepare_cached(
                "DELETE FROM name_word WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM patient_name_word WHERE word = ?1)",
            )?
            .execute(params![row])?;
    }
    Ok(())
}

fn word_row(connection: &Connection, word: &str) -> rusqlite::Result<Option<i64>> {
    connection
        .prepare_cached("SELECT id FROM name_word WHERE word = ?1")?
        .query_row([word], |row| row.get(0))
        .optional()
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
        // A thousand times the same is one.
        assert_eq!(words(&["a ".repeat(1_000).trim()]), BTreeSet::from(["a"]));
    }
}
