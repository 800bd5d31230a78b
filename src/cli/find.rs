//! `dcmdex find` runs a query from the terminal, with the same code that answers C-FIND.

use std::io;
use std::ops::ControlFlow;
use std::thread;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use dicom_core::{Tag, VR};
use serde_json::{Map, Value};
use unicode_width::UnicodeWidthStr as _;

use super::arrival;
use super::output::{Audience, Escaped, Output};
use super::spooled::OutputBuffer;
use crate::cli::Exit;
use crate::cli::context::{Chattiness, Context, Flags, IndexArgs};
use crate::config::Config;
use crate::db::open::Reader;
use crate::model::attribute::AttributeId;
use crate::model::clock::Clock;
use crate::model::declared::{Declared, DeclaredPlace, DeclaredSet, canonical_tag};
use crate::model::find::{FindAnswer, FindRequest};
use crate::model::level::{InformationModel, QueryRetrieveLevel};
use crate::qr::{self, FindError, NegotiatedOptions};

/// Rows that decide the widths of the columns of a table. Wider values in later rows break the
/// alignment.
const MEASURED_ROWS: usize = 1000;

#[derive(Debug, Args)]
pub(super) struct FindArgs {
    #[command(flatten)]
    index: IndexArgs,
    /// Query level: PATIENT, STUDY, SERIES or IMAGE
    #[arg(long, value_parser = parse_level, default_value = "STUDY")]
    level: QueryRetrieveLevel,
    /// Output format
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Attributes to match and show: PatientName='SMITH*', StudyDate=20240101-20240630,
    /// 0020000D=1.2.3. Without a value, an attribute is only shown. If every key has a value, the
    /// usual columns are shown too. Further keys: received=today (or 24h, 7d, 2026-11-01,
    /// 2026-11-01..2026-11-30; UTC), sender=CT* (a calling AE title), since=N (what has changed
    /// after change N)
    #[arg(value_name = "KEY[=VALUE]")]
    keys: Vec<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// Aligned columns, for people
    Table,
    /// One array of objects
    Json,
    /// One object per line
    Ndjson,
    /// Comma-separated values with a header line (RFC 4180)
    Csv,
}

fn parse_level(text: &str) -> Result<QueryRetrieveLevel, String> {
    QueryRetrieveLevel::parse(text).ok_or_else(|| "the level must be PATIENT, STUDY, SERIES or IMAGE".to_owned())
}

pub(super) fn run(arguments: &FindArgs, context: &mut Context) -> anyhow::Result<Exit> {
    let mut flags = Flags::default();
    arguments.index.add_to(&mut flags)?;
    let config = context.configure(flags.0, Chattiness::Tool)?;
    let (arrival, shown) = arrival::take(&arguments.keys, Clock::System.now_ms())?;
    let mut query = query(arguments.level, &shown, &config)?;
    query.request.arrival = arrival;
    for tag in &query.unsupported {
        if query.is_matched(*tag) {
            tracing::warn!(%tag, "this attribute is matched, but not shown at this level");
        } else {
            tracing::warn!(%tag, "the index does not hold this attribute; it is neither matched nor shown");
        }
    }
    let reader = Reader::open(&config.index)?;
    let columns = columns(&shown, &query.request, &config.declared);
    let outlet = OutputBuffer::beside(&config.index, config.min_free_bytes);
    let (asked, written) = thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let mut output = Output::new(outlet.inlet());
            let writer = AnswerWriter::new(arguments.format, columns, &mut output);
            let asked = answer_all(reader, &query, writer);
            output.flush().context(CANNOT_BE_WRITTEN).and(asked)
        });
        let written = pass_on(&outlet, &mut context.output);
        // A panic in the query continues here.
        (asking.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), written)
    });
    written.context(CANNOT_BE_WRITTEN)?;
    asked
}

const CANNOT_BE_WRITTEN: &str = "cannot write to standard output";

/// Runs the query and writes its answers. At the end the reader of the index is closed, even if
/// some answers were not read.
fn answer_all<W: io::Write>(
    mut reader: Reader,
    query: &qr::Query,
    mut writer: AnswerWriter<'_, W>,
) -> anyhow::Result<Exit> {
    writer.begin().context(CANNOT_BE_WRITTEN)?;
    let mut failure = None;
    let stop = qr::QueryStop::new(&reader);
    let found = qr::run(&mut reader, query, &stop, |answer| match writer.answer(answer) {
        Ok(Audience::Listening) => ControlFlow::Continue(()),
        Ok(Audience::Gone) => ControlFlow::Break(()),
        Err(error) => {
            failure = Some(error);
            ControlFlow::Break(())
        }
    });
    if let Some(error) = failure {
        return Err(anyhow::Error::from(error).context(CANNOT_BE_WRITTEN));
    }
    let found = match found {
        // The reader of the output has closed it.
        Err(FindError::Cancelled) => return Ok(Exit::Done),
        found => found?,
    };
    writer.end().context(CANNOT_BE_WRITTEN)?;
    Ok(if found > 0 { Exit::Done } else { Exit::Partly })
}

