//! Reads the instances of an index with their files, and writes them as a typed table.
//!
//! ```text
//! cargo run --example write_a_table -- archive.db instances.csv Modality=CT
//! ```

use std::ops::ControlFlow;
use std::path::Path;

use anyhow::Context as _;
use dcmdex::db::open::Reader;
use dcmdex::export::csv_table::{CsvTable, Formulas};
use dcmdex::export::destination::TableDestination;
use dcmdex::export::table::{TableColumn, TableSchema, TableWriter as _};
use dcmdex::export::value::{ColumnType, TableValue, typed};
use dcmdex::model::attribute::Multiplicity;
use dcmdex::model::level::{InformationModel, QueryRetrieveLevel};
use dcmdex::qr::{self, NegotiatedOptions, keys};

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().context("usage: write_a_table INDEX FILE KEY[=VALUE]...");
    let (index, file) = (next()?, next()?);
    let keys: Vec<String> = arguments.collect();
    write_a_table(Path::new(&index), Path::new(&file), keys.iter().map(String::as_str))?;
    Ok(())
}

/// Writes the values of the keys and the path of each matching instance. Returns the number of
/// rows.
pub(crate) fn write_a_table<'a>(
    index: &Path,
    file: &Path,
    keys: impl IntoIterator<Item = &'a str>,
) -> anyhow::Result<u64> {
    let identifier = keys::identifier(QueryRetrieveLevel::Image, keys)?;
    let negotiated = NegotiatedOptions { relational_queries: true, ..NegotiatedOptions::default() };
    let mut query = qr::parse(InformationModel::StudyRoot, &identifier, negotiated, &qr::Options::default())?;
    query.request.wants_location = true;

    // The type of a column follows from the VR of its attribute.
    let attributes: Vec<_> = query.request.return_keys.iter().map(|key| key.attribute.attribute()).collect();
    let mut columns: Vec<TableColumn> = attributes
        .iter()
        .map(|attribute| TableColumn {
            name: attribute.column.to_owned(),
            kind: ColumnType::of(attribute.vr),
            is_list: attribute.multiplicity == Multiplicity::Many && attribute.vr != dicom_core::VR::SQ,
        })
        .collect();
    columns.push(TableColumn { name: "path".to_owned(), kind: ColumnType::Text, is_list: false });
    let types: Vec<_> = columns.iter().map(|column| (column.kind, column.is_list)).collect();

    // The file gets its name when it is whole.
    let destination = TableDestination::file(file)?;
    let schema = TableSchema::new(columns, false)?;
    let mut table = Box::new(CsvTable::new(schema, Formulas::Defuse, destination)?);
    let mut reader = Reader::open(index)?;
    let stop = qr::QueryStop::new(&reader);
    let rows = qr::try_run::<anyhow::Error>(&mut reader, &query, &stop, |answer| {
        let values = answer.values.iter().zip(&types);
        let mut row: Vec<TableValue<'_>> =
            values.map(|(text, (kind, is_list))| typed(*kind, *is_list, text).0).collect();
        let path = answer.location.as_ref().and_then(|location| location.path());
        row.push(match path {
            Some(path) => TableValue::Text(path.to_string_lossy().into_owned().into()),
            None => TableValue::Null,
        });
        table.row(&row)?;
        Ok(ControlFlow::Continue(()))
    })?;
    table.finish()?;
    Ok(rows.unwrap_or(0))
}
