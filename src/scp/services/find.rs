//! Query/Retrieve, C-FIND (PS3.4 annex C): an Identifier goes to the index on a thread of its own, answers come back
//! through a channel that holds little, and are sent as they come.
//!
//! The thread hands over what it has whenever the channel is free, and gathers answers while it is not: the first answer
//! goes out at once, and a fast query fills whole writes. A peer that reads slowly holds the query up instead of filling our
//! memory; but a query that waits keeps the write-ahead log of the index from being copied back, so after a while the
//! answers go to a file of their own, and the query goes on to its end.

use std::collections::VecDeque;
use std::io;
use std::ops::ControlFlow;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;
use tracing::{debug, warn};

use super::arriving::ArrivingIdentifier;
use super::readers::Readers;
use crate::dimse::command_set::CommandField;
use crate::dimse::message::{DataSetPresence, FindRequest};
use crate::dimse::pdata::put_message;
use crate::dimse::{Response, Status};
use crate::model::level::InformationModel;
use crate::qr::{self, Encoding, FindError, Identifier, NegotiatedOptions, Query, Reader, ResponseWriter, Stop};
use crate::scp::negotiation::{Agreement, PresentationContext};
use crate::scp::shares::PeerMemory;
use crate::scp::sop_class::Service;
use crate::store::{Spool, SpoolRoom};
use crate::telemetry::metrics;

/// Bytes of answers that are gathered before the query waits for the peer. With what is being sent, an association holds
/// three times this and an answer.
const GATHERED_BYTES: usize = 64 * 1024;

/// A query that has so many answers probably has many more: it lets the thread that sends them have the processor, which
/// would otherwise be the query's for its next milliseconds. Fewer go out with the last response, in one piece.
const MANY_ANSWERS: u64 = 8;

/// How long a query waits for its peer, all in all, before its answers go to a file. Shorter writes files for peers that
/// are just about as fast as the index, longer lets the write-ahead log grow while others write.
const PATIENCE_WITH_PEER: Duration = Duration::from_secs(1);

/// How often a query that waits for its turn looks whether it is still wanted.
const LOOK_FOR_ORDERS: Duration = Duration::from_millis(20);

/// Bytes of answers that wait in files, those of all queries together, beside the index. A million answers of a study are some
/// 300 MB. Where this is used up, or the disk is full, queries wait for their peers.
const SPOOLED_BYTES: u64 = 1 << 30;

/// What answering queries needs.
#[derive(Debug)]
pub struct Find {
    readers: Readers,
    options: qr::Options,
    spool_room: Arc<SpoolRoom>,
}

impl Find {
    /// Answers from this index.
    #[must_use]
    pub fn new(index: PathBuf, options: qr::Options) -> Self {
        Self { readers: Readers::new(index), options, spool_room: SpoolRoom::new(SPOOLED_BYTES) }
    }
}

/// An Identifier that is arriving.
pub(in crate::scp) struct Receiving {
    context_id: u8,
    request: FindRequest,
    model: InformationModel,
    negotiated: NegotiatedOptions,
    identifier: ArrivingIdentifier,
}

impl Receiving {
    /// Begins with the command; `None` when its SOP Class is not that of the context.
    pub(in crate::scp) fn begin(
        context_id: u8,
        request: &FindRequest,
        context: &PresentationContext,
        agreement: &Agreement,
        memory: &PeerMemory,
    ) -> Option<Self> {
        let Service::Find(model) = context.service else { return None };
        let identifier = ArrivingIdentifier::begin(&request.affected_sop_class_uid, context, memory)?;
        let negotiated = agreement.extended(context.service).map(NegotiatedOptions::of_bytes).unwrap_or_default();
        Some(Self { context_id, request: request.clone(), model, negotiated, identifier })
    }

