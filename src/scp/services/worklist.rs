//! Modality Worklist (PS3.4 annex K), C-FIND. An Identifier becomes a question to the worklist, and
//! [`super::find_answers`] sends the answers.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dicom_dictionary_std::uids;
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tracing::{error, warn};

use super::audited;
use super::backlog::AnswerSpools;
use super::find_answers::{ArrivingFind, AskedFind, Outgoing, Question, response};
use super::incoming_identifier::ArrivingIdentifier;
use super::service::{ArrivedCommand, Begin, Boxed, DimseService, Session, sop_class_not_supported};
use crate::audit::Auditor;
use crate::db::{ReceivedFrom, WorklistAsked, WorklistRow, WorklistSearch};
use crate::dimse::command_set::CommandField;
use crate::dimse::message::{CFindRequest, DimseRequest};
use crate::model::clock::Clock;
use crate::model::matching::NameMatching;
use crate::model::status::Status;
use crate::qr::readers::Readers;
use crate::qr::{self, FindError, Identifier, QueryControl};
use crate::scp::node_context::NodeContext;
use crate::scp::service_class::{ListedSopClass, ServiceClass, SopClasses};
use crate::telemetry::metrics;
use crate::worklist::{Intake, WorklistOptions, WorklistQuery, WorklistView};

/// Items of one question of which is noted who asked. A longer list tells an operator nothing, and
/// would be written each time a careless device asks for everything.
const MOST_NOTED: usize = 10_000;

/// Interval at which it is written who asked. Larger: lists are behind. Smaller: more transactions.
const WRITE_ASKED_AFTER: Duration = Duration::from_secs(2);

/// Rows of one transaction of those.
const ASKED_ROWS: usize = 2000;

/// The worklist of a node.
#[derive(Debug)]
pub struct Worklist {
    readers: Readers,
    options: WorklistOptions,
    spools: Arc<AnswerSpools>,
    intake: Arc<Intake>,
    asked: AskedItems,
}

impl Worklist {
    /// Creates the service for this index. What it notes goes through `intake`.
    #[must_use]
    pub fn new(index: PathBuf, options: WorklistOptions, intake: Arc<Intake>) -> Self {
        let spools = Arc::new(AnswerSpools::beside(&index));
        let readers = Readers::new(index);
        Self { readers, options, spools, intake, asked: AskedItems::default() }
    }

    /// Leaves twice as many bytes free on the disk of the index as received objects do.
    #[must_use]
    pub fn with_min_free(mut self, min_free_bytes: u64) -> Self {
        self.spools = Arc::new(AnswerSpools::leaving(self.readers.index(), min_free_bytes));
        self
    }

    /// Returns the way into the worklist.
    pub(super) fn intake(&self) -> &Arc<Intake> {
        &self.intake
    }

    /// Writes who asked for what since the last call.
    fn write_asked(&self) {
        let asked = self.asked.take();
        for rows in asked.chunks(ASKED_ROWS) {
            let rows = rows.to_vec();
            if let Err(error) = self.intake.change(move |tables| tables.note_asked(&rows)) {
                // It is for the operator's eyes only.
                warn!(%error, "the index did not take who asked for the worklist");
                return;
            }
        }
    }
}

/// Peer that asked last for each item, until it is written.
#[derive(Debug, Default)]
struct AskedItems(Mutex<HashMap<i64, (Arc<str>, i64)>>);

impl AskedItems {
    fn note(&self, ids: &[i64], ae_title: &str, now_ms: i64) {
        let title: Arc<str> = ae_title.into();
        let mut items = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        items.extend(ids.iter().map(|id| (*id, (Arc::clone(&title), now_ms))));
    }

    fn take(&self) -> Vec<WorklistAsked> {
        let items = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let asked = |(item, (title, asked_ms)): (i64, (Arc<str>, i64))| WorklistAsked {
            item,
            ae_title: title.as_ref().to_owned(),
            asked_ms,
        };
        items.into_iter().map(asked).collect()
    }
}

pub(super) static WORKLIST: ServiceClass = ServiceClass {
    grant: "worklist",
    sop_classes: SopClasses::Listed(&[ListedSopClass::scp(uids::MODALITY_WORKLIST_INFORMATION_MODEL_FIND)]),
    returned_by: None,
    extended_negotiation: |requested| Some(negotiation_answer(requested)),
};

/// Answers the extended negotiation (PS3.4 K.5.1.2).
///
/// Bytes 1 and 2 "shall always be 1". Byte 3 is fuzzy matching of names. Byte 4, timezone query
/// adjustment, is not supported.
fn negotiation_answer(requested: &[u8]) -> Vec<u8> {
    let fuzzy = u8::from(requested.get(2) == Some(&1));
    let mut answer = vec![1, 1, fuzzy, 0];
    // "shall return a three byte field if offered a three byte field"
    answer.truncate(requested.len().max(3));
    answer
}

/// C-FIND of the worklist.
#[derive(Debug)]
pub(super) struct WorklistService(pub(super) Option<Arc<Worklist>>);

