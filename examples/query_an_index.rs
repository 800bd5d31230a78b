//! Asks an index for studies, by the engine that answers C-FIND.
//!
//! ```text
//! cargo run --example query_an_index -- archive.db 'PatientName=M*' StudyDate ModalitiesInStudy
//! ```

#![allow(clippy::print_stdout, reason = "the results of a program go to standard output")]

use std::ops::ControlFlow;
use std::path::Path;

use anyhow::Context as _;
use dcmdex::db::open::Reader;
use dcmdex::model::level::{InformationModel, QueryRetrieveLevel};
use dcmdex::qr::{self, NegotiatedOptions, keys};

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let index = arguments.next().context("usage: query_an_index INDEX KEY[=VALUE]...")?;
    let keys: Vec<String> = arguments.collect();
    for study in query_an_index(Path::new(&index), keys.iter().map(String::as_str))? {
        println!("{}", study.join(" | "));
    }
    Ok(())
}

/// Returns the matching studies, for each the values of the keys in the order of the index's
/// attributes.
pub(crate) fn query_an_index<'a>(
    index: &Path,
    keys: impl IntoIterator<Item = &'a str>,
) -> anyhow::Result<Vec<Vec<String>>> {
    // An Identifier is what a C-FIND-RQ carries. `parse` checks it against the information model.
    let identifier = keys::identifier(QueryRetrieveLevel::Study, keys)?;
    let negotiated = NegotiatedOptions { relational_queries: true, ..NegotiatedOptions::default() };
    let query = qr::parse(InformationModel::StudyRoot, &identifier, negotiated, &qr::Options::default())?;

    let mut reader = Reader::open(index)?;
    let stop = qr::QueryStop::new(&reader);
    let mut studies = Vec::new();
    // Answers come one by one. `Break` ends the query early.
    qr::run(&mut reader, &query, &stop, |answer| {
        studies.push(answer.values.to_vec());
        ControlFlow::Continue(())
    })?;
    Ok(studies)
}
