//! CSV (RFC 4180) with a header line. Dates and times are those of ISO 8601, and lists are JSON.

use std::borrow::Cow;

use super::Error;
use super::destination::TableDestination;
use super::ndjson::put_json;
use super::table::{TableSchema, TableWriter};
use super::value::{ColumnType, TableValue};

/// Treatment of texts that a spreadsheet would run as formulas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Formulas {
    /// It is written as it is.
    Keep,
    /// An apostrophe before it makes it a text.
    Defuse,
}

/// Writes CSV.
pub struct CsvTable<'o> {
    schema: TableSchema,
    formulas: Formulas,
    writer: csv::Writer<Vec<u8>>,
    /// The current field, if it is no text.
    field: Vec<u8>,
    destination: TableDestination<'o>,
}

/// Bytes of CSV that are handed on at once.
const PIECE: usize = 64 * 1024;

impl<'o> CsvTable<'o> {
    /// Begins a table with its header line.
    ///
    /// # Errors
    /// If the destination cannot be written.
    pub fn new(schema: TableSchema, formulas: Formulas, destination: TableDestination<'o>) -> Result<Self, Error> {
        let writer = csv_writer(Vec::with_capacity(2 * PIECE));
        let mut table = Self { schema, formulas, writer, field: Vec::new(), destination };
        let written = table.writer.write_record(table.schema.columns().iter().map(|column| column.name.as_bytes()));
        written.map_err(|error| table.destination.error(error.into()))?;
        Ok(table)
    }

    /// Hands on what has been written.
    fn hand_on(&mut self) -> Result<(), Error> {
        let empty = csv_writer(Vec::with_capacity(2 * PIECE));
        let bytes = std::mem::replace(&mut self.writer, empty).into_inner();
        let bytes = bytes.map_err(|error| self.destination.error(error.into_error()))?;
        self.destination.write(&bytes)
    }
}

fn csv_writer(into: Vec<u8>) -> csv::Writer<Vec<u8>> {
    csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).flexible(true).from_writer(into)
}

impl TableWriter for CsvTable<'_> {
    fn row(&mut self, values: &[TableValue<'_>]) -> Result<(), Error> {
        let Self { schema, formulas, writer, field, destination } = self;
        let mut write = || -> csv::Result<()> {
            for (column, value) in schema.columns().iter().zip(values) {
                match value {
                    TableValue::Text(text) if *formulas == Formulas::Defuse && column.kind == ColumnType::Text => {
                        writer.write_field(defused(text).as_bytes())?;
                    }
                    TableValue::Text(text) => writer.write_field(text.as_bytes())?,
                    value => {
                        field.clear();
                        match value {
                            TableValue::List(_) => put_json(field, value, column.kind),
                            value => value.put_bare(field),
                        }
                        writer.write_field(&*field)?;
                    }
                }
            }
            writer.write_record(None::<&[u8]>)
        };
        write().map_err(|error| destination.error(error.into()))?;
        if self.writer.get_ref().len() >= PIECE {
            self.hand_on()?;
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<(), Error> {
        self.hand_on()?;
        self.destination.finish()
    }
}

/// A text that no spreadsheet runs. It looks behind leading white space, as they do.
fn defused(text: &str) -> Cow<'_, str> {
    let first = text.trim_start_matches([' ', '\u{a0}']).chars().next();
    match first {
        Some('=' | '+' | '-' | '@' | '\t' | '\r' | '\n' | '＝' | '＋' | '－' | '＠') => format!("'{text}").into(),
        _ => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formulas_are_defused_wherever_a_spreadsheet_sees_one() {
        for text in ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", " =1", "＝1"] {
            assert_eq!(defused(text), format!("'{text}"), "{text}");
        }
        for text in ["", "Smith", "1=1", "[\"=1\"]"] {
            assert_eq!(defused(text), text);
        }
    }
}
