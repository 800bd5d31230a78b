//! The words of patients' names: which there are, and whose they are.
//!
//! An index on names finds those that begin with something. `*MITH*`, and fuzzy matching, ask for what stands anywhere in
//! a name: that is looked for among the distinct words, of which there are few (some ten thousand in a million names), and
//! they lead to the patients. The writer keeps this up with the names, in the same transaction.

use rusqlite::{Connection, OptionalExtension, params};

use crate::db::name_words::words;
use crate::model::sound::Sound;

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
