//! From keys to a query, and what is said when nothing matches.

use std::ops::ControlFlow;
use std::sync::Arc;

use anyhow::{Context as _, bail};

use super::asked::{AskedColumn, FindKeys, KeyReader};
use super::hints;
use crate::config::Config;
use crate::db::open::Reader;
use crate::db::{self, ScanLedger, Search};
use crate::model::attribute::AttributeId;
use crate::model::clock::Clock;
use crate::model::find::{FindAnswer, FindRequest};
use crate::model::level::{InformationModel, QueryRetrieveLevel};
use crate::model::location::Location;
use crate::model::matching::MatchingError;
use crate::qr::{self, FindError, NegotiatedOptions, QueryStop};
use crate::store::is_unchanged;

/// Parses a level, and lists the levels for completions.
#[derive(Clone)]
pub(in crate::cli) struct LevelParser;

impl clap::builder::TypedValueParser for LevelParser {
    type Value = QueryRetrieveLevel;

    fn parse_ref(
        &self,
        command: &clap::Command,
        argument: Option<&clap::Arg>,
        value: &std::ffi::OsStr,
    ) -> Result<Self::Value, clap::Error> {
        let parser = clap::builder::StringValueParser::new().try_map(|text| {
            QueryRetrieveLevel::parse(&text).ok_or("the level must be PATIENT, STUDY, SERIES or IMAGE")
        });
        parser.parse_ref(command, argument, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = clap::builder::PossibleValue> + '_>> {
        Some(Box::new(QueryRetrieveLevel::ALL.iter().map(|level| clap::builder::PossibleValue::new(level.as_str()))))
    }
}

/// Makes the query for a level and its keys.
///
/// # Errors
/// If a key cannot be matched or answered.
pub(in crate::cli) fn query(level: QueryRetrieveLevel, keys: &[&str], config: &Config) -> anyhow::Result<qr::Query> {
    let identifier = qr::keys::identifier_with(level, keys.iter().copied(), &config.declared)?;
    // A query from the terminal may use keys of any level, and the patient level. It may ask for
    // what has no value.
    let negotiated = NegotiatedOptions { relational_queries: true, empty_value: true, ..NegotiatedOptions::default() };
    // The limit is for peers. A user at the terminal can stop a long list, and retrieves nothing.
    let options = qr::Options { limit: None, retrieve_ae_title: String::new(), ..config.find.clone() };
    let query = match qr::parse(InformationModel::PatientRoot, &identifier, negotiated, &options) {
        Ok(query) => query,
        Err(FindError::InvalidKey(tag, error)) => bail!("{}: {}", qr::keys::keyword(tag), in_words(error)),
        Err(error) => return Err(error.into()),
    };
    // A key that neither narrows the answers nor is in them would mislead.
    if let Some(tag) = query.unsupported.iter().find(|tag| !query.is_matched(**tag)) {
        bail!("{} cannot be matched", qr::keys::keyword(*tag));
    }
    Ok(query)
}

/// The values of these attributes in all answers to a query.
///
/// # Errors
/// If a key cannot be matched or answered, and that of the index.
pub(in crate::cli) fn values_of_answers<const N: usize>(
    reader: &mut Reader,
    level: QueryRetrieveLevel,
    keys: &[String],
    returned: [AttributeId; N],
    config: &Config,
) -> anyhow::Result<Vec<[String; N]>> {
    let query = query_of_keys(level, keys, &returned.map(|id| id.attribute().keyword), config)?;
    let at = |request: &FindRequest, id| request.return_keys.iter().position(|key| key.attribute == id);
    let mut places = [0; N];
    for (place, id) in places.iter_mut().zip(returned) {
        *place = at(&query.request, id).context("a column has no value in the answers")?;
    }
    let mut found = Vec::new();
    let stop = QueryStop::new(reader);
    qr::run(reader, &query, &stop, |answer| {
        found.push(places.map(|place| answer.values.text(place).to_owned()));
        ControlFlow::Continue(())
    })?;
    Ok(found)
}

/// Makes the query for a level and keys as a user writes them, with these attributes in its answers
/// besides.
///
/// # Errors
/// If a key cannot be matched or answered, or some objects were not read for it.
pub(in crate::cli) fn query_of_keys(
    level: QueryRetrieveLevel,
    keys: &[String],
    returned: &[&str],
    config: &Config,
) -> anyhow::Result<qr::Query> {
    let reading = KeyReader { level, declared: &config.declared, now_ms: Clock::System.now_ms() };
    let asked = reading.keys(keys)?;
    if let Some(warning) = refuse_what_was_not_read(&asked, &[], config)? {
        bail!("{warning}");
    }
    let mut names = asked.query_keys(&[]);
    names.extend(returned);
    let mut query = query(level, &names, config)?;
    query.request.arrival = asked.arrival.clone();
    Ok(query)
}

/// Hint on what to write instead of a value that cannot be matched.
fn in_words(error: MatchingError) -> String {
    use dicom_core::VR;
    match error {
        MatchingError::InvalidRange(VR::DA | VR::DT) => {
            "write a date as 2004-01-31, or a range as 2004-01-31..2005-12-31".to_owned()
        }
        MatchingError::InvalidRange(VR::TM) => "write a time as 10:30, or a range as 10:30..12:00".to_owned(),
        error => error.to_string(),
    }
}

/// Refuses declared attributes that no object in the index was read with. Returns a warning if
/// some objects were read without them.
pub(in crate::cli) fn refuse_what_was_not_read(
    asked: &FindKeys,
    sorted: &[AskedColumn],
    config: &Config,
) -> anyhow::Result<Option<String>> {
    let units = asked.declared_units(&config.declared, sorted);
    if units.is_empty() {
        return Ok(None);
    }
    let declared = Arc::new(config.declared.with_units(&units));
    let coverage = Reader::open(&config.index)?.with_declared(declared).declared_coverage()?;
    let names = asked.declared_names(&config.declared, sorted).join(", ");
    if coverage.lacking == 0 {
        return Ok(None);
    }
    if coverage.lacking == coverage.all {
        bail!("no object in the index has been read for {names}; scan again, and the scan reads them");
    }
    Ok(Some(format!(
        "{} of {} instances have not been read for {names}, and count as without a value; scan again, and the scan reads \
         them",
        coverage.lacking, coverage.all
    )))
}

/// Message for the case that nothing matched.
pub(in crate::cli) fn nothing_matched(asked: &FindKeys, mut reader: Reader) -> anyhow::Result<String> {
    let any = query_for_anything();
    if reader.find(&any, |_| ControlFlow::Break(()))? == 0 {
        return Ok("the index is empty; hint: `dcmdex scan PATH` fills it".to_owned());
    }
    Ok(match hints::for_nothing(&asked.matched) {
        Some(hint) => format!("nothing matched; hint: {hint}"),
        None => "nothing matched".to_owned(),
    })
}

fn query_for_anything() -> FindRequest {
    FindRequest { limit: Some(1), ..FindRequest::new(InformationModel::PatientRoot, QueryRetrieveLevel::Study) }
}

/// Finds out where the object of an answer lies.
pub(in crate::cli) fn locate(
    locator: Option<&mut Reader>,
    located_by: Option<usize>,
    answer: &mut FindAnswer,
) -> anyhow::Result<Option<Location>> {
    if let Some(location) = answer.location.take() {
        return Ok(Some(*location));
    }
    let (Some(locator), Some(at)) = (locator, located_by) else { return Ok(None) };
    let uid = answer.values.text(at);
    Ok(locator.locations(uid)?.into_iter().next())
}

/// The first place of an object whose file is still the one that was indexed. If there is none, it
/// is the first place of all: whoever opens it says what is wrong.
pub(in crate::cli) fn at_hand(
    reader: &mut Reader,
    sop_instance_uid: &str,
    first: Option<Location>,
) -> Result<Option<Location>, db::Error> {
    if first.as_ref().is_some_and(is_unchanged) {
        return Ok(first);
    }
    let next = reader.locations(sop_instance_uid)?.into_iter().find(is_unchanged);
    Ok(next.or(first))
}
