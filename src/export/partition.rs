//! One table in several files: `OUT/study_year=2024/part-0.parquet`, as DuckDB, pandas, polars and
//! Spark read it.

use std::fs;
use std::path::{Path, PathBuf};

use super::Error;
use super::destination::TableDestination;
use super::table::TableWriter;
use super::value::TableValue;
use crate::files::{make_directory, make_one_directory, parent_of, sync_directory, with_suffix};

/// Tables that are open at one time. Each may hold a row group in memory. The one that got no row
/// for the longest time is closed, and its partition goes on in a further file.
const OPEN_TABLES: usize = 3;

/// Value of a partition without one, as Hive writes it.
const NO_VALUE: &str = "__HIVE_DEFAULT_PARTITION__";

/// Bytes of an encoded value, so that the name of its directory stays below 255.
const LONGEST_VALUE: usize = 160;

/// Makes the table of one file.
pub type MakeTable<'o> = dyn Fn(TableDestination<'static>) -> Result<Box<dyn TableWriter + 'o>, Error> + 'o;

/// Writes a table into one directory for each value of a column. The directory gets its name when
/// all of it is written.
pub struct PartitionedTable<'o> {
    /// The final directory.
    directory: PathBuf,
    temporary: PathBuf,
    column: String,
    extension: &'static str,
    make: Box<MakeTable<'o>>,
    /// Value and table, the one used last at the end.
    open: Vec<(String, Box<dyn TableWriter + 'o>)>,
    /// Files that each partition has so far.
    parts: std::collections::BTreeMap<String, u32>,
    is_finished: bool,
}

impl<'o> PartitionedTable<'o> {
    /// Begins a table in a directory that is not there yet, or is empty. `column` is the name in
    /// front of each value.
    ///
    /// # Errors
    /// [`Error::NotEmpty`] and [`Error::Write`].
    pub fn new(
        directory: &Path,
        column: &str,
        extension: &'static str,
        make: Box<MakeTable<'o>>,
    ) -> Result<Self, Error> {
        let failed = |source| Error::Write { path: directory.to_owned(), source };
        let is_empty = match fs::read_dir(directory) {
            Ok(mut entries) => entries.next().is_none(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => true,
            Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => false,
            Err(error) => return Err(failed(error)),
        };
        if !is_empty {
            return Err(Error::NotEmpty { path: directory.to_owned() });
        }
        let temporary = with_suffix(directory, ".partial");
        // A killed export left it.
        match fs::remove_dir_all(&temporary) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
            Ok(()) | Err(_) => {}
        }
        make_one_directory(&temporary).map_err(failed)?;
        Ok(Self {
            directory: directory.to_owned(),
            temporary,
            column: column.to_owned(),
            extension,
            make,
            open: Vec::new(),
            parts: Default::default(),
            is_finished: false,
        })
    }

    /// Writes a row into the partition of this value.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn row(&mut self, partition: &str, values: &[TableValue<'_>]) -> Result<(), Error> {
        let partition = encoded(partition);
        match self.open.iter().position(|(value, _)| *value == partition) {
            Some(at) if at + 1 == self.open.len() => {}
            Some(at) => {
                let used = self.open.remove(at);
                self.open.push(used);
            }
            None => {
                if self.open.len() == OPEN_TABLES {
                    self.open.remove(0).1.finish()?;
                }
                let table = self.begin(&partition)?;
                self.open.push((partition, table));
            }
        }
        match self.open.last_mut() {
            Some((_, table)) => table.row(values),
            None => Ok(()),
        }
    }

    fn begin(&mut self, partition: &str) -> Result<Box<dyn TableWriter + 'o>, Error> {
        let directory = self.temporary.join(format!("{}={partition}", self.column));
        make_directory(&directory).map_err(|source| Error::Write { path: directory.clone(), source })?;
        let part = self.parts.entry(partition.to_owned()).or_default();
        let file = directory.join(format!("part-{part}.{}", self.extension));
        *part += 1;
        (self.make)(TableDestination::file(&file)?)
    }

    /// Ends all files, and gives the directory its name. Returns the number of files.
    ///
    /// # Errors
    /// If a file cannot be written, or the directory cannot be renamed.
    pub fn finish(mut self) -> Result<u64, Error> {
        for (_, table) in self.open.drain(..) {
            table.finish()?;
        }
        fs::rename(&self.temporary, &self.directory)
            .and_then(|()| {
                self.is_finished = true;
                sync_directory(parent_of(&self.directory))
            })
            .map_err(|source| Error::Write { path: self.directory.clone(), source })?;
        Ok(self.parts.values().copied().map(u64::from).sum())
    }
}

impl Drop for PartitionedTable<'_> {
    fn drop(&mut self) {
        if !self.is_finished {
            self.open.clear();
            // The error that ended the table is the one to tell.
            let _ = fs::remove_dir_all(&self.temporary);
        }
    }
}

/// A value as part of a file name, as Hive encodes it. It never has a separator or a dot at its
/// beginning. A very long value is cut.
fn encoded(value: &str) -> String {
    if value.is_empty() {
        return NO_VALUE.to_owned();
    }
    let mut name = String::new();
    for byte in value.bytes() {
        if name.len() > LONGEST_VALUE {
            break;
        }
        match byte {
            b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'-' | b'_' => name.push(char::from(byte)),
            b'.' if !name.is_empty() => name.push('.'),
            other => name.push_str(&format!("%{other:02X}")),
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_one_harmless_part_of_a_path() {
        assert_eq!(encoded("2024-01"), "2024-01");
        assert_eq!(encoded("../x"), "%2E.%2Fx");
        assert_eq!(encoded("a=b c"), "a%3Db%20c");
        assert_eq!(encoded(""), NO_VALUE);
        assert!(encoded(&"é".repeat(300)).len() < 200);
    }
}