    /// Takes the next fragment of the Identifier.
    pub(in crate::scp) fn accept(&mut self, fragment: &[u8]) {
        self.identifier.accept(fragment);
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
            waiting: Waiting {
                patience: PATIENCE_WITH_PEER,
                find: Arc::clone(find),
                spool: None,
                counts: VecDeque::new(),
            },
            lost: false,
            answered: 0,
            context_id,
            request: self.request.clone(),
            status: Status::PENDING,
            peer_max_length,
        };
        let (find, inside) = (Arc::clone(find), Arc::clone(&control));
        let turns = find.readers.turns();
        let query = match Arc::clone(&turns).try_acquire_owned() {
            Ok(turn) => spawn_blocking(move || {
                let _until_its_end = turn;
                self.answer(&find, &inside, outgoing)
            }),
            Err(_) => tokio::spawn(async move {
                let turn = wait_for_turn(turns, &inside).await?;
                let query = spawn_blocking(move || {
                    let _until_its_end = turn;
                    self.answer(&find, &inside, outgoing)
                });
                match query.await {
                    Ok(answered) => answered,
                    Err(ended) if ended.is_panic() => resume_unwind(ended.into_panic()),
                    // The node is stopping.
                    Err(_) => Err(FindError::Cancelled),
                }
            }),
        };
        Running { context_id, request, answers, control, query, begun: Instant::now() }
    }

    /// The query, from the Identifier to its last answer. On a thread that may block.
    fn answer(self, find: &Find, control: &Control, mut outgoing: Outgoing) -> Result<(), FindError> {
        let encoding = self.identifier.encoding;
        let bytes = self.identifier.finish()?;
        let identifier = Identifier::decode_with(
            bytes.as_slice(),
            encoding,
            &find.options.assumed_character_set,
            &find.options.declared,
        )?;
        let query = qr::parse(self.model, &identifier, self.negotiated, &find.options)?;
        outgoing.status = Status(query.pending_status());
        let mut reader = find.readers.take()?;
        let answered = run(&mut reader, &query, control, encoding, &find.options, &mut outgoing);
        // A reader that failed may have a reason to; the next query opens another.
        if !matches!(answered, Err(FindError::Index(_))) {
            find.readers.give_back(reader);
        }
        // What still waits belongs before the last response, also when that is a failure.
        let finished = outgoing.finish(control);
        match (finished, answered) {
            _ if outgoing.lost => Err(FindError::AnswersLost),
            (ControlFlow::Continue(()), answered) => answered,
            // It did not get all of its answers.
            (ControlFlow::Break(()), Ok(())) => Err(control.order().map_or(FindError::Cancelled, Order::error)),
            (ControlFlow::Break(()), Err(error)) => Err(error),
        }
    }
}

