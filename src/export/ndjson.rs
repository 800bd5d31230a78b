//! NDJSON: one JSON object for each row. Sequences are JSON in it, not text.

use super::Error;
use super::destination::TableDestination;
use super::table::{TableSchema, TableWriter};
use super::value::{ColumnType, TableValue};

/// Writes NDJSON.
pub struct NdjsonTable<'o> {
    schema: TableSchema,
    /// The beginning of each member: its name in quotes, and the colon.
    names: Vec<Vec<u8>>,
    line: Vec<u8>,
    destination: TableDestination<'o>,
}

impl<'o> NdjsonTable<'o> {
    /// Begins a table.
    #[must_use]
    pub fn new(schema: TableSchema, destination: TableDestination<'o>) -> Self {
        let name = |column: &super::table::TableColumn| {
            let mut name = Vec::new();
            put_text(&mut name, &column.name);
            name.push(b':');
            name
        };
        let names = schema.columns().iter().map(name).collect();
        Self { schema, names, line: Vec::new(), destination }
    }
}

impl TableWriter for NdjsonTable<'_> {
    fn row(&mut self, values: &[TableValue<'_>]) -> Result<(), Error> {
        self.line.clear();
        for ((column, name), value) in self.schema.columns().iter().zip(&self.names).zip(values) {
            self.line.push(if self.line.is_empty() { b'{' } else { b',' });
            self.line.extend_from_slice(name);
            put_json(&mut self.line, value, column.kind);
        }
        self.line.extend_from_slice(b"}\n");
        self.destination.write(&self.line)
    }

    fn finish(self: Box<Self>) -> Result<(), Error> {
        self.destination.finish()
    }
}

/// Appends a value as JSON.
pub(super) fn put_json(into: &mut Vec<u8>, value: &TableValue<'_>, kind: ColumnType) {
    match value {
        TableValue::Null => into.extend_from_slice(b"null"),
        TableValue::Text(text) if kind == ColumnType::Json => into.extend_from_slice(text.as_bytes()),
        TableValue::Text(text) => put_text(into, text),
        TableValue::Integer(_) | TableValue::Double(_) => value.put_bare(into),
        TableValue::Date(_) | TableValue::Time(_) | TableValue::LocalDateTime(_) | TableValue::Instant(_) => {
            into.push(b'"');
            value.put_bare(into);
            into.push(b'"');
        }
        TableValue::List(values) => {
            into.push(b'[');
            for (at, value) in values.iter().enumerate() {
                if at > 0 {
                    into.push(b',');
                }
                put_json(into, value, kind);
            }
            into.push(b']');
        }
    }
}

/// Appends a text as a JSON string.
fn put_text(into: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(into, text).expect("a vector can be written, and a text is JSON");
}
