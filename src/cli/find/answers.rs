//! Writes the answers to a query, in one of the formats.

use std::cmp::Ordering;
use std::io;

use clap::ValueEnum;
use serde_json::{Map, Value};
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use crate::cli::keys::columns::{CellValue, Column, FoundRow};
use crate::cli::output::{Audience, Escaped, Output, Shown, put_path};
use crate::model::location::{Location, Place};
use crate::qr::{self, JsonWriter};

/// Rows that decide the widths of the columns of a table. Wider values in later rows break the
/// alignment, or are cut on a terminal.
const MEASURED_ROWS: usize = 1000;

/// Columns of the terminal between two columns of a table.
const GAP: usize = 2;

/// Width that the heading of a column may claim on a terminal. Some keywords are much longer than
/// their values.
const HEADING_WIDTH: usize = 12;

/// Width below which no column is cut.
const LEAST_WIDTH: usize = 6;

/// Format of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum OutputFormat {
    /// Aligned columns, for people
    Table,
    /// One array of objects
    Json,
    /// One object per line
    Ndjson,
    /// Comma-separated values with a header line (RFC 4180)
    Csv,
    /// One array of objects in the DICOM JSON Model (PS3.18 F)
    DicomJson,
    /// Paths, each with a NUL after it
    #[value(skip)]
    Paths0,
    /// The number of answers
    #[value(skip)]
    Count,
}

/// The terminal that a table is written to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terminal {
    /// Its number of columns.
    pub(super) width: usize,
    pub(super) is_coloured: bool,
}

/// Writes answers in one of the formats.
pub(super) struct AnswerWriter<'a, W: io::Write> {
    format: OutputFormat,
    columns: Vec<Column>,
    dicom_json: &'a JsonWriter,
    terminal: Option<Terminal>,
    output: &'a mut Output<W>,
    /// Rows of a table whose widths are not yet known. Empty afterwards.
    waiting: Vec<Vec<String>>,
    /// For each column of the table: its position in `columns`, and its width.
    table: Option<Vec<(usize, usize)>>,
    answers: u64,
    without_path: u64,
}

impl<'a, W: io::Write> AnswerWriter<'a, W> {
    pub(super) fn new(
        format: OutputFormat,
        columns: &[Column],
        dicom_json: &'a JsonWriter,
        terminal: Option<Terminal>,
        output: &'a mut Output<W>,
    ) -> Self {
        let (columns, waiting) = (columns.to_vec(), Vec::new());
        Self { format, columns, dicom_json, terminal, output, waiting, table: None, answers: 0, without_path: 0 }
    }

    pub(super) fn begin(&mut self) -> io::Result<Audience> {
        match self.format {
            OutputFormat::Csv => self.output.bytes(&csv(self.columns.iter().map(|column| column.name.as_bytes()))?),
            OutputFormat::Table
            | OutputFormat::Json
            | OutputFormat::Ndjson
            | OutputFormat::DicomJson
            | OutputFormat::Paths0
            | OutputFormat::Count => Ok(Audience::Listening),
        }
    }

    pub(super) fn answer(&mut self, row: &FoundRow) -> io::Result<Audience> {
        self.answers += 1;
        match self.format {
            OutputFormat::Table => {
                let cells: Vec<_> = self.columns.iter().map(|column| shown(&column.cell(row))).collect();
                if self.table.is_some() {
                    return self.row(&cells);
                }
                self.waiting.push(cells);
                if self.waiting.len() == MEASURED_ROWS { self.head_and_waiting() } else { Ok(Audience::Listening) }
            }
            OutputFormat::Json => self.element(&self.object(row).to_string()),
            OutputFormat::DicomJson => {
                let mut object = String::new();
                self.dicom_json.write(&mut object, &row.answer);
                self.element(&object)
            }
            OutputFormat::Ndjson => {
                let object = self.object(row);
                self.output.line(object)
            }
            OutputFormat::Csv => {
                let cells: Vec<_> = self.columns.iter().map(|column| column.cell(row)).collect();
                let values: Vec<_> = cells.iter().map(CellValue::bytes).collect();
                self.output.bytes(&csv(values.iter().map(AsRef::as_ref))?)
            }
            OutputFormat::Count => Ok(Audience::Listening),
            OutputFormat::Paths0 => self.path(row),
        }
    }

    pub(super) fn end(&mut self) -> io::Result<Audience> {
        match self.format {
            OutputFormat::Table if self.table.is_none() && self.answers > 0 => self.head_and_waiting(),
            OutputFormat::Json | OutputFormat::DicomJson if self.answers == 0 => self.output.line("[]"),
            OutputFormat::Json | OutputFormat::DicomJson => self.output.line("\n]"),
            OutputFormat::Count => self.output.line(self.answers),
            OutputFormat::Table | OutputFormat::Ndjson | OutputFormat::Csv | OutputFormat::Paths0 => {
                Ok(Audience::Listening)
            }
        }
    }