impl DimseService for WorklistService {
    fn class(&self) -> &'static ServiceClass {
        &WORKLIST
    }

    fn is_provided(&self) -> bool {
        self.0.is_some()
    }

    fn begin(&self, command: &ArrivedCommand<'_>, session: &Session) -> Option<Begin> {
        let DimseRequest::Find(request) = command.request else { return None };
        if *command.context.class != WORKLIST {
            return None;
        }
        let receiving = self.0.as_ref().and_then(|list| WorklistQuestion::begin(list, request, command, session));
        let field = CommandField::C_FIND_RQ;
        Some(match receiving {
            Some(receiving) if command.has_data_set => Begin::Receive(Box::new(receiving)),
            // PS3.4 K.4.1.3.1: without keys there are no matches.
            Some(_) => Begin::Respond(response(request, Status::SUCCESS)),
            None => Begin::Respond(sop_class_not_supported(field, request.message_id, &request.affected_sop_class_uid)),
        })
    }

    fn resume<'a>(&'a self, node: &'a NodeContext) -> Boxed<'a, ()> {
        let Some(worklist) = self.0.clone() else { return Box::pin(async {}) };
        let shutdown = node.shutdown.clone();
        Box::pin(async move {
            tokio::spawn(async move {
                while !shutdown.is_cancelled() {
                    tokio::select! {
                        () = sleep(WRITE_ASKED_AFTER) => {}
                        () = shutdown.cancelled() => {}
                    }
                    let worklist = Arc::clone(&worklist);
                    if spawn_blocking(move || worklist.write_asked()).await.is_err() {
                        error!("a defect of dcmdex ended the notes on who asked for the worklist");
                        return;
                    }
                }
            });
        })
    }
}

/// A query of the worklist.
struct WorklistQuestion {
    worklist: Arc<Worklist>,
    names: NameMatching,
    view: WorklistView,
    calling_ae_title: String,
    /// Auditor that learns of it, and the peer that asks.
    audit: (Auditor, Arc<ReceivedFrom>),
}

impl WorklistQuestion {
    /// Begins with the command. `None` if its SOP Class is not that of the context.
    fn begin(
        worklist: &Arc<Worklist>,
        request: &CFindRequest,
        command: &ArrivedCommand<'_>,
        session: &Session,
    ) -> Option<ArrivingFind<Self>> {
        let context = command.context;
        let identifier = ArrivingIdentifier::begin(&request.affected_sop_class_uid, context, &session.memory)?;
        let agreed = session.agreement.extended(&context.abstract_syntax);
        let is_fuzzy = agreed.and_then(|bytes| bytes.get(2)) == Some(&1);
        let names = if is_fuzzy { NameMatching::Fuzzy } else { worklist.options.names };
        let calling_ae_title = session.agreement.calling_ae_title.to_string();
        let view = view_of(session, &calling_ae_title);
        let worklist = Arc::clone(worklist);
        let audit = (session.node.audit.clone(), Arc::clone(&session.sender));
        let asked = AskedFind::new(command.context_id, request, &worklist.readers, &worklist.spools);
        let question = Self { worklist, names, view, calling_ae_title, audit };
        Some(ArrivingFind { asked, identifier, question })
    }
}

/// Returns what the table of peers lets this peer see.
fn view_of(session: &Session, calling_ae_title: &str) -> WorklistView {
    let peers = session.node.peers.current();
    let title = calling_ae_title.parse().ok();
    let grant = title.and_then(|title| peers.table.as_ref()?.get(&title));
    grant.map_or_else(WorklistView::default, |grant| WorklistView {
        station: grant.worklist.own_station_only.then(|| calling_ae_title.to_owned()),
        character_set: grant.worklist.character_set.clone(),
    })
}

impl Question for WorklistQuestion {
    fn ask(
        self,
        identifier: ArrivingIdentifier,
        control: &QueryControl,
        outgoing: &mut Outgoing,
    ) -> Result<(), FindError> {
        let Self { worklist, names, view, calling_ae_title, audit } = self;
        let encoding = identifier.encoding;
        let bytes = identifier.finish()?;
        let assumed = &worklist.options.assumed_character_set;
        let identifier = Identifier::decode(bytes.as_slice(), encoding, assumed)?;
        audited::note_query(&audit, outgoing.request(), &identifier, (bytes.as_slice(), encoding));
        let now_ms = Clock::System.now_ms();
        let query = WorklistQuery::parse(&identifier, names, view, &worklist.options, now_ms)?;
        if query.has_no_keys() {
            return Ok(());
        }
        outgoing.set_status(query.pending_status());
        let mut reader = worklist.readers.take()?;
        let stop = control.begin(&reader);
        let mut writer = query.writer(encoding);
        let mut noted = Vec::new();
        let ask = |each: &mut dyn FnMut(_) -> ControlFlow<()>| {
            reader.worklist(&query.request, &mut |row: WorklistRow| match query.answer(&row) {
                Some(answer) => each(answer),
                None => ControlFlow::Continue(()),
            })
        };
        let answered = qr::run_by(stop, query.limit, ask, |answer| {
            if noted.len() < MOST_NOTED {
                noted.push(answer.id);
            }
            outgoing.put(writer.write(&answer.item, &answer.character_set))
        });
        // A reader that failed may be broken. The next question opens another.
        if !matches!(answered, Err(FindError::Index(_))) {
            worklist.readers.give_back(reader);
        }
        worklist.asked.note(&noted, &calling_ae_title, now_ms);
        let count = answered?;
        metrics::WORKLIST_ANSWERS.add(count);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // PS3.4 K.5.1.
    #[test]
    fn extended_negotiation_answers_as_many_bytes_as_were_offered() {
        for (requested, answer) in [
            ([1, 1, 1].as_slice(), [1, 1, 1].as_slice()),
            (&[1, 1, 0], &[1, 1, 0]),
            (&[1, 1, 1, 1], &[1, 1, 1, 0]),
            (&[0, 0, 1, 1, 1, 1, 1], &[1, 1, 1, 0]),
            (&[], &[1, 1, 0]),
        ] {
            assert_eq!(negotiation_answer(requested), answer, "{requested:?}");
        }
    }
}
