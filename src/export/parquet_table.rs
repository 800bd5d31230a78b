//! Parquet, with types that every reader knows: UTF8, INT64, DOUBLE, DATE, TIME, TIMESTAMP and
//! three-level lists. Pages are compressed with Snappy.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parquet::basic::{Compression, LogicalType, Repetition, TimeUnit, Type as PhysicalType};
use parquet::column::writer::ColumnWriter;
use parquet::data_type::ByteArray;
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::{Type, TypePtr};

use super::Error;
use super::destination::TableDestination;
use super::table::{TableColumn, TableSchema, TableWriter};
use super::value::{ColumnType, TableValue};

/// Bytes of a row group in memory. Larger: readers skip more at once. Smaller: less memory, and
/// more metadata in the file.
const GROUP_BYTES: usize = 8 * 1024 * 1024;

/// Rows of a row group.
const GROUP_ROWS: usize = 128 * 1024;

/// Bytes of a dictionary before a column chunk goes on without one.
const DICTIONARY_BYTES: usize = 256 * 1024;

/// Writes Parquet.
pub struct ParquetTable<'o> {
    columns: Vec<ColumnBuffer>,
    rows: usize,
    /// The file, for errors.
    path: Option<PathBuf>,
    writer: SerializedFileWriter<TableDestination<'o>>,
}

impl<'o> ParquetTable<'o> {
    /// Begins a table. `notes` stand in the metadata of the file.
    ///
    /// # Errors
    /// If the destination cannot be written.
    pub fn new(
        schema: &TableSchema,
        notes: &[(&str, String)],
        destination: TableDestination<'o>,
    ) -> Result<Self, Error> {
        let fields = schema.columns().iter().map(field).collect::<Result<_, _>>()?;
        let root = Arc::new(Type::group_type_builder("schema").with_fields(fields).build()?);
        let notes = notes.iter().map(|(key, value)| KeyValue::new((*key).to_owned(), value.clone())).collect();
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_dictionary_page_size_limit(DICTIONARY_BYTES)
            .set_created_by(concat!("dcmdex ", env!("CARGO_PKG_VERSION")).to_owned())
            .set_key_value_metadata(Some(notes))
            .build();
        let path = destination.path().map(Path::to_owned);
        let writer = SerializedFileWriter::new(destination, root, Arc::new(properties))?;
        let columns = schema.columns().iter().map(ColumnBuffer::new).collect();
        Ok(Self { columns, rows: 0, path, writer })
    }

    /// Writes the rows in memory as a row group.
    fn write_group(&mut self) -> Result<(), Error> {
        if self.rows == 0 {
            return Ok(());
        }
        let path = self.path.as_deref();
        let mut group = self.writer.next_row_group().map_err(|error| in_writing(error, path))?;
        for buffer in &mut self.columns {
            let mut column = group.next_column()?.ok_or_else(|| ParquetError::General("a column is missing".into()))?;
            buffer.write(column.untyped()).map_err(|error| in_writing(error, path))?;
            column.close().map_err(|error| in_writing(error, path))?;
        }
        group.close().map_err(|error| in_writing(error, path))?;
        self.rows = 0;
        Ok(())
    }
}

impl TableWriter for ParquetTable<'_> {
    fn row(&mut self, values: &[TableValue<'_>]) -> Result<(), Error> {
        for (column, value) in self.columns.iter_mut().zip(values) {
            column.push(value);
        }
        self.rows += 1;
        // The sum is made once in 256 rows: it costs as much as a row.
        let is_full = self.rows >= GROUP_ROWS
            || (self.rows.is_multiple_of(256)
                && self.columns.iter().map(ColumnBuffer::bytes).sum::<usize>() >= GROUP_BYTES);
        if is_full { self.write_group() } else { Ok(()) }
    }

    fn finish(mut self: Box<Self>) -> Result<(), Error> {
        self.write_group()?;
        let path = self.path.as_deref();
        self.writer.into_inner().map_err(|error| in_writing(error, path))?.finish()
    }
}

/// A failed write is told as one, and not as a problem of Parquet.
fn in_writing(error: ParquetError, path: Option<&Path>) -> Error {
    let ParquetError::External(cause) = error else { return Error::Parquet(error) };
    match (cause.downcast::<std::io::Error>(), path) {
        (Ok(io), Some(path)) => Error::Write { path: path.to_owned(), source: *io },
        (Ok(io), None) if io.kind() == std::io::ErrorKind::BrokenPipe => Error::Gone,
        (Ok(io), None) => Error::Output(*io),
        (Err(cause), _) => Error::Parquet(ParquetError::External(cause)),
    }
}

fn field(column: &TableColumn) -> Result<TypePtr, ParquetError> {
    let (physical, logical) = match column.kind {
        ColumnType::Text | ColumnType::Json => (PhysicalType::BYTE_ARRAY, Some(LogicalType::String)),
        ColumnType::Integer => (PhysicalType::INT64, None),
        ColumnType::Double => (PhysicalType::DOUBLE, None),
        ColumnType::Date => (PhysicalType::INT32, Some(LogicalType::Date)),
        ColumnType::Time => (PhysicalType::INT64, Some(LogicalType::time(false, TimeUnit::MICROS))),
        ColumnType::LocalDateTime => (PhysicalType::INT64, Some(LogicalType::timestamp(false, TimeUnit::MICROS))),
        ColumnType::Instant => (PhysicalType::INT64, Some(LogicalType::timestamp(true, TimeUnit::MILLIS))),
    };
    let name = if column.is_list { "element" } else { column.name.as_str() };
    let value = Type::primitive_type_builder(name, physical)
        .with_repetition(Repetition::OPTIONAL)
        .with_logical_type(logical)
        .build()?;
    if !column.is_list {
        return Ok(Arc::new(value));
    }
    let list = Type::group_type_builder("list")
        .with_repetition(Repetition::REPEATED)
        .with_fields(vec![Arc::new(value)])
        .build()?;
    Ok(Arc::new(
        Type::group_type_builder(&column.name)
            .with_repetition(Repetition::OPTIONAL)
            .with_logical_type(Some(LogicalType::List))
            .with_fields(vec![Arc::new(list)])
            .build()?,
    ))
}

