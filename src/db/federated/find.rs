//! Merges the answers of several files.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use super::asked::{AskedState, FederatedFiles};
use super::heads::{StreamHead, first_of};
use super::lookups::EntityLookups;
use super::part::FederatedPart;
use super::patients::PatientMerge;
use super::question::FederatedQuestion;
use super::streams::{self, FileStream};
use crate::db::{Error, Interrupt};
use crate::model::find::{AnswerKey, FindAnswer, FindRequest};
use crate::model::level::QueryRetrieveLevel::Patient;

/// Answers a query from all files: see [`Search::find`](crate::db::Search::find).
pub(super) fn run<R: FederatedPart>(
    files: FederatedFiles<'_, R>,
    request: &FindRequest,
    question: &FederatedQuestion,
    on_answer: &mut dyn FnMut(FindAnswer) -> ControlFlow<()>,
) -> Result<u64, Error> {
    if request.limit == Some(0) {
        return Ok(0);
    }
    let FederatedFiles { parts, mut lookups, state } = files;
    let mut outlet = AnswerOutlet { request, question, state, skip: request.offset, answered: 0, on_answer };
    let mut merge = |streams: Vec<FileStream<FindAnswer>>| match request.level {
        Patient => PatientMerge::new(question, &mut lookups, streams).run(&mut |answer| outlet.give(answer)),
        _ => merge_studies(question, &mut lookups, streams, &mut outlet),
    };
    let ask = |part: &mut R, each: &mut dyn FnMut(FindAnswer) -> ControlFlow<()>| {
        part.find(&question.request, each).map(drop)
    };
    let few = match question.names_few {
        true => streams::few(parts, &ask)?,
        false => None,
    };
    match few {
        Some(streams) => merge(streams)?,
        None => {
            let interrupts: Vec<Interrupt> = parts.iter().map(R::interrupt).collect();
            streams::merged(parts, &interrupts, &ask, merge)?;
        }
    }
    Ok(outlet.answered)
}

/// Gives merged answers to the caller, from the offset up to the limit.
struct AnswerOutlet<'q> {
    request: &'q FindRequest,
    question: &'q FederatedQuestion,
    state: &'q AskedState,
    skip: u64,
    answered: u64,
    on_answer: &'q mut dyn FnMut(FindAnswer) -> ControlFlow<()>,
}

impl AnswerOutlet<'_> {
    fn give(&mut self, answer: FindAnswer) -> Result<ControlFlow<()>, Error> {
        if self.state.is_interrupted() {
            return Err(Error::Interrupted);
        }
        if !self.question.fits_late(&answer) {
            return Ok(ControlFlow::Continue(()));
        }
        if self.skip > 0 {
            self.skip -= 1;
            return Ok(ControlFlow::Continue(()));
        }
        self.answered += 1;
        let go_on = (self.on_answer)(self.question.finish(answer, self.request.wants_key));
        let is_last = self.request.limit == Some(self.answered);
        Ok(if is_last { ControlFlow::Break(()) } else { go_on })
    }
}

/// Merges studies, series or instances. The answers of one study come together.
fn merge_studies<R: FederatedPart>(
    question: &FederatedQuestion,
    lookups: &mut EntityLookups<'_, R>,
    streams: Vec<FileStream<FindAnswer>>,
    outlet: &mut AnswerOutlet<'_>,
) -> Result<(), Error> {
    let mut heads = streams.into_iter().map(StreamHead::new).collect::<Result<Vec<_>, _>>()?;
    let mut given: BTreeSet<String> = BTreeSet::new();
    while let Some((at, key)) = first_of(&heads) {
        let study = key.uids.first().cloned().unwrap_or_default();
        let is_of_study = |key: &AnswerKey| key.uids.first() == Some(&study);
        let Some(head) = heads.get_mut(at) else { break };
        let is_shared = lookups.shared.files_of(&study).is_some();
        let mut of_study = Vec::new();
        while let Some(answer) = head.take_if(is_of_study)? {
            if is_shared {
                of_study.push(answer);
            } else if give(question, lookups, answer, outlet)?.is_break() {
                return Ok(());
            }
        }
        if is_shared && given.insert(study.clone()) {
            for answer in lookups.of_shared_study(question, &study, at, of_study)? {
                if give(question, lookups, answer, outlet)?.is_break() {
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}

/// Gives an answer with the values that depend on all files of its patient.
fn give<R: FederatedPart>(
    question: &FederatedQuestion,
    lookups: &mut EntityLookups<'_, R>,
    mut answer: FindAnswer,
    outlet: &mut AnswerOutlet<'_>,
) -> Result<ControlFlow<()>, Error> {
    if !question.of_person.is_empty() {
        lookups.add_person(question, &mut answer)?;
    }
    outlet.give(answer)
}
