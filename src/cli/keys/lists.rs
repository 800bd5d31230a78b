//! Lists of values in files: `AccessionNumber=@list.csv`, and which of them nothing matched.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use dicom_core::VR;

use super::columns::{CellValue, Column, FoundRow};
use crate::export::destination::TableDestination;
use crate::model::attribute::{LetterCase, Multiplicity};
use crate::model::matching::{Comparison, MatchPolicy, Matching};

/// Maximum size of a list file.
const MAX_LIST_BYTES: u64 = 64 * 1024 * 1024;

/// A list of values for one key.
#[derive(Clone, Debug)]
pub(in crate::cli) struct KeyList {
    /// The file.
    pub(in crate::cli) path: PathBuf,
    /// The name of its key.
    pub(in crate::cli) name: String,
    pub(in crate::cli) vr: VR,
    pub(in crate::cli) letter_case: LetterCase,
    /// Values as they stand in the file, each once.
    pub(in crate::cli) values: Vec<String>,
}

/// Reads the values of a list file: `FILE`, or `FILE:COLUMN` for a column of a CSV file with a
/// header line. Without a column it is the one that `names` name, or the first one.
///
/// # Errors
/// If the file cannot be read, has no such column, or has no value.
pub(in crate::cli) fn read(file: &str, names: &[&str]) -> anyhow::Result<Vec<String>> {
    let (path, column) = path_and_column(file);
    let shown = path.display();
    let mut bytes = Vec::new();
    let opened = File::open(path).with_context(|| format!("cannot read the list {shown}"))?;
    let read = opened.take(MAX_LIST_BYTES + 1).read_to_end(&mut bytes);
    read.with_context(|| format!("cannot read the list {shown}"))?;
    if bytes.len() as u64 > MAX_LIST_BYTES {
        bail!("the list {shown} is larger than {} MB", MAX_LIST_BYTES >> 20);
    }
    let Ok(text) = String::from_utf8(bytes) else { bail!("the list {shown} is not UTF-8") };
    let values =
        values_of(text.trim_start_matches('\u{feff}'), column, names).with_context(|| format!("the list {shown}"))?;
    if values.is_empty() {
        bail!("the list {shown} has no values");
    }
    Ok(values)
}

/// The path of a list file, and the column if it is named.
pub(in crate::cli) fn path_and_column(file: &str) -> (&Path, Option<&str>) {
    match file.rsplit_once(':') {
        Some((path, column)) if !Path::new(file).exists() => (Path::new(path), Some(column)),
        _ => (Path::new(file), None),
    }
}

fn values_of(text: &str, column: Option<&str>, names: &[&str]) -> anyhow::Result<Vec<String>> {
    let first = text.lines().next().unwrap_or_default();
    let count = |delimiter: char| first.matches(delimiter).count();
    let delimiter = [',', ';', '\t'].into_iter().max_by_key(|delimiter| count(*delimiter)).unwrap_or(',');
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(delimiter as u8)
        .has_headers(false)
        .flexible(true)
        .from_reader(text.as_bytes());
    let mut records = reader.records().peekable();
    let is_name = |cell: &str, name: &str| cell.trim().eq_ignore_ascii_case(name);
    let header = match records.peek() {
        Some(Ok(header)) => header,
        Some(Err(_)) | None => &csv::StringRecord::new(),
    };
    let at = match column {
        Some(name) => match header.iter().position(|cell| is_name(cell, name)) {
            Some(at) => Some(at),
            None => bail!("has no column `{name}` in its first line"),
        },
        None => header.iter().position(|cell| names.iter().any(|name| is_name(cell, name))),
    };
    if at.is_some() {
        records.next();
    }
    let at = at.unwrap_or(0);
    let mut known = std::collections::HashSet::new();
    let mut values = Vec::new();
    for record in records {
        let record = record.context("is no valid CSV")?;
        let value = record.get(at).unwrap_or_default().trim();
        if value.contains('\\') {
            let line = record.position().map_or(0, csv::Position::line);
            bail!("line {line}: a backslash separates values and cannot be part of one");
        }
        if !value.is_empty() && known.insert(value.to_owned()) {
            values.push(value.to_owned());
        }
    }
    Ok(values)
}

