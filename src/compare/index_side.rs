//! An index as one of two archives.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use super::{ArchiveSide, COMPARED, ComparedStudy, Error, StudyQuestion};
use crate::db::Search;
use crate::model::datetime;
use crate::model::find::FindAnswer;
use crate::model::level::{InformationModel, QueryRetrieveLevel};
use crate::qr::{self, NegotiatedOptions};

/// An index that is compared.
pub struct IndexSide<S>(pub S);

impl<S: Search> IndexSide<S> {
    /// Asks with these keys, and gives the values of `columns` of each answer.
    fn find(
        &mut self,
        level: QueryRetrieveLevel,
        keys: &[&str],
        columns: &[&str],
        mut on_row: impl FnMut(Vec<String>),
    ) -> Result<(), Error> {
        let wanted = keys.iter().chain(columns).copied();
        let identifier = qr::keys::identifier(level, wanted).map_err(|error| Error::Query(error.to_string()))?;
        let negotiated = NegotiatedOptions { relational_queries: true, ..NegotiatedOptions::default() };
        let query = qr::parse(InformationModel::StudyRoot, &identifier, negotiated, &qr::Options::default());
        let query = query.map_err(|error| Error::Query(error.to_string()))?;
        let places: Vec<Option<usize>> = columns
            .iter()
            .map(|name| query.request.return_keys.iter().position(|key| key.attribute.attribute().keyword == *name))
            .collect();
        self.0.find(&query.request, |answer: FindAnswer| {
            let value = |at: &Option<usize>| at.map(|at| answer.values.text(at).to_owned()).unwrap_or_default();
            on_row(places.iter().map(value).collect());
            ControlFlow::Continue(())
        })?;
        Ok(())
    }
}

impl<S: Search> ArchiveSide for IndexSide<S> {
    fn studies(&mut self, question: &StudyQuestion) -> Result<BTreeMap<String, ComparedStudy>, Error> {
        let key = match question {
            StudyQuestion::Days(range) => format!("StudyDate={range}"),
            // PS3.4 C.2.2.2.7 has no empty value matching for dates, so all studies are looked at.
            StudyQuestion::WithoutDate => "StudyDate".to_owned(),
            StudyQuestion::Uid(uid) => format!("StudyInstanceUID={uid}"),
        };
        let counts = ["NumberOfStudyRelatedSeries", "NumberOfStudyRelatedInstances"];
        let columns: Vec<&str> = ["StudyInstanceUID"].iter().chain(COMPARED).chain(&counts).copied().collect();
        let mut found = BTreeMap::new();
        self.find(QueryRetrieveLevel::Study, &[&key], &columns, |row| {
            let mut row = row.into_iter();
            let uid = row.next().unwrap_or_default();
            let values: BTreeMap<&'static str, String> =
                COMPARED.iter().copied().zip(row.by_ref().take(COMPARED.len())).collect();
            let mut count = || row.next().and_then(|count| count.parse().ok());
            let counts = [count(), count()];
            let has_day = values.get("StudyDate").is_some_and(|date| datetime::one_day(date).is_some());
            let is_asked = match question {
                // A study with several dates would be found in the range of each.
                StudyQuestion::Days(_) => has_day,
                StudyQuestion::WithoutDate => !has_day,
                StudyQuestion::Uid(_) => true,
            };
            if is_asked {
                found.insert(uid, ComparedStudy { values, counts });
            }
        })?;
        Ok(found)
    }

    fn series(&mut self, study: &str) -> Result<BTreeMap<String, Option<u64>>, Error> {
        let mut found = BTreeMap::new();
        let key = format!("StudyInstanceUID={study}");
        let columns = ["SeriesInstanceUID", "NumberOfSeriesRelatedInstances"];
        self.find(QueryRetrieveLevel::Series, &[&key], &columns, |row| {
            if let [uid, count] = row.as_slice() {
                found.insert(uid.clone(), count.parse().ok());
            }
        })?;
        Ok(found)
    }

    fn instances(&mut self, study: &str, series: &str) -> Result<Vec<String>, Error> {
        let mut found = Vec::new();
        let keys = [format!("StudyInstanceUID={study}"), format!("SeriesInstanceUID={series}")];
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        self.find(QueryRetrieveLevel::Image, &keys, &["SOPInstanceUID"], |row| found.extend(row))?;
        Ok(found)
    }
}
