//! Query/Retrieve, C-FIND (PS3.4 annex C): an Identifier goes to the index on a thread of its own, answers come back
//! through a channel that holds little, and are sent as they come.
//!
//! The thread hands over what it has whenever the channel is free, and gathers answers while it is not: the first answer
//! goes out at once, a fast query fills whole writes, and a peer that reads slowly holds the query up instead of filling
//! our memory.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::dimse::command_set::CommandField;
use crate::dimse::message::{DataSetPresence, FindRequest};
use crate::dimse::pdata::put_message;
use crate::dimse::{Response, Status};
use crate::model::level::InformationModel;
use crate::qr::{
    self, Encoding, FindError, Identifier, IdentifierError, MAX_IDENTIFIER_LENGTH, NegotiatedOptions, Query, Reader,
    ResponseWriter, Stop,
};
use crate::scp::negotiation::{Agreement, PresentationContext};
use crate::scp::sop_class::Service;
use crate::telemetry::metrics;

/// Readers of the index that are kept open between queries; more are opened and closed as they are needed. Each keeps up to
/// 8 MiB of pages.
const IDLE_READERS: usize = 8;

/// Bytes of answers that are gathered before the query waits for the peer. With what is being sent, an association holds
/// three times this and an answer.
const GATHERED_BYTES: usize = 64 * 1024;

/// What answering queries needs.
#[derive(Debug)]
pub struct Find {
    index: PathBuf,
    options: qr::Options,
    idle: Mutex<Vec<Reader>>,
}

impl Find {
    /// Answers from this index.
    #[must_use]
    pub fn new(index: PathBuf, options: qr::Options) -> Self {
        Self { index, options, idle: Mutex::new(Vec::new()) }
    }

    fn reader(&self) -> Result<Reader, FindError> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        idle.map_or_else(|| Reader::open(&self.index).map_err(FindError::Index), Ok)
    }

    fn give_back(&self, reader: Reader) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_READERS {
            idle.push(reader);
        }
    }
}

/// An Identifier that is arriving.
pub(in crate::scp) struct Receiving {
    context_id: u8,
    request: FindRequest,
    model: InformationModel,
    encoding: Encoding,
    negotiated: NegotiatedOptions,
    identifier: Result<Vec<u8>, IdentifierError>,
}

impl Receiving {
    /// Begins with the command; `None` when its SOP Class is not that of the context.
    pub(in crate::scp) fn begin(
        context_id: u8,
        request: &FindRequest,
        context: &PresentationContext,
        agreement: &Agreement,
    ) -> Option<Self> {
        let Service::Find(model) = context.service else { return None };
        if request.affected_sop_class_uid != context.abstract_syntax {
            return None;
        }
        let agreed = agreement.extended.iter().find(|(known, _)| *known == context.service);
        Some(Self {
            context_id,
            request: request.clone(),
            model,
            encoding: Encoding::of_uid(&context.transfer_syntax)?,
            negotiated: agreed.map(|(_, bytes)| NegotiatedOptions::of_bytes(bytes)).unwrap_or_default(),
            identifier: Ok(Vec::new()),
        })
    }

    /// Takes the next fragment of the Identifier. What is longer than an Identifier may be is not kept.
    pub(in crate::scp) fn accept(&mut self, fragment: &[u8]) {
        if let Ok(bytes) = &mut self.identifier {
            if bytes.len() + fragment.len() > MAX_IDENTIFIER_LENGTH {
                self.identifier = Err(IdentifierError::TooLong);
            } else {
                bytes.extend_from_slice(fragment);
            }
        }
    }