/// The values of one column in a row group.
struct ColumnBuffer {
    is_list: bool,
    /// For each place: how much of the path to a value there is. 1, or 3 for a list, is a value.
    definitions: Vec<i16>,
    /// For each place of a list: 0 begins a row.
    repetitions: Vec<i16>,
    values: BufferedValues,
}

enum BufferedValues {
    Text { bytes: Vec<u8>, spans: Vec<(u32, u32)> },
    Integers(Vec<i64>),
    Doubles(Vec<f64>),
    Dates(Vec<i32>),
}

impl ColumnBuffer {
    fn new(column: &TableColumn) -> Self {
        let values = match column.kind {
            ColumnType::Text | ColumnType::Json => BufferedValues::Text { bytes: Vec::new(), spans: Vec::new() },
            ColumnType::Integer | ColumnType::Time | ColumnType::LocalDateTime | ColumnType::Instant => {
                BufferedValues::Integers(Vec::new())
            }
            ColumnType::Double => BufferedValues::Doubles(Vec::new()),
            ColumnType::Date => BufferedValues::Dates(Vec::new()),
        };
        Self { is_list: column.is_list, definitions: Vec::new(), repetitions: Vec::new(), values }
    }

    fn push(&mut self, value: &TableValue<'_>) {
        match value {
            TableValue::List(values) => {
                for (at, value) in values.iter().enumerate() {
                    self.repetitions.push(i16::from(at > 0));
                    let has_value = self.push_value(value);
                    self.definitions.push(if has_value { 3 } else { 2 });
                }
            }
            value => {
                let has_value = self.push_value(value);
                self.definitions.push(i16::from(has_value));
                if self.is_list {
                    self.repetitions.push(0);
                }
            }
        }
    }

    /// Keeps a value. Returns false for null.
    fn push_value(&mut self, value: &TableValue<'_>) -> bool {
        match (&mut self.values, value) {
            (BufferedValues::Text { bytes, spans }, TableValue::Text(text)) => {
                // Neighbours often say the same.
                let same = spans.last().copied().filter(|&(start, length)| {
                    bytes.get(start as usize..start as usize + length as usize) == Some(text.as_bytes())
                });
                let span = same.unwrap_or_else(|| {
                    let start = bytes.len() as u32;
                    bytes.extend_from_slice(text.as_bytes());
                    (start, text.len() as u32)
                });
                spans.push(span);
            }
            (
                BufferedValues::Integers(numbers),
                TableValue::Integer(number)
                | TableValue::Time(number)
                | TableValue::LocalDateTime(number)
                | TableValue::Instant(number),
            ) => numbers.push(*number),
            (BufferedValues::Doubles(numbers), TableValue::Double(number)) => numbers.push(*number),
            (BufferedValues::Dates(days), TableValue::Date(day)) => days.push(*day),
            _ => return false,
        }
        true
    }

    fn bytes(&self) -> usize {
        let values = match &self.values {
            BufferedValues::Text { bytes, spans } => bytes.len() + 8 * spans.len(),
            BufferedValues::Integers(numbers) => 8 * numbers.len(),
            BufferedValues::Doubles(numbers) => 8 * numbers.len(),
            BufferedValues::Dates(days) => 4 * days.len(),
        };
        values + 2 * (self.definitions.len() + self.repetitions.len())
    }

    /// Writes the values, and forgets them.
    fn write(&mut self, writer: &mut ColumnWriter<'_>) -> Result<(), ParquetError> {
        let wrong = || ParquetError::General("a column has another type".into());
        let definitions = Some(self.definitions.as_slice());
        let repetitions = self.is_list.then_some(self.repetitions.as_slice());
        match (&mut self.values, writer) {
            (BufferedValues::Text { bytes, spans }, ColumnWriter::ByteArrayColumnWriter(writer)) => {
                let all = ByteArray::from(std::mem::take(bytes));
                let texts: Vec<ByteArray> =
                    spans.drain(..).map(|(start, length)| all.slice(start as usize, length as usize)).collect();
                writer.write_batch(&texts, definitions, repetitions)?;
            }
            (BufferedValues::Integers(numbers), ColumnWriter::Int64ColumnWriter(writer)) => {
                writer.write_batch(numbers, definitions, repetitions)?;
                numbers.clear();
            }
            (BufferedValues::Doubles(numbers), ColumnWriter::DoubleColumnWriter(writer)) => {
                writer.write_batch(numbers, definitions, repetitions)?;
                numbers.clear();
            }
            (BufferedValues::Dates(days), ColumnWriter::Int32ColumnWriter(writer)) => {
                writer.write_batch(days, definitions, repetitions)?;
                days.clear();
            }
            _ => return Err(wrong()),
        }
        self.definitions.clear();
        self.repetitions.clear();
        Ok(())
    }
}
