//! Merges the patients of several files.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use super::combine::add_declared;
use super::heads::{StreamHead, first_of};
use super::lookups::{EntityLookups, add_of_person};
use super::part::FederatedPart;
use super::question::FederatedQuestion;
use super::streams::FileStream;
use crate::db::{Error, rules};
use crate::model::attribute::AttributeId::IssuerOfPatientID;
use crate::model::find::{AnswerKey, AnswerOrder, FindAnswer};

/// Merges PATIENT answers. All answers with one Patient ID come up together.
pub(super) struct PatientMerge<'q, 'f, R> {
    question: &'q FederatedQuestion,
    lookups: &'q mut EntityLookups<'f, R>,
    streams: Vec<FileStream<FindAnswer>>,
}

impl<'q, 'f, R: FederatedPart> PatientMerge<'q, 'f, R> {
    pub(super) fn new(
        question: &'q FederatedQuestion,
        lookups: &'q mut EntityLookups<'f, R>,
        streams: Vec<FileStream<FindAnswer>>,
    ) -> Self {
        Self { question, lookups, streams }
    }

    /// Calls `on_answer` with each patient, in order.
    pub(super) fn run(
        mut self,
        on_answer: &mut dyn FnMut(FindAnswer) -> Result<ControlFlow<()>, Error>,
    ) -> Result<(), Error> {
        let mut heads =
            std::mem::take(&mut self.streams).into_iter().map(StreamHead::new).collect::<Result<Vec<_>, _>>()?;
        while let Some((_, key)) = first_of(&heads) {
            let Some((patient_id, identity)) = person_of(key).map(|(id, own)| (id.to_owned(), own.to_owned())) else {
                break;
            };
            let is_same = |key: &AnswerKey| person_of(key) == Some((&*patient_id, &*identity));
            let mut same = Vec::new();
            for head in &mut heads {
                while let Some(answer) = head.take_if(is_same)? {
                    same.push(answer);
                }
            }
            for (issuer, answers) in self.by_issuer(&patient_id, &identity, same)? {
                let person = (patient_id.clone(), identity.clone(), issuer);
                if let Some(answer) = self.merge(&person, answers)?
                    && on_answer(answer)?.is_break()
                {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Parts answers with one Patient ID by the issuer that they mean.
    fn by_issuer(
        &mut self,
        patient_id: &str,
        identity: &str,
        answers: Vec<FindAnswer>,
    ) -> Result<BTreeMap<String, Vec<FindAnswer>>, Error> {
        let issuer =
            |answer: &FindAnswer| rules::value_of(&self.question.description(answer), IssuerOfPatientID).to_owned();
        let is_mixed = answers.iter().any(|one| issuer(one).is_empty());
        let is_mixed = is_mixed && answers.iter().any(|one| !issuer(one).is_empty());
        let first = if is_mixed { self.lookups.first_issuer(patient_id, identity)? } else { String::new() };
        let mut by_issuer: BTreeMap<String, Vec<FindAnswer>> = BTreeMap::new();
        for answer in answers {
            let own = issuer(&answer);
            by_issuer.entry(if own.is_empty() { first.clone() } else { own }).or_default().push(answer);
        }
        Ok(by_issuer)
    }

    /// One answer of those that files give for a patient: the first by
    /// [`rules::compare_descriptions`], with the values that depend on all files.
    fn merge(
        &mut self,
        person: &(String, String, String),
        answers: Vec<FindAnswer>,
    ) -> Result<Option<FindAnswer>, Error> {
        let question = self.question;
        // If one file alone answers to its ID, no study of the patient is in another one.
        let may_be_shared = !self.lookups.shared.is_empty() && (question.narrows_patients || answers.len() > 1);
        let mut totals = vec![String::new(); question.of_person.len()];
        for answer in &answers {
            for ((at, id), total) in question.of_person.iter().zip(&mut totals) {
                add_of_person(*id, total, answer.values.text(*at));
            }
        }
        if !question.of_person.is_empty() && (question.narrows_patients || !self.lookups.shared.is_empty()) {
            let ids: Vec<_> = question.of_person.iter().map(|(_, id)| *id).collect();
            let known = answers.first().map(|answer| question.description(answer)).unwrap_or_default();
            totals = self.lookups.of_person(person, &known, &ids)?;
        }
        let mut best: Option<FindAnswer> = None;
        for mut answer in answers {
            if let Some(known) = &mut best {
                let order = rules::compare_descriptions(&question.description(&answer), &question.description(known));
                if order.is_lt() {
                    std::mem::swap(known, &mut answer);
                }
                add_declared(question, known, &answer);
            } else {
                best = Some(answer);
            }
        }
        if let Some(best) = &mut best {
            if may_be_shared {
                let known = question.description(best);
                if let Some(description) = self.lookups.description_of(question, person, &known)? {
                    question.set_patient(best, &description);
                }
            }
            for ((at, _), total) in question.of_person.iter().zip(totals) {
                best.values.set(*at, &total);
            }
        }
        Ok(best)
    }
}

/// Patient ID and identity of an answer.
fn person_of(key: &AnswerKey) -> Option<(&str, &str)> {
    match &key.order {
        AnswerOrder::Patient { patient_id, identity, .. } => Some((patient_id, identity)),
        AnswerOrder::Study { .. } => None,
    }
}