/// Notes which values of a list have matched.
pub(in crate::cli) struct ListTracker {
    name: String,
    column: Column,
    values: Vec<String>,
    has_matched: Vec<bool>,
    /// Values that are compared byte by byte.
    exact: HashMap<String, usize>,
    /// The others, with their places. Those that have matched are taken out.
    conditions: Vec<(usize, Matching)>,
}

impl ListTracker {
    /// Makes a tracker for the values of a list in this column.
    ///
    /// # Errors
    /// If a value cannot be matched.
    pub(in crate::cli) fn new(list: &KeyList, column: Column) -> anyhow::Result<Self> {
        let is_exact = matches!(list.vr, VR::UI | VR::AE | VR::CS | VR::SH | VR::LO | VR::AS)
            && list.letter_case == LetterCase::Sensitive;
        let comparison = Comparison { vr: list.vr, multiplicity: Multiplicity::Many, letter_case: list.letter_case };
        let (mut exact, mut conditions) = (HashMap::new(), Vec::new());
        for (at, value) in list.values.iter().enumerate() {
            if is_exact && !value.contains(['*', '?']) {
                exact.insert(value.clone(), at);
            } else {
                conditions.push((at, Matching::compile(comparison, value, &MatchPolicy::default())?));
            }
        }
        Ok(Self {
            name: list.name.clone(),
            column,
            values: list.values.clone(),
            has_matched: vec![false; list.values.len()],
            exact,
            conditions,
        })
    }

    /// Notes the values that this answer matches.
    pub(in crate::cli) fn see(&mut self, row: &FoundRow) {
        let CellValue::Text(text) = self.column.cell(row) else { return };
        for value in text.split('\\').chain([text.as_ref()]) {
            if let Some(at) = self.exact.get(value.trim())
                && let Some(matched) = self.has_matched.get_mut(*at)
            {
                *matched = true;
            }
        }
        let has_matched = &mut self.has_matched;
        self.conditions.retain(|(at, condition)| {
            let matches = condition.matches(&text);
            if matches && let Some(matched) = has_matched.get_mut(*at) {
                *matched = true;
            }
            !matches
        });
    }

    /// Writes the values that nothing matched, and says how many there are.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(in crate::cli) fn write_missing(&self, path: &Path) -> anyhow::Result<String> {
        let mut destination = TableDestination::file(path)?;
        let missing: Vec<&String> = self
            .values
            .iter()
            .zip(&self.has_matched)
            .filter(|(_, matched)| !**matched)
            .map(|(value, _)| value)
            .collect();
        let mut writer = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(&mut destination);
        writer.write_record([&self.name])?;
        for value in &missing {
            writer.write_record([value.as_str()])?;
        }
        writer.flush()?;
        drop(writer);
        destination.finish()?;
        Ok(format!("{} of {} values of {} matched nothing", missing.len(), self.values.len(), self.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_lines_or_a_column_of_csv() {
        let names = ["AccessionNumber", "accession_number"];
        let values = |text: &str, column: Option<&str>| values_of(text, column, &names).unwrap();
        assert_eq!(values("A1\nA2\r\n\n A3 \nA1\n", None), ["A1", "A2", "A3"]);
        assert_eq!(values("x,accession_number\n1,A1\n2,A2\n", None), ["A1", "A2"]);
        assert_eq!(values("Name;Acc\n\"a;b\";A1\n", Some("acc")), ["A1"]);
        assert_eq!(values("A1,first\nA2,second", None), ["A1", "A2"]);
        assert!(values_of("a,b\n", Some("c"), &names).is_err());
        assert!(values_of("A\\B\n", None, &names).is_err());
    }
}
