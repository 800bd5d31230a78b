//! Takes messages: what they want is done in one transaction, and then they are acknowledged.

use std::sync::Arc;

use arc_swap::ArcSwap;
use dicom_dictionary_std::tags;

use super::acknowledge::{AckCode, Acknowledgment};
use super::error::MessageError;
use super::map::Hl7Map;
use super::message::Message;
use super::orders::{Hl7Order, OrderAction, PatientCorrection, RefusedMessage, WantedChange, message_time, wanted};
use crate::db::{self, WorklistBy, WorklistProblem, WorklistSource, WorklistState, WorklistTables};
use crate::model::clock::Clock;
use crate::telemetry::metrics;
use crate::worklist::complete::{IntakeError, IntakeOptions, OrderFacts, complete, has_unreadable_start};
use crate::worklist::intake::{Intake, OF_PATIENT, PutOutcome, cancel, cancel_dropped, is_of_its_sender, item_of, put};
use crate::worklist::item::WorklistItem;
use crate::worklist::message_times::{MessageTimes, is_older};

/// Takes HL7 messages into the worklist.
#[derive(Debug)]
pub struct Hl7Intake {
    intake: Arc<Intake>,
    map: ArcSwap<Hl7Map>,
    clock: Clock,
}

/// Reason why a message was not taken.
#[derive(Debug, thiserror::Error)]
pub enum Hl7Error {
    /// It is no message.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// It wants something that there is not.
    #[error(transparent)]
    Refused(#[from] RefusedMessage),
    /// One of its orders cannot become an item.
    #[error(transparent)]
    Intake(#[from] IntakeError),
    /// The index did not take it.
    #[error("the index did not take it, so send it again")]
    Index(#[source] db::Error),
}

impl Hl7Error {
    /// AR for what should not be sent here, and AE for what has an error.
    fn code(&self) -> AckCode {
        match self {
            Self::Message(_) | Self::Refused(RefusedMessage::Type(_) | RefusedMessage::NoType) | Self::Index(_) => {
                AckCode::Reject
            }
            Self::Refused(_) | Self::Intake(_) => AckCode::Error,
        }
    }
}

impl Hl7Intake {
    /// Creates the way in for messages.
    #[must_use]
    pub fn new(intake: Arc<Intake>, map: Hl7Map, clock: Clock) -> Self {
        Self { intake, map: ArcSwap::from_pointee(map), clock }
    }

    /// Replaces the mapping, for the messages to come.
    pub fn replace_map(&self, map: Hl7Map) {
        self.map.store(Arc::new(map));
    }

    /// Takes a message, and returns its acknowledgment. The message is committed by then.
    ///
    /// `sender` names who sent it, for the list of problems. It blocks until the index has it.
    #[must_use]
    pub fn take(&self, bytes: &[u8], sender: &str) -> Acknowledgment {
        let now_ms = self.clock.now_ms();
        let map = self.map.load_full();
        let mut message = match Message::parse(bytes) {
            Ok(message) => message,
            Err(error) => {
                return self.refuse(Message::header_alone(bytes).as_ref(), &error.into(), sender, now_ms);
            }
        };
        message.put_patient_identifier_first(map.patient_authority());
        match self.do_wanted(&message, &map, now_ms) {
            Ok(()) => {
                metrics::HL7_ACCEPTED.increment();
                Acknowledgment::new(Some(&message), AckCode::Accept, "", now_ms)
            }
            Err(error) => self.refuse(Some(&message), &error, sender, now_ms),
        }
    }

    /// Refuses a message whose end never came, or that is too long.
    pub fn refuse_unfinished(&self, reason: &str, sender: &str) {
        metrics::HL7_REFUSED.increment();
        self.note(reason, sender, self.clock.now_ms());
    }

    fn refuse(&self, message: Option<&Message>, error: &Hl7Error, sender: &str, now_ms: i64) -> Acknowledgment {
        metrics::HL7_REFUSED.increment();
        if let Hl7Error::Index(source) = error {
            tracing::error!(error = %source, "the index did not take an HL7 message");
        } else {
            let id = message.map(|message| message.header(10, 1)).unwrap_or_default();
            let origin = if id.is_empty() { sender.to_owned() } else { format!("{sender}, message {id}") };
            self.note(&error.to_string(), &origin, now_ms);
        }
        Acknowledgment::new(message, error.code(), &error.to_string(), now_ms)
    }

    fn note(&self, reason: &str, origin: &str, now_ms: i64) {
        let origin: String = origin.chars().filter(|c| !c.is_control()).take(200).collect();
        let problem =
            WorklistProblem { source: WorklistSource::Hl7, origin, reason: reason.to_owned(), noted_ms: now_ms };
        if let Err(error) = self.intake.note_problem(problem) {
            tracing::error!(%error, "the index did not take the reason why an HL7 message was refused");
        }
    }

    fn do_wanted(&self, message: &Message, map: &Hl7Map, now_ms: i64) -> Result<(), Hl7Error> {
        let origin = format!("{} {}", message.header(3, 1), message.header(4, 1)).trim().to_owned();
        let facts = OrderFacts {
            source: WorklistSource::Hl7,
            origin,
            order_keys: Vec::new(),
            message_time: message_time(message),
            now_ms,
        };
        match wanted(message, map)? {
            WantedChange::Nothing => Ok(()),
            WantedChange::Orders(orders) => self.orders(orders, &facts),
            WantedChange::Patients(corrections) => {
                if corrections.iter().any(|correction| correction.item.text(tags::PATIENT_ID).is_empty()) {
                    return Err(IntakeError::NoPatient.into());
                }
                let options = self.intake.options();
                let work = move |tables: &mut dyn WorklistTables| {
                    corrections.iter().try_for_each(|correction| correct(tables, correction, &facts, &options))
                };
                self.intake.change(work).map_err(Hl7Error::Index)
            }
        }
    }

    /// Does what all orders want, or nothing.
    fn orders(&self, orders: Vec<Hl7Order>, facts: &OrderFacts) -> Result<(), Hl7Error> {
        let options = self.intake.options();
        let mut works = Vec::new();
        for Hl7Order { action, items, keys, replaces_steps } in orders {
            let facts = OrderFacts { order_keys: keys, ..facts.clone() };
            for item in items {
                works.push((step_work(item, action, facts.clone(), &options)?, replaces_steps));
            }
        }
        let facts = facts.clone();
        let all = move |tables: &mut dyn WorklistTables| {
            let (mut items, mut replacing) = (Vec::new(), Vec::new());
            for (work, replaces_steps) in works {
                let Some((outcome, item)) = work(tables)? else { continue };
                items.push(item);
                replacing.extend(Some(item).filter(|_| replaces_steps && outcome != PutOutcome::Outdated));
            }
            // A message may have several orders of one study.
            cancel_dropped(tables, &replacing, &items, &facts)
        };
        self.intake.change(all).map_err(Hl7Error::Index)
    }
}

/// Work on one step. It returns what became of its item, and its number, unless it cancels.
type StepWork = Box<dyn FnOnce(&mut dyn WorklistTables) -> Result<Option<(PutOutcome, i64)>, db::Error> + Send>;

/// Makes the work that an order wants for one of its steps.
fn step_work(
    item: WorklistItem,
    action: OrderAction,
    facts: OrderFacts,
    options: &Arc<IntakeOptions>,
) -> Result<StepWork, IntakeError> {
    let options = Arc::clone(options);
    let now_ms = facts.now_ms;
    let state = match action {
        OrderAction::Cancel(scope) => {
            return Ok(Box::new(move |tables| cancel(tables, (&facts, scope), &item, &options).map(|_| None)));
        }
        OrderAction::Put => None,
        OrderAction::Start => Some(WorklistState::Started),
        OrderAction::Complete => Some(WorklistState::Done),
    };
    let mut item = item;
    // What has begun or is over keeps the start that is known.
    if state.is_some() && has_unreadable_start(&item) {
        item.set_step(tags::SCHEDULED_PROCEDURE_STEP_START_DATE, "");
    }
    let draft = complete(item, facts, &options)?;
    Ok(Box::new(move |tables| {
        let (outcome, id) = put(tables, draft, &options)?;
        if let Some(state) = state {
            tables.set_state(id, state, now_ms)?;
        }
        Ok(Some((outcome, id)))
    }))
}

/// Corrects the open items of a patient. After a merge they are of the patient that stays.
fn correct(
    tables: &mut dyn WorklistTables,
    correction: &PatientCorrection,
    facts: &OrderFacts,
    options: &IntakeOptions,
) -> Result<(), db::Error> {
    let PatientCorrection { item, of } = correction;
    for row in tables.find(WorklistBy::OpenOfPatient(&of.id))? {
        let Some(mut before) = item_of(&row) else { continue };
        let (is_of_its_sender, known) = (is_of_its_sender(facts, &row), MessageTimes::of(&row.message_time));
        if is_of_its_sender && is_older(&facts.message_time, known.patient) {
            continue;
        }
        if !of.may_be_issued_by(before.text(tags::ISSUER_OF_PATIENT_ID)) {
            // Another issuer gave this patient the same number.
            continue;
        }
        for tag in OF_PATIENT {
            if !item.text(tag).is_empty() {
                before.set(tag, item.text(tag));
            }
        }
        let order_keys = if row.order_key.is_empty() { Vec::new() } else { vec![row.order_key.clone()] };
        let facts = OrderFacts {
            source: row.source,
            origin: row.origin.clone(),
            order_keys,
            message_time: if is_of_its_sender && !facts.message_time.is_empty() {
                known.with_patient(&facts.message_time)
            } else {
                row.message_time.clone()
            },
            now_ms: facts.now_ms,
        };
        // The item is complete, so only the values of the patient change.
        if let Ok(mut draft) = complete(before, facts, options) {
            let corrected = |tag: &dicom_core::Tag| OF_PATIENT.contains(tag) && !item.text(*tag).is_empty();
            let marked = row.generated.iter().filter_map(|name| crate::qr::keys::tag(name).ok());
            draft.generated = marked.filter(|tag| !corrected(tag)).collect();
            put(tables, draft, options)?;
        }
    }
    Ok(())
}