    /// Writes the path of a file. Members of archive files and objects that are not kept have none.
    fn path(&mut self, row: &FoundRow) -> io::Result<Audience> {
        let location = row.location.as_ref().filter(|location| location.place != Place::Archive);
        match location.and_then(Location::path) {
            Some(path) => {
                let mut bytes = path.into_os_string().into_encoded_bytes();
                bytes.push(0);
                self.output.bytes(&bytes)
            }
            None => {
                self.without_path += 1;
                Ok(Audience::Listening)
            }
        }
    }

    /// Number of answers for which [`OutputFormat::Paths0`] had nothing to write.
    pub(super) const fn without_path(&self) -> u64 {
        self.without_path
    }

    /// Writes an element of an array.
    fn element(&mut self, object: &str) -> io::Result<Audience> {
        let before = if self.answers == 1 { "[" } else { "," };
        self.output.bytes(format!("{before}\n{object}").as_bytes())
    }

    /// Writes the head of the table and the rows that waited.
    fn head_and_waiting(&mut self) -> io::Result<Audience> {
        let rows = std::mem::take(&mut self.waiting);
        self.table = Some(self.layout(&rows));
        let head: Vec<_> = self.columns.iter().map(|column| column.name.clone()).collect();
        let (before, after) = match self.terminal {
            Some(Terminal { is_coloured: true, .. }) => ("\x1b[1m", "\x1b[0m"),
            _ => ("", ""),
        };
        let head = self.line(&head);
        self.output.line(format_args!("{before}{head}{after}"))?;
        for row in &rows {
            self.row(row)?;
        }
        self.output.flush()
    }

    /// Decides which columns the table has, and how wide they are.
    fn layout(&self, rows: &[Vec<String>]) -> Vec<(usize, usize)> {
        let width = |(at, column): (usize, &Column)| {
            let heading = column.name.width();
            let heading = if self.terminal.is_some() { heading.min(HEADING_WIDTH) } else { heading };
            let cells = rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.width());
            (at, cells.max().unwrap_or(0).max(heading))
        };
        let mut table: Vec<(usize, usize)> = self.columns.iter().enumerate().map(width).collect();
        let Some(terminal) = self.terminal else { return table };
        while total(&table) > terminal.width
            && let Some(at) =
                table.iter().rposition(|(at, _)| self.columns.get(*at).is_some_and(|column| column.yields))
        {
            table.remove(at);
        }
        while total(&table) > terminal.width
            && let Some(widest) =
                table.iter_mut().max_by_key(|(_, width)| *width).filter(|(_, width)| *width > LEAST_WIDTH)
        {
            widest.1 -= 1;
        }
        // A heading may use what is left.
        for place in 0..table.len() {
            let left = terminal.width.saturating_sub(total(&table));
            if let Some((at, width)) = table.get_mut(place) {
                let heading = self.columns.get(*at).map_or(0, |column| column.name.width());
                *width += heading.saturating_sub(*width).min(left);
            }
        }
        table
    }

    fn row(&mut self, row: &[String]) -> io::Result<Audience> {
        let line = self.line(row);
        self.output.line(line)
    }

    fn line(&self, row: &[String]) -> String {
        let mut line = String::new();
        for (at, width) in self.table.iter().flatten() {
            let cell = row.get(*at).map_or("", String::as_str);
            let cell = if self.terminal.is_some() { cut(cell, *width) } else { cell.to_owned() };
            // The width counts columns of the terminal. A Han character has two, and a combining
            // accent has none.
            let padding = width.saturating_sub(cell.width()) + GAP;
            line.push_str(&cell);
            line.extend(std::iter::repeat_n(' ', padding));
        }
        line.truncate(line.trim_end().len());
        line
    }

    fn object(&self, row: &FoundRow) -> Value {
        let mut object = Map::new();
        for column in &self.columns {
            match column.cell(row) {
                CellValue::Path(path) => put_path(&mut object, &path),
                CellValue::Number(number) => drop(object.insert(column.name.clone(), number.into())),
                // The index stores sequences as JSON.
                CellValue::Text(text) if column.is_whole_sequence() => {
                    object.insert(column.name.clone(), qr::stored_items(&text).into());
                }
                CellValue::Text(text) => drop(object.insert(column.name.clone(), text.into())),
            }
        }
        Value::Object(object)
    }
}

/// A value in one line of a table.
fn shown(cell: &CellValue<'_>) -> String {
    match cell {
        CellValue::Text(text) => Escaped(text).to_string(),
        CellValue::Number(number) => number.to_string(),
        CellValue::Path(path) => Shown(path).to_string(),
    }
}

fn total(table: &[(usize, usize)]) -> usize {
    table.iter().map(|(_, width)| width).sum::<usize>() + GAP * table.len().saturating_sub(1)
}