/// Waits until a query may begin, or is told to stop.
async fn wait_for_turn(turns: Arc<Semaphore>, control: &Control) -> Result<OwnedSemaphorePermit, FindError> {
    let mut turn = pin!(turns.acquire_owned());
    loop {
        match timeout(LOOK_FOR_ORDERS, &mut turn).await {
            Ok(Ok(turn)) => return Ok(turn),
            // It is never closed.
            Ok(Err(_)) => return Err(FindError::Cancelled),
            Err(_) => {
                if let Some(order) = control.order() {
                    return Err(order.error());
                }
            }
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
    waiting: Waiting,
    /// Whether answers could not be read back.
    lost: bool,
    /// How many answers there were so far.
    answered: u64,
    context_id: u8,
    request: FindRequest,
    status: Status,
    peer_max_length: u32,
}

/// What a slow peer makes necessary.
struct Waiting {
    /// How much longer the query waits.
    patience: Duration,
    find: Arc<Find>,
    /// What has to go out before what is gathered.
    spool: Option<Spool>,
    /// How many answers each piece of the spool has.
    counts: VecDeque<u64>,
}

impl Waiting {
    /// Appends to the spool. What could not be kept there is given back.
    fn keep(&mut self, answers: Answers) -> Result<(), Answers> {
        let spool = match &mut self.spool {
            Some(spool) => spool,
            none => {
                let directory = self.find.readers.index().parent().filter(|parent| !parent.as_os_str().is_empty());
                let directory = directory.unwrap_or(Path::new("."));
                match Spool::new(directory, &self.find.spool_room) {
                    Ok(spool) => none.insert(spool),
                    Err(error) => {
                        debug!("answers for a slow peer cannot be kept beside the index: {error}");
                        return Err(answers);
                    }
                }
            }
        };
        match spool.push(&answers.bytes) {
            Ok(()) => {
                self.counts.push_back(answers.count);
                Ok(())
            }
            Err(error) => {
                debug!("answers for a slow peer cannot be kept beside the index: {error}");
                Err(answers)
            }
        }
    }

    /// The oldest of what is in the spool; a spool that is empty goes.
    fn next(&mut self) -> io::Result<Option<Answers>> {
        let Some(spool) = &mut self.spool else { return Ok(None) };
        match (spool.pop()?, self.counts.pop_front()) {
            (Some(bytes), Some(count)) => Ok(Some(Answers { bytes, count })),
            _ => {
                self.spool = None;
                Ok(None)
            }
        }
    }
}

impl Outgoing {
    fn put(&mut self, identifier: &[u8]) -> ControlFlow<()> {
        let command = response(&self.request, self.status).command_set(DataSetPresence::Present);
        let bytes = &mut self.gathered.bytes;
        put_message(bytes, self.context_id, &command, Some(identifier), self.peer_max_length);
        self.gathered.count += 1;
        self.answered += 1;
        if self.answered == MANY_ANSWERS {
            thread::yield_now();
        }
        // Nobody else sends, so what room there is stays.
        if self.sender.capacity() > 0 {
            let next = match self.waiting.next() {
                Ok(older) => older.unwrap_or_else(|| std::mem::take(&mut self.gathered)),
                Err(error) => return self.lose(&error),
            };
            if self.sender.try_send(next).is_err() {
                return ControlFlow::Break(());
            }
        } else if self.sender.is_closed() {
            return ControlFlow::Break(());
        }
        if self.gathered.bytes.len() < GATHERED_BYTES { ControlFlow::Continue(()) } else { self.keep_or_wait() }
    }

    /// What is gathered waits for the peer: here, as long as patience lasts, and then on disk.
    fn keep_or_wait(&mut self) -> ControlFlow<()> {
        if self.waiting.spool.is_none() && !self.waiting.patience.is_zero() {
            let begun = Instant::now();
            let room = Handle::current().block_on(timeout(self.waiting.patience, self.sender.reserve()));
            self.waiting.patience = self.waiting.patience.saturating_sub(begun.elapsed());
            if let Ok(reserved) = room {
                let Ok(permit) = reserved else { return ControlFlow::Break(()) };
                permit.send(std::mem::take(&mut self.gathered));
                return ControlFlow::Continue(());
            }
        }
        match self.waiting.keep(std::mem::take(&mut self.gathered)) {
            Ok(()) => ControlFlow::Continue(()),
            Err(answers) => {
                // No room: the oldest goes first, and the query waits.
                self.gathered = answers;
                self.send_all(|| false)
            }
        }
    }

    /// Hands over all that waits, and waits for room as long as it takes.
    fn send_all(&mut self, stopped: impl Fn() -> bool) -> ControlFlow<()> {
        loop {
            let next = match self.waiting.next() {
                Ok(Some(older)) => older,
                Ok(None) if self.gathered.count == 0 => return ControlFlow::Continue(()),
                Ok(None) => std::mem::take(&mut self.gathered),
                Err(error) => return self.lose(&error),
            };
            // The association has ended, or wants no more.
            if stopped() || self.sender.blocking_send(next).is_err() {
                return ControlFlow::Break(());
            }
        }
    }

    /// The query has ended; its reader is free.
    fn finish(&mut self, control: &Control) -> ControlFlow<()> {
        self.send_all(|| control.order().is_some())
    }

    /// What was on disk cannot be read: answers are missing, and the peer is not to take what it has for all.
    fn lose(&mut self, error: &io::Error) -> ControlFlow<()> {
        warn!("answers that waited for a slow peer cannot be read: {error}");
        self.lost = true;
        ControlFlow::Break(())
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

impl Order {
    fn error(self) -> FindError {
        match self {
            Self::Cancel => FindError::Cancelled,
            Self::TimeOut => FindError::TimeLimit,
        }
    }
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

    fn order(&self) -> Option<Order> {
        self.order.get().copied()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_waits_for_its_turn_and_stops_when_told() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let turns = Arc::new(Semaphore::new(1));
            let first = wait_for_turn(Arc::clone(&turns), &Control::default()).await.unwrap();
            for (order, expected) in [(Order::Cancel, "Cancelled"), (Order::TimeOut, "TimeLimit")] {
                let control = Arc::new(Control::default());
                let (turns, inside) = (Arc::clone(&turns), Arc::clone(&control));
                let waiting = tokio::spawn(async move { wait_for_turn(turns, &inside).await });
                control.stop(order);
                assert_eq!(format!("{:?}", waiting.await.unwrap().unwrap_err()), expected);
            }
            let next = tokio::spawn(async move { wait_for_turn(turns, &Control::default()).await.is_ok() });
            drop(first);
            assert!(next.await.unwrap());
        });
    }
}
