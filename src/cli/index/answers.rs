//! What index files answer to everything that can be asked, as numbers that are compared.

use std::ops::ControlFlow;
use std::path::PathBuf;

use xxhash_rust::xxh3::Xxh3;

use crate::db::open::Reader;
use crate::db::{Error, Search as _};
use crate::model::attribute::{ATTRIBUTES, AttributeId};
use crate::model::find::{FindAnswer, FindRequest};
use crate::model::level::{InformationModel, QueryRetrieveLevel};

/// The answers of a level: how many there are, and the sum of their hashes. It does not depend on
/// their order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct AnswerSum {
    answers: u64,
    hashes: u128,
}

/// All answers of an index, at all levels.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct AllAnswers([AnswerSum; QueryRetrieveLevel::ALL.len()]);

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
            sum.answers = reader.find(&request, |answer| {
                sum.hashes = sum.hashes.wrapping_add(hash_of(&answer));
                ControlFlow::Continue(())
            })?;
        }
        Ok(all)
    }
}

fn hash_of(answer: &FindAnswer) -> u128 {
    let mut hash = Xxh3::new();
    for value in &answer.values {
        hash.update(value.as_bytes());
        hash.update(b"\0");
    }
    if let Some(location) = &answer.location {
        hash.update(format!("{location:?}").as_bytes());
    }
    hash.digest128()
}