/// Cuts a text to a number of columns of the terminal. A cut text ends with `…`.
fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut kept = String::new();
    let mut columns = 1;
    for c in text.chars() {
        columns += c.width().unwrap_or(0);
        if columns > width {
            break;
        }
        kept.push(c);
    }
    kept.push('…');
    kept
}

/// Returns one record of CSV (RFC 4180).
fn csv<'a>(values: impl Iterator<Item = &'a [u8]>) -> io::Result<Vec<u8>> {
    let mut writer = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(Vec::new());
    writer.write_record(values)?;
    writer.into_inner().map_err(csv::IntoInnerError::into_error)
}

/// A column by which answers are sorted.
#[derive(Debug)]
pub(super) struct SortKey {
    pub(super) column: Column,
    pub(super) descending: bool,
}

/// The value of a row in a column that it is sorted by.
#[derive(Debug)]
enum SortValue {
    Number(f64),
    Bytes(Vec<u8>),
    /// It comes last in either direction.
    Nothing,
}

/// Sorts answers. It keeps all of them in memory, or only the first ones if there is a limit.
pub(super) struct Sorter<'p> {
    order: &'p [SortKey],
    limit: Option<usize>,
    rows: Vec<(Vec<SortValue>, FoundRow)>,
}

impl<'p> Sorter<'p> {
    pub(super) fn new(order: &'p [SortKey], limit: Option<u64>) -> Self {
        Self { order, limit: limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX)), rows: Vec::new() }
    }

    pub(super) fn add(&mut self, row: FoundRow) {
        let values = self.order.iter().map(|order| sort_value(&order.column, &row)).collect();
        self.rows.push((values, row));
        // Rows beyond the limit go in batches, so that each row is sorted a few times only.
        if let Some(limit) = self.limit
            && self.rows.len() >= limit.saturating_mul(2).max(1024)
        {
            self.sort();
        }
    }

    /// The rows in their order.
    pub(super) fn into_rows(mut self) -> impl Iterator<Item = FoundRow> {
        self.sort();
        self.rows.into_iter().map(|(_, row)| row)
    }

    fn sort(&mut self) {
        let order = self.order;
        // Rows with equal values stay in the order of the index.
        self.rows.sort_by(|(one, _), (other, _)| {
            let each = order.iter().zip(one.iter().zip(other));
            each.map(|(order, (one, other))| compare(one, other, order.descending))
                .find(|ordering| *ordering != Ordering::Equal)
                .unwrap_or(Ordering::Equal)
        });
        if let Some(limit) = self.limit {
            self.rows.truncate(limit);
        }
    }
}

fn sort_value(column: &Column, row: &FoundRow) -> SortValue {
    let cell = column.cell(row);
    let bytes = cell.bytes();
    if bytes.is_empty() {
        return SortValue::Nothing;
    }
    let number = || std::str::from_utf8(&bytes).ok()?.split('\\').next()?.trim().parse::<f64>().ok();
    match number().filter(|_| column.is_number()) {
        Some(number) => SortValue::Number(number),
        None => SortValue::Bytes(bytes.into_owned()),
    }
}

fn compare(one: &SortValue, other: &SortValue, descending: bool) -> Ordering {
    let in_direction = |ordering: Ordering| if descending { ordering.reverse() } else { ordering };
    match (one, other) {
        (SortValue::Nothing, SortValue::Nothing) => Ordering::Equal,
        (SortValue::Nothing, _) => Ordering::Greater,
        (_, SortValue::Nothing) => Ordering::Less,
        (SortValue::Number(one), SortValue::Number(other)) => in_direction(one.total_cmp(other)),
        (SortValue::Bytes(one), SortValue::Bytes(other)) => in_direction(one.cmp(other)),
        // Text where a number is expected.
        (SortValue::Number(_), SortValue::Bytes(_)) => Ordering::Less,
        (SortValue::Bytes(_), SortValue::Number(_)) => Ordering::Greater,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_with_separators_is_quoted() {
        let text =
            |values: &[&str]| String::from_utf8(csv(values.iter().map(|value| value.as_bytes())).unwrap()).unwrap();
        assert_eq!(text(&["a", "", "b,c", "d\"e\"", "f\ng"]), "a,,\"b,c\",\"d\"\"e\"\"\",\"f\ng\"\r\n");
        // An empty line would be no record.
        assert_eq!(text(&[""]), "\"\"\r\n");
    }

    #[test]
    fn a_text_is_cut_by_what_the_terminal_shows() {
        assert_eq!(cut("abcdef", 6), "abcdef");
        assert_eq!(cut("abcdefg", 6), "abcde…");
        assert_eq!(cut("山田太郎", 6), "山田…");
        assert_eq!(cut("e\u{301}e\u{301}e\u{301}", 2), "e\u{301}…");
    }
}
