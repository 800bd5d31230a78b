//! The words of patients' names, and the patients of each word.
//!
//! An index on names finds names that begin with a text. `*MITH*` and fuzzy matching ask for a text
//! anywhere in a name. They are looked up among the distinct words, which lead to the patients.
//! There are few words: some ten thousand in a million names. The writer updates them with the
//! names, in the same transaction.

use rusqlite::{Connection, OptionalExtension, params};

use crate::db::name_words::words;
use crate::model::metaphone::Sound;

/// Adds the words of a patient's name.
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

/// Removes the words of a patient's name.
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