    /// The Identifier is complete: starts the query.
    pub(in crate::scp) fn start(self, find: &Arc<Find>, peer_max_length: u32) -> Running {
        let (sender, answers) = mpsc::channel(1);
        let control = Arc::new(Control::default());
        let context_id = self.context_id;
        let request = self.request.clone();
        let outgoing = Outgoing {
            sender,
            gathered: Answers::default(),
            context_id,
            request: self.request.clone(),
            status: Status::PENDING,
            peer_max_length,
        };
        let (find, inside) = (Arc::clone(find), Arc::clone(&control));
        let query = spawn_blocking(move || self.answer(&find, &inside, outgoing));
        Running { context_id, request, answers, control, query, begun: Instant::now() }
    }

    /// The query, from the Identifier to its last answer. On a thread that may block.
    fn answer(self, find: &Find, control: &Control, mut outgoing: Outgoing) -> Result<(), FindError> {
        let bytes = self.identifier?;
        let identifier = Identifier::decode_with(
            &bytes,
            self.encoding,
            &find.options.assumed_character_set,
            &find.options.declared,
        )?;
        let query = qr::parse(self.model, &identifier, self.negotiated, &find.options)?;
        outgoing.status = Status(query.pending_status());
        let mut reader = find.reader()?;
        let answered = run(&mut reader, &query, control, self.encoding, &find.options, &mut outgoing);
        // A reader that failed may have a reason to; the next query opens another.
        if !matches!(answered, Err(FindError::Index(_))) {
            find.give_back(reader);
        }
        // What is still gathered belongs before the last response, also when that is a failure.
        match outgoing.flush() {
            ControlFlow::Continue(()) => answered,
            ControlFlow::Break(()) => Err(FindError::Cancelled),
        }
    }
}

fn run(
    reader: &mut Reader,
    query: &Query,
    control: &Control,
    encoding: Encoding,
    options: &qr::Options,
    outgoing: &mut Outgoing,
) -> Result<(), FindError> {
    let stop = control.begin(reader);
    let mut writer = ResponseWriter::new(query, encoding, &options.retrieve_ae_title);
    qr::run(reader, query, stop, |answer| outgoing.put(writer.write(&answer)))?;
    Ok(())
}

/// Answers as they are sent.
#[derive(Debug, Default)]
pub(in crate::scp) struct Answers {
    /// P-DATA-TF PDUs.
    pub(in crate::scp) bytes: Vec<u8>,
    /// How many answers.
    pub(in crate::scp) count: u64,
}

/// The query's side of the channel.
struct Outgoing {
    sender: mpsc::Sender<Answers>,
    gathered: Answers,
    context_id: u8,
    request: FindRequest,
    status: Status,
    peer_max_length: u32,
}

impl Outgoing {
    fn put(&mut self, identifier: &[u8]) -> ControlFlow<()> {
        let command = response(&self.request, self.status).command_set(DataSetPresence::Present);
        let bytes = &mut self.gathered.bytes;
        put_message(bytes, self.context_id, &command, Some(identifier), self.peer_max_length);
        self.gathered.count += 1;
        if self.gathered.bytes.len() >= GATHERED_BYTES {
            return self.flush();
        }
        match self.sender.try_reserve() {
            Ok(permit) => permit.send(std::mem::take(&mut self.gathered)),
            Err(mpsc::error::TrySendError::Full(())) => {}
            Err(mpsc::error::TrySendError::Closed(())) => return ControlFlow::Break(()),
        }
        ControlFlow::Continue(())
    }

    /// Hands over what is gathered, when there is room.
    fn flush(&mut self) -> ControlFlow<()> {
        if self.gathered.count == 0 {
            return ControlFlow::Continue(());
        }
        match self.sender.blocking_send(std::mem::take(&mut self.gathered)) {
            Ok(()) => ControlFlow::Continue(()),
            // The association has ended.
            Err(_) => ControlFlow::Break(()),
        }
    }
}

/// How a query is stopped from outside, from its first moment on.
#[derive(Default)]
struct Control {
    stop: OnceLock<Stop>,
    /// The first order; later ones change nothing.
    order: OnceLock<Order>,
}

