//! Digest of all answers of index files, which is compared before and after a split or merge.

use std::ops::ControlFlow;
use std::path::PathBuf;

use crate::db::open::Reader;
use crate::db::{EntryHash, Error, Search as _, SetSum};
use crate::model::attribute::{ATTRIBUTES, AttributeId};
use crate::model::find::{FindAnswer, FindRequest};
use crate::model::level::{InformationModel, QueryRetrieveLevel};

/// All answers of an index, at all levels.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct AllAnswers([SetSum; QueryRetrieveLevel::ALL.len()]);

impl AllAnswers {
    /// Asks copies of index files, which answer as one, for all that they have.
    pub(super) fn of(files: &[PathBuf]) -> Result<Self, Error> {
        let mut reader = Reader::open_copies(files)?;
        let mut all = Self::default();
        for (sum, level) in all.0.iter_mut().zip(QueryRetrieveLevel::ALL) {
            let above = |level_of: QueryRetrieveLevel| level_of <= level;
            let attributes: Vec<AttributeId> =
                ATTRIBUTES.iter().filter(|attribute| above(attribute.level)).map(|attribute| attribute.id).collect();
            let request = FindRequest {
                wants_location: level == QueryRetrieveLevel::Image,
                ..FindRequest::new(InformationModel::PatientRoot, level).returning(&attributes)
            };
            reader.find(&request, |answer| {
                sum.add(&hash_of(&answer));
                ControlFlow::Continue(())
            })?;
        }
        Ok(all)
    }
}

fn hash_of(answer: &FindAnswer) -> EntryHash {
    let values = answer.values.iter().fold(EntryHash::of("answer"), |hash, value| hash.text(value));
    match &answer.location {
        Some(location) => values.text(&format!("{location:?}")),
        None => values,
    }
}
