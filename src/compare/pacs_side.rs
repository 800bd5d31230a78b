//! A PACS as one of two archives, asked by C-FIND.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::Duration;

use dicom_core::{Tag, VR};
use dicom_dictionary_std::tags;

use super::{ArchiveSide, COMPARED, ComparedStudy, Error, StudyQuestion};
use crate::encoding::data_set::DataSetWriter;
use crate::encoding::padding::without_padding;
use crate::encoding::syntax::Encoding;
use crate::model::attribute::Attribute;
use crate::model::status::Status;
use crate::qr::Identifier;
use crate::ul::query_scu::QueryScu;
use crate::ul::requestor::ScuError;

/// Attempts to ask one question. A peer that restarts, or closes an idle association, gets another
/// one.
const ATTEMPTS: u32 = 3;

/// Pause before the second attempt. Each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(2);

/// Answers to one question that are kept. More are an error, so that memory has a bound.
const MAX_ANSWERS: usize = 1_000_000;

/// A PACS that is compared.
pub struct PacsSide {
    scu: QueryScu,
    /// Pause before each question.
    pause: Duration,
    /// The optional keys that the peer has answered with a value.
    given: BTreeSet<&'static str>,
}

/// Compared keys that a peer need not have at the level of studies (PS3.4 table C.6-5). Some peers
/// answer them without a value.
const OPTIONAL: [&str; 2] = ["PatientBirthDate", "PatientSex"];

impl PacsSide {
    /// Asks with this SCU. A pause before each question keeps the peer free for others.
    #[must_use]
    pub fn new(scu: QueryScu, pause: Duration) -> Self {
        Self { scu, pause, given: BTreeSet::new() }
    }

    /// Asks a question, and returns the answers.
    fn ask(&mut self, level: &str, keys: &[(Tag, VR, &str)]) -> Result<Vec<Identifier>, Error> {
        let mut keys: Vec<(Tag, VR, &str)> = keys.to_vec();
        keys.push((tags::QUERY_RETRIEVE_LEVEL, VR::CS, level));
        keys.sort_by_key(|(tag, ..)| *tag);
        let identifier = |encoding: Encoding| {
            let mut writer = DataSetWriter::new(encoding);
            for (tag, vr, value) in &keys {
                writer.text(*tag, *vr, value);
            }
            writer.finish()
        };
        let mut pause = FIRST_PAUSE;
        for attempt in 1..=ATTEMPTS {
            thread::sleep(self.pause);
            let mut answers = Vec::new();
            let mut problem = None;
            let status = self.scu.find(identifier, |bytes, encoding| {
                if answers.len() == MAX_ANSWERS {
                    problem = Some("too many answers".to_owned());
                    return;
                }
                match Identifier::decode(bytes, encoding, "") {
                    Ok(answer) => answers.push(answer),
                    Err(error) => problem = Some(error.to_string()),
                }
            });
            match status {
                Ok(_) if problem.is_some() => return Err(Error::Answer(problem.unwrap_or_default())),
                Ok(Status::SUCCESS) => return Ok(answers),
                // Part of the answers is no answer.
                Ok(status) => return Err(Error::Status(status)),
                Err(error)
                    if attempt == ATTEMPTS || matches!(error, ScuError::Rejected(_) | ScuError::NothingAccepted) =>
                {
                    return Err(error.into());
                }
                Err(_again) => {
                    thread::sleep(pause);
                    pause *= 2;
                }
            }
        }
        Err(Error::Query("no attempt was made".to_owned()))
    }
}

impl ArchiveSide for PacsSide {
    fn studies(&mut self, question: &StudyQuestion) -> Result<BTreeMap<String, ComparedStudy>, Error> {
        let (date, uid) = match question {
            StudyQuestion::Days(range) => (range.to_string(), String::new()),
            StudyQuestion::WithoutDate => return Ok(BTreeMap::new()),
            StudyQuestion::Uid(uid) => (String::new(), uid.clone()),
        };
        let compared = COMPARED.iter().filter_map(|keyword| Attribute::by_keyword(keyword));
        let mut keys: Vec<(Tag, VR, &str)> = compared
            .map(|attribute| {
                (attribute.tag, attribute.vr, if attribute.tag == tags::STUDY_DATE { date.as_str() } else { "" })
            })
            .collect();
        keys.push((tags::STUDY_INSTANCE_UID, VR::UI, &uid));
        keys.push((tags::NUMBER_OF_STUDY_RELATED_SERIES, VR::IS, ""));
        keys.push((tags::NUMBER_OF_STUDY_RELATED_INSTANCES, VR::IS, ""));
        let mut found = BTreeMap::new();
        let answers = self.ask("STUDY", &keys)?;
        let gives = |keyword: &&str| {
            let attribute = Attribute::by_keyword(keyword);
            attribute.is_some_and(|attribute| answers.iter().any(|answer| !text(answer, attribute.tag).is_empty()))
        };
        self.given.extend(OPTIONAL.into_iter().filter(gives));
        for answer in answers {
            let study = text(&answer, tags::STUDY_INSTANCE_UID);
            // A peer that ignores a key would fill the list with studies of other days.
            let is_asked = match question {
                StudyQuestion::Uid(uid) => study == *uid,
                StudyQuestion::Days(_) | StudyQuestion::WithoutDate => !study.is_empty(),
            };
            if !is_asked {
                continue;
            }
            let values = COMPARED.iter().filter_map(|keyword| {
                let value = without_padding(answer.text(Attribute::by_keyword(keyword)?.tag)?).to_owned();
                let is_said = !value.is_empty() || !OPTIONAL.contains(keyword) || self.given.contains(keyword);
                is_said.then_some((*keyword, value))
            });
            let counts = [tags::NUMBER_OF_STUDY_RELATED_SERIES, tags::NUMBER_OF_STUDY_RELATED_INSTANCES];
            let counts = counts.map(|tag| text(&answer, tag).parse().ok());
            found.insert(study, ComparedStudy { values: values.collect(), counts });
        }
        Ok(found)
    }

    fn series(&mut self, study: &str) -> Result<BTreeMap<String, Option<u64>>, Error> {
        let keys = [
            (tags::STUDY_INSTANCE_UID, VR::UI, study),
            (tags::SERIES_INSTANCE_UID, VR::UI, ""),
            (tags::NUMBER_OF_SERIES_RELATED_INSTANCES, VR::IS, ""),
        ];
        let answers = self.ask("SERIES", &keys)?;
        let series = answers.iter().map(|answer| {
            let count = text(answer, tags::NUMBER_OF_SERIES_RELATED_INSTANCES).parse().ok();
            (text(answer, tags::SERIES_INSTANCE_UID), count)
        });
        Ok(series.filter(|(uid, _)| !uid.is_empty()).collect())
    }

    fn instances(&mut self, study: &str, series: &str) -> Result<Vec<String>, Error> {
        let keys = [
            (tags::STUDY_INSTANCE_UID, VR::UI, study),
            (tags::SERIES_INSTANCE_UID, VR::UI, series),
            (tags::SOP_INSTANCE_UID, VR::UI, ""),
        ];
        let answers = self.ask("IMAGE", &keys)?;
        Ok(answers.iter().map(|answer| text(answer, tags::SOP_INSTANCE_UID)).filter(|uid| !uid.is_empty()).collect())
    }
}

fn text(answer: &Identifier, tag: Tag) -> String {
    without_padding(answer.text(tag).unwrap_or_default()).to_owned()
}