#[derive(Clone, Copy)]
enum Order {
    Cancel,
    TimeOut,
}

impl Control {
    /// The query begins; what was ordered before holds.
    fn begin(&self, reader: &Reader) -> &Stop {
        let stop = self.stop.get_or_init(|| Stop::new(reader));
        self.repeat();
        stop
    }

    fn stop(&self, order: Order) {
        // Kept, if it was the first, before looking for the query; the query is there before it looks for an order.
        self.order.get_or_init(|| order);
        self.repeat();
    }

    fn repeat(&self) {
        match (self.stop.get(), self.order.get()) {
            (Some(stop), Some(Order::Cancel)) => stop.cancel(),
            (Some(stop), Some(Order::TimeOut)) => stop.time_out(),
            (None, _) | (_, None) => {}
        }
    }
}

/// A query that is being answered. Dropped before its end, it is stopped.
pub(in crate::scp) struct Running {
    pub(in crate::scp) context_id: u8,
    request: FindRequest,
    /// Closed when the query has ended.
    pub(in crate::scp) answers: mpsc::Receiver<Answers>,
    control: Arc<Control>,
    query: JoinHandle<Result<(), FindError>>,
    begun: Instant,
}

impl Running {
    /// The Message ID of the C-FIND-RQ, by which a C-CANCEL-RQ names it.
    pub(in crate::scp) fn message_id(&self) -> u16 {
        self.request.message_id
    }

    /// Stops the query, which then ends with [`FindError::Cancelled`]. SQLite may not hear it the first time: to be said
    /// again until the query has ended.
    pub(in crate::scp) fn cancel(&self) {
        self.control.stop(Order::Cancel);
    }

    /// Stops the query, which then ends with [`FindError::TimeLimit`]. Otherwise as [`Self::cancel`].
    pub(in crate::scp) fn time_out(&self) {
        self.control.stop(Order::TimeOut);
    }

    /// Says again what was said first.
    pub(in crate::scp) fn stop_again(&self) {
        self.control.repeat();
    }

    /// Waits for the end of the query; its last response, and the failure if it is ours.
    pub(in crate::scp) async fn finish(mut self) -> (Response, Option<FindError>) {
        let ended = (&mut self.query).await;
        metrics::FIND_SECONDS.observe(self.begun.elapsed());
        let Ok(ended) = ended else {
            metrics::FIND_FAILED.increment();
            let response = response(&self.request, Status::UNABLE_TO_PROCESS).with_comment("the query failed");
            return (response, None);
        };
        match ended {
            Ok(()) => {
                metrics::FIND_ANSWERED.increment();
                (response(&self.request, Status::SUCCESS), None)
            }
            Err(error) => {
                match &error {
                    FindError::Cancelled => metrics::FIND_CANCELLED.increment(),
                    FindError::Index(_) => metrics::FIND_FAILED.increment(),
                    _ => metrics::FIND_REFUSED.increment(),
                }
                let failure = error.failure();
                let response = response(&self.request, Status(failure.status))
                    .with_comment(&failure.comment)
                    .with_offending_elements(&failure.offending_elements);
                let ours = matches!(error, FindError::Index(_));
                (response, ours.then_some(error))
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.cancel();
    }
}

/// The refusal of a C-FIND-RQ without a data set: there is no Query/Retrieve Level in it.
pub(in crate::scp) fn without_identifier(request: &FindRequest) -> Response {
    let failure = FindError::MissingLevel.failure();
    response(request, Status(failure.status))
        .with_comment("C-FIND-RQ without an Identifier")
        .with_offending_elements(&failure.offending_elements)
}

/// A C-FIND-RSP (PS3.7 table 9.3-4).
pub(in crate::scp) fn response(request: &FindRequest, status: Status) -> Response {
    Response::new(CommandField::C_FIND_RQ, request.message_id, status)
        .with_sop_class(Some(&request.affected_sop_class_uid))
}