/// Writes the waiting output until the query ends or nobody reads it.
fn pass_on<W: io::Write>(outlet: &OutputBuffer, output: &mut Output<W>) -> io::Result<()> {
    // The close below must also run after an error. Otherwise the query would wait for ever.
    let passed_on = (|| {
        while let Some(piece) = outlet.next()? {
            if output.bytes(&piece)? == Audience::Gone || output.flush()? == Audience::Gone {
                break;
            }
        }
        Ok(())
    })();
    outlet.close();
    passed_on
}

fn query(level: QueryRetrieveLevel, keys: &[&str], config: &Config) -> anyhow::Result<qr::Query> {
    let mut wanted: Vec<&str> = keys.to_vec();
    if wanted.iter().all(|key| key.contains('=')) {
        let matched: Vec<_> = wanted.iter().map(|key| key.split('=').next().unwrap_or(key).to_owned()).collect();
        let usual = qr::keys::default_return_keys(level);
        wanted.extend(
            usual.iter().map(|attribute| attribute.keyword).filter(|keyword| !matched.iter().any(|k| k == keyword)),
        );
    }
    let identifier = qr::keys::identifier_with(level, wanted, &config.declared)?;
    // A query from the terminal may use keys of any level, and the patient level.
    let negotiated = NegotiatedOptions { relational_queries: true, ..NegotiatedOptions::default() };
    // The limit is for peers. A user at the terminal can stop a long list, and retrieves nothing.
    let options = qr::Options { limit: None, retrieve_ae_title: String::new(), ..config.find.clone() };
    Ok(qr::parse(InformationModel::PatientRoot, &identifier, negotiated, &options)?)
}

/// A column of the output.
struct Column {
    name: String,
    /// Position of its value in an answer.
    at: usize,
    vr: VR,
    /// The path in the items of a sequence to the value to show. Empty shows the whole sequence.
    path: Vec<Tag>,
}

/// The columns: the attributes of the table, then the declared ones.
fn columns(keys: &[&str], request: &FindRequest, declared: &DeclaredSet) -> Vec<Column> {
    let names: Vec<&str> = keys.iter().map(|key| key.split('=').next().unwrap_or(key).trim()).collect();
    let asked: Vec<&Declared> = names.iter().filter_map(|name| declared.by_name(name)).collect();
    // If a sequence was requested only for a declared attribute in it, the sequence itself is not
    // shown.
    let only_serves = |id: AttributeId| {
        let keyword = id.attribute().keyword;
        asked.iter().any(|attribute| attribute.kept == DeclaredPlace::InTable(id))
            && !names.iter().any(|name| name.split('.').next().is_some_and(|name| name.eq_ignore_ascii_case(keyword)))
    };
    let of_table = request.return_keys.iter().enumerate().filter(|(_, key)| !only_serves(key.attribute));
    let mut columns: Vec<Column> = of_table
        .map(|(at, key)| {
            let attribute = key.attribute.attribute();
            Column { name: attribute.keyword.to_owned(), at, vr: attribute.vr, path: Vec::new() }
        })
        .collect();
    let first = request.return_keys.len();
    let answered: Vec<_> = request.declared.iter().filter(|key| key.is_answered).collect();
    for attribute in asked {
        let (at, nodes) = match attribute.kept {
            DeclaredPlace::InTable(id) => {
                (request.return_keys.iter().position(|key| key.attribute == id), [].as_slice())
            }
            DeclaredPlace::Unit(number) => {
                let at = answered.iter().position(|key| key.unit.number == number);
                (
                    at.map(|at| first + at),
                    at.and_then(|at| answered.get(at)).map_or([].as_slice(), |key| &key.unit.items),
                )
            }
        };
        let Some(at) = at else { continue };
        let mut nodes = nodes;
        let mut path = Vec::new();
        for step in attribute.path.iter().skip(1) {
            path.push(canonical_tag(nodes, step).0);
            nodes = nodes.iter().find(|node| node.step == *step).map_or([].as_slice(), |node| node.items.as_slice());
        }
        columns.push(Column { name: attribute.name.clone(), at, vr: attribute.vr, path });
    }
    columns
}

impl Column {
    fn text(&self, answer: &FindAnswer) -> String {
        let value = answer.values.get(self.at).map_or("", String::as_str);
        if self.path.is_empty() { value.to_owned() } else { qr::values_in_items(value, &self.path) }
    }
}

/// Writes answers in one of the formats.
struct AnswerWriter<'a, W: io::Write> {
    format: Format,
    columns: Vec<Column>,
    output: &'a mut Output<W>,
    /// Rows of a table whose widths are not yet known. Empty afterwards.
    waiting: Vec<Vec<String>>,
    widths: Option<Vec<usize>>,
    answers: u64,
}

impl<'a, W: io::Write> AnswerWriter<'a, W> {
    fn new(format: Format, columns: Vec<Column>, output: &'a mut Output<W>) -> Self {
        Self { format, columns, output, waiting: Vec::new(), widths: None, answers: 0 }
    }

    fn begin(&mut self) -> io::Result<Audience> {
        match self.format {
            Format::Csv => self.output.bytes(&csv(self.columns.iter().map(|column| column.name.as_str()))?),
            Format::Table | Format::Json | Format::Ndjson => Ok(Audience::Listening),
        }
    }

    fn answer(&mut self, answer: FindAnswer) -> io::Result<Audience> {
        self.answers += 1;
        match self.format {
            Format::Table => {
                let row: Vec<_> =
                    self.columns.iter().map(|column| Escaped(&column.text(&answer)).to_string()).collect();
                if self.widths.is_some() {
                    return self.row(&row);
                }
                self.waiting.push(row);
                if self.waiting.len() == MEASURED_ROWS { self.table() } else { Ok(Audience::Listening) }
            }
            Format::Json => {
                let before = if self.answers == 1 { "[" } else { "," };
                let object = self.object(&answer);
                self.output.bytes(format!("{before}\n{object}").as_bytes())
            }
            Format::Ndjson => {
                let object = self.object(&answer);
                self.output.line(object)
            }
            Format::Csv => {
                let values: Vec<_> = self.columns.iter().map(|column| column.text(&answer)).collect();
                self.output.bytes(&csv(values.iter().map(String::as_str))?)
            }
        }
    }

    fn end(&mut self) -> io::Result<Audience> {
        match self.format {
            Format::Table if self.widths.is_none() && self.answers > 0 => self.table(),
            Format::Json if self.answers == 0 => self.output.line("[]"),
            Format::Json => self.output.line("\n]"),
            Format::Table | Format::Ndjson | Format::Csv => Ok(Audience::Listening),
        }
    }

    /// Writes the head of the table and the rows that waited.
    fn table(&mut self) -> io::Result<Audience> {
        let rows = std::mem::take(&mut self.waiting);
        let width = |at: usize| {
            let cells = rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.width());
            cells.chain(self.columns.get(at).map(|column| column.name.width())).max().unwrap_or(0)
        };
        self.widths = Some((0..self.columns.len()).map(width).collect());
        let head: Vec<_> = self.columns.iter().map(|column| column.name.clone()).collect();
        self.row(&head)?;
        for row in &rows {
            self.row(row)?;
        }
        self.output.flush()
    }

    fn row(&mut self, row: &[String]) -> io::Result<Audience> {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(self.widths.iter().flatten()) {
            line.push_str(cell);
            // The width counts columns of the terminal. A Han character has two, and a combining
            // accent has none.
            line.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.width()) + 2));
        }
        self.output.line(line.trim_end())
    }

    fn object(&self, answer: &FindAnswer) -> Value {
        let value = |column: &Column| match column.vr {
            // The index stores sequences as JSON.
            VR::SQ if column.path.is_empty() => {
                serde_json::from_str(&column.text(answer)).unwrap_or_else(|_| Value::Array(Vec::new()))
            }
            _ => column.text(answer).into(),
        };
        let pairs = self.columns.iter().map(|column| (column.name.clone(), value(column)));
        Value::Object(pairs.collect::<Map<_, _>>())
    }
}

/// Returns one record of CSV (RFC 4180).
fn csv<'a>(values: impl Iterator<Item = &'a str>) -> io::Result<Vec<u8>> {
    let mut writer = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(Vec::new());
    writer.write_record(values.map(str::as_bytes))?;
    writer.into_inner().map_err(csv::IntoInnerError::into_error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_with_separators_is_quoted() {
        let text = |values: &[&str]| String::from_utf8(csv(values.iter().copied()).unwrap()).unwrap();
        assert_eq!(text(&["a", "", "b,c", "d\"e\"", "f\ng"]), "a,,\"b,c\",\"d\"\"e\"\"\",\"f\ng\"\r\n");
        // An empty line would be no record.
        assert_eq!(text(&[""]), "\"\"\r\n");
    }
}
