//! The answers of a C-FIND, from a question on a thread of its own to the peer.
//!
//! The thread hands over its answers whenever the channel is free, and gathers answers otherwise.
//! After each piece the sender pauses for a moment, unless a large piece is there or the query has
//! ended. So the first answer goes out at once, and a fast query fills whole writes. A peer that
//! reads slowly fills no memory, and delays neither the index nor other queries. After a while, or
//! when others wait for their turn, its answers go to a file ([`AnswerBacklog`]). The query then
//! runs to its end and releases its turn, its thread and its reader. The answers in the file go out
//! as the peer takes them.

use std::io;
use std::ops::ControlFlow;
use std::panic::resume_unwind;
use std::pin::pin;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{sleep, sleep_until, timeout};
use tracing::warn;

use super::backlog::{AnswerBacklog, AnswerSpools, Answers};
use super::incoming_identifier::ArrivingIdentifier;
use super::service::{Boxed, End, Interleaved, Operation, QueuedCommand, Session};
use crate::dimse::Response;
use crate::dimse::command_set::CommandField;
use crate::dimse::message::{CFindRequest, DataSetPresence};
use crate::dimse::pdata::{put_data_set, put_message};
use crate::model::status::Status;
use crate::qr::readers::Readers;
use crate::qr::{FindError, QueryControl, StopOrder};
use crate::shares::{CountedPeer, PeerMemory, Share, Turn, Turns};
use crate::telemetry::metrics;
use crate::ul::pdu_io::{PduReader, Timeouts};

/// Bytes of answers that are gathered before the query waits for the peer. With the answers that
/// are being sent, an association holds three times this and one answer.
const GATHERED_BYTES: usize = 64 * 1024;

/// The same limit for a peer without memory left.
const FEW_GATHERED_BYTES: usize = 16 * 1024;

/// Pause after a piece of answers. To send a piece takes longer than to find an answer. On one
/// processor 109,091 answers went out in 27,836 pieces without a pause, and in 2,700 with it.
/// Larger: answers of a slow query come later. Smaller: more pieces.
const PAUSE: Duration = Duration::from_millis(1);

/// Bytes of a piece that ends the pause.
const LARGE_PIECE: usize = FEW_GATHERED_BYTES;

/// A query with so many answers probably has many more. It yields the processor once to the thread
/// that sends them. Otherwise it would keep the processor for some milliseconds. Fewer answers go
/// out in one piece with the last response.
const MANY_ANSWERS: u64 = 8;

/// Total time that a query waits for its peer before its answers go to a file. Larger: the
/// write-ahead log grows while others write. Smaller: answers go to files for peers that are about
/// as fast as the index.
const WAIT_FOR_PEER: Duration = Duration::from_secs(1);

/// Interval at which a query that waits for its turn checks whether it is still wanted.
const CHECK_ORDERS: Duration = Duration::from_millis(20);

/// Interval at which a query that must stop is told again. SQLite notices it only while a statement
/// runs.
const STOP_AGAIN_AFTER: Duration = Duration::from_millis(20);

/// Time that a query waits for its peer to take the next answers if there is no room on disk.
const WAIT_FOR_ROOM: Duration = Duration::from_secs(1);

/// A question of a peer that can be answered on a thread that may block.
pub(super) trait Question: Send + 'static {
    /// Puts all answers to `outgoing`, until there are no more or it says to stop.
    fn ask(
        self,
        identifier: ArrivingIdentifier,
        control: &QueryControl,
        outgoing: &mut Outgoing,
    ) -> Result<(), FindError>;
}

/// A question with its Identifier.
type WholeQuestion = Box<dyn FnOnce(&QueryControl, &mut Outgoing) -> Result<(), FindError> + Send>;

/// A C-FIND whose Identifier is arriving.
pub(super) struct ArrivingFind<Q> {
    pub(super) asked: AskedFind,
    pub(super) identifier: ArrivingIdentifier,
    pub(super) question: Q,
}

impl<Q: Question> Operation for ArrivingFind<Q> {
    fn accept<'a>(&'a mut self, fragment: &'a [u8]) -> Boxed<'a, ()> {
        self.identifier.accept(fragment);
        Box::pin(async {})
    }

    /// Answers the question, while it listens for a C-CANCEL-RQ and for the end of the association.
    fn finish<'a>(
        self: Box<Self>,
        session: &'a mut Session,
        reader: &'a mut PduReader,
    ) -> Boxed<'a, Result<Option<QueuedCommand>, End>> {
        let Self { asked, identifier, question } = *self;
        let whole = Box::new(move |control: &QueryControl, outgoing: &mut Outgoing| {
            question.ask(identifier, control, outgoing)
        });
        Box::pin(asked.answer(whole, session, reader))
    }
}

/// Resources of a running query.
pub(super) struct AskedFind {
    context_id: u8,
    request: CFindRequest,
    /// Turns for the queries that may ask the index at the same time.
    turns: Arc<Turns>,
    /// Spools where answers wait for slow peers.
    spools: Arc<AnswerSpools>,
}

impl AskedFind {
    /// Resources that go with the question of this command.
    pub(super) fn new(context_id: u8, request: &CFindRequest, readers: &Readers, spools: &Arc<AnswerSpools>) -> Self {
        Self { context_id, request: request.clone(), turns: readers.turns(), spools: Arc::clone(spools) }
    }

    async fn answer(
        self,
        question: WholeQuestion,
        session: &mut Session,
        reader: &mut PduReader,
    ) -> Result<Option<QueuedCommand>, End> {
        let running = self.start(question, session.agreement.peer_max_length, &session.memory);
        answer(running, session, reader).await
    }

    /// Starts to answer. The Identifier is complete.
    fn start(self, question: WholeQuestion, peer_max_length: u32, memory: &PeerMemory) -> Running {
        let Self { context_id, request, turns, spools } = self;
        let (sender, answers) = mpsc::channel(1);
        let control = Arc::new(QueryControl::default());
        let no_pause = Arc::new(Notify::new());
        let mut outgoing = Outgoing {
            sender,
            no_pause: Arc::clone(&no_pause),
            gathered: Answers::default(),
            memory: memory.clone(),
            share: None,
            turns: Arc::clone(&turns),
            peer_wait: WAIT_FOR_PEER,
            backlog: AnswerBacklog::new(&spools, memory.peer()),
            failure: None,
            answered: 0,
            holds_first: false,
            context_id,
            request: request.clone(),
            command: Vec::new(),
            peer_max_length,
        };
        outgoing.set_status(Status::PENDING);
        let inside = Arc::clone(&control);
        let query = match turns.try_take(memory.peer()) {
            Some(turn) => spawn_blocking(move || run_to_end(question, &inside, outgoing, turn)),
            None => {
                let peer = Arc::clone(memory.peer());
                tokio::spawn(async move {
                    let turn = match wait_for_turn(&turns, &peer, &inside).await {
                        Ok(turn) => turn,
                        Err(error) => return (Err(error), AnswerBacklog::new(&spools, &peer)),
                    };
                    match spawn_blocking(move || run_to_end(question, &inside, outgoing, turn)).await {
                        Ok(answered) => answered,
                        Err(ended) if ended.is_panic() => resume_unwind(ended.into_panic()),
                        // The node is stopping.
                        Err(_) => (Err(FindError::Cancelled), AnswerBacklog::new(&spools, &peer)),
                    }
                })
            }
        };
        let state = AnswersFrom::Asking { answers, query, no_pause, pause_until: None };
        Running { context_id, request, control, state, ended: None, begun: Instant::now() }
    }
}

/// Runs a question to its last answer, on a thread that may block. Returns the answers that still
/// wait for the peer.
fn run_to_end(
    question: WholeQuestion,
    control: &QueryControl,
    mut outgoing: Outgoing,
    turn: Turn,
) -> (Result<(), FindError>, AnswerBacklog) {
    let answered = question(control, &mut outgoing);
    // The last gathered answers. They need no room on disk, because no more follow.
    let Outgoing { sender, no_pause, gathered, mut backlog, share, failure, .. } = outgoing;
    backlog.end_with(gathered, share);
    drop(turn);
    drop(sender);
    no_pause.notify_one();
    (failure.map_or(answered, Err), backlog)
}

/// Sends the answers of a query, and its last response.
async fn answer(
    mut running: Running,
    session: &mut Session,
    reader: &mut PduReader,
) -> Result<Option<QueuedCommand>, End> {
    let options = Arc::clone(&session.node.options);
    let timeouts = Timeouts { first_byte: None, rest: options.read_timeout };
    let mut queued = None;
    // The time while the peer takes answers is not counted, because the limit is for the index.
    let mut time_is_up = tokio::time::Instant::now() + options.query_time_limit;
    let mut stopping = false;
    let mut last = Answers::default();
    loop {
        tokio::select! {
            biased;
            incoming = reader.next(timeouts), if queued.is_none() => {
                match session.interleaved(incoming, running.request.message_id)? {
                    Interleaved::Nothing => {}
                    Interleaved::Response(response) => return Err(End::UnexpectedResponse(response.field)),
                    Interleaved::Cancel => {
                        running.cancel();
                        stopping = true;
                    }
                    Interleaved::Command(command) => queued = Some(command),
                }
            }
            answers = running.next() => match answers {
                // These were on their way when the peer cancelled. It wants no more of them.
                Some(_) if stopping => {}
                // They go out in one piece with the last response.
                Some(answers) if running.has_no_more() => {
                    last = answers;
                    break;
                }
                Some(answers) => {
                    let begun = Instant::now();
                    session.writer.send(&answers.bytes).await.map_err(End::Write)?;
                    time_is_up += begun.elapsed();
                    count(&answers, session);
                }
                None => break,
            },
            () = sleep_until(time_is_up), if !stopping => {
                running.time_out();
                stopping = true;
            }
            () = sleep(STOP_AGAIN_AFTER), if stopping => running.stop_again(),
        }
    }
    let context_id = running.context_id;
    let (response, failure) = running.finish().await;
    if let Some(failure) = failure {
        session.log(&failure, true);
    }
    session.send_behind(&mut last.bytes, context_id, &response).await?;
    count(&last, session);
    Ok(queued)
}

/// Counts answers that went out.
fn count(answers: &Answers, session: &mut Session) {
    metrics::FIND_MATCHES.add(answers.count);
    session.answered.count_pending(CommandField::C_FIND_RSP, answers.count);
}

/// Waits until a query may begin, or is told to stop.
async fn wait_for_turn(turns: &Arc<Turns>, peer: &CountedPeer, control: &QueryControl) -> Result<Turn, FindError> {
    let mut turn = pin!(turns.take(peer));
    loop {
        match timeout(CHECK_ORDERS, &mut turn).await {
            Ok(turn) => return Ok(turn),
            Err(_) => {
                if let Some(order) = control.order() {
                    return Err(order.error());
                }
            }
        }
    }
}

/// The sending end of the channel, with what the query knows of its peer.
pub(super) struct Outgoing {
    sender: mpsc::Sender<Answers>,
    /// Ends the pause of the sending thread.
    no_pause: Arc<Notify>,
    gathered: Answers,
    memory: PeerMemory,
    /// The memory that is counted for answers that are gathered, in the channel, or being sent.
    share: Option<Share>,
    /// Others wait here for the turn of this query.
    turns: Arc<Turns>,
    /// Time that the query still waits for its peer.
    peer_wait: Duration,
    /// Answers that must go out before the gathered ones.
    backlog: AnswerBacklog,
    /// The reason why there are no more answers, if it lies outside the query.
    failure: Option<FindError>,
    /// Number of answers so far.
    answered: u64,
    /// Whether the first answers wait for the end of the query.
    holds_first: bool,
    context_id: u8,
    request: CFindRequest,
    /// The Pending response before its Identifier. It is the same for all answers.
    command: Vec<u8>,
    peer_max_length: u32,
}

impl Outgoing {
    /// Gathers the first answers until the query ends, because it has only one or ends at once.
    /// They then need no hand-over of their own, which takes as long as the query.
    pub(super) fn hold_first(&mut self) {
        self.holds_first = true;
    }

    /// The command that asks.
    pub(super) const fn request(&self) -> &CFindRequest {
        &self.request
    }

    /// Sets the status of the Pending responses that follow.
    pub(super) fn set_status(&mut self, status: Status) {
        let command = response(&self.request, status).command_set(DataSetPresence::Present);
        self.command.clear();
        put_message(&mut self.command, self.context_id, &command, None, self.peer_max_length);
    }

    /// Puts the next answer.
    pub(super) fn put(&mut self, identifier: &[u8]) -> ControlFlow<()> {
        let bytes = &mut self.gathered.bytes;
        bytes.extend_from_slice(&self.command);
        put_data_set(bytes, self.context_id, identifier, self.peer_max_length);
        self.gathered.count += 1;
        self.answered += 1;
        if self.answered == MANY_ANSWERS {
            thread::yield_now();
        }
        // Nobody else sends, so the room stays.
        if self.sender.capacity() > 0 && !(self.holds_first && self.answered < MANY_ANSWERS) {
            let next = match self.backlog.next() {
                Ok(older) => older.unwrap_or_else(|| std::mem::take(&mut self.gathered)),
                Err(error) => return self.lose(&error),
            };
            self.hand_over(next)?;
        } else if self.sender.is_closed() {
            return ControlFlow::Break(());
        }
        if self.gathered.bytes.len() >= LARGE_PIECE {
            self.no_pause.notify_one();
        }
        if self.gathered.bytes.len() < FEW_GATHERED_BYTES || self.may_gather_more() {
            return ControlFlow::Continue(());
        }
        self.keep_or_wait()
    }

    /// Hands over a piece. There is room in the channel.
    fn hand_over(&self, answers: Answers) -> ControlFlow<()> {
        let is_large = answers.bytes.len() >= LARGE_PIECE;
        if self.sender.try_send(answers).is_err() {
            return ControlFlow::Break(());
        }
        if is_large {
            self.no_pause.notify_one();
        }
        ControlFlow::Continue(())
    }

    fn may_gather_more(&mut self) -> bool {
        if self.share.is_none() {
            self.share = self.memory.take(3 * GATHERED_BYTES);
        }
        self.share.is_some() && self.gathered.bytes.len() < GATHERED_BYTES
    }

    /// Lets the gathered answers wait for the peer. They wait in memory while there is time left
    /// and nobody waits for the turn. After that they wait on disk.
    fn keep_or_wait(&mut self) -> ControlFlow<()> {
        if self.backlog.is_empty() && !self.peer_wait.is_zero() {
            let begun = Instant::now();
            let sent = self.wait_for_peer(self.peer_wait)?;
            self.peer_wait = self.peer_wait.saturating_sub(begun.elapsed());
            if sent {
                return ControlFlow::Continue(());
            }
        }
        match self.backlog.keep(std::mem::take(&mut self.gathered)) {
            Ok(()) => ControlFlow::Continue(()),
            Err(answers) => {
                self.gathered = answers;
                self.wait_without_room()
            }
        }
    }

    /// Waits for the peer to take all waiting answers if there is no room on disk. If the peer
    /// takes too long, or others wait for the turn, the query ends with an error.
    fn wait_without_room(&mut self) -> ControlFlow<()> {
        while !self.backlog.is_empty() || self.gathered.count > 0 {
            if !self.wait_for_peer(WAIT_FOR_ROOM)? {
                self.failure = Some(FindError::NoRoom);
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }

    /// Hands over the oldest answers once the peer has taken those before. Gives up after this
    /// time, or when somebody waits for the turn. Returns whether it handed them over.
    fn wait_for_peer(&mut self, peer_wait: Duration) -> ControlFlow<(), bool> {
        let has_room = Handle::current().block_on(timeout(peer_wait, async {
            tokio::select! {
                biased;
                // Nobody else sends, so the room stays. `None`: others wait for the turn.
                reserved = self.sender.reserve() => Some(reserved.is_ok()),
                () = self.turns.are_wanted() => None,
            }
        }));
        match has_room {
            Ok(Some(true)) => {}
            Ok(Some(false)) => return ControlFlow::Break(()),
            Ok(None) | Err(_) => return ControlFlow::Continue(false),
        }
        let next = match self.backlog.next() {
            Ok(older) => older.unwrap_or_else(|| std::mem::take(&mut self.gathered)),
            Err(error) => return self.lose(&error).map_continue(|()| false),
        };
        self.hand_over(next).map_continue(|()| true)
    }

    /// Ends the query: answers on disk cannot be read. The peer must not take the others for all
    /// answers.
    fn lose(&mut self, error: &io::Error) -> ControlFlow<()> {
        warn!("answers that waited for a slow peer cannot be read: {error}");
        self.failure = Some(FindError::AnswersLost);
        ControlFlow::Break(())
    }
}

/// A query that is being answered. It is stopped if this is dropped.
struct Running {
    context_id: u8,
    request: CFindRequest,
    control: Arc<QueryControl>,
    state: AnswersFrom,
    /// The result of the query, once it has ended.
    ended: Option<Result<(), FindError>>,
    begun: Instant,
}

/// The source of answers.
enum AnswersFrom {
    /// The query runs.
    Asking {
        answers: mpsc::Receiver<Answers>,
        query: JoinHandle<(Result<(), FindError>, AnswerBacklog)>,
        /// The query notifies of a large piece, and of its end.
        no_pause: Arc<Notify>,
        /// When the next piece is wanted. `None`: at once.
        pause_until: Option<tokio::time::Instant>,
    },
    /// The query has ended. Some of its answers wait.
    Waiting(AnswerBacklog),
    /// The next of these is being read.
    Reading(JoinHandle<(AnswerBacklog, io::Result<Option<Answers>>)>),
    /// There are no more.
    Over,
}

impl Running {
    /// Returns the next answers. `None` if there are no more. Nothing is lost if the future is
    /// dropped before it is ready.
    async fn next(&mut self) -> Option<Answers> {
        loop {
            match &mut self.state {
                AnswersFrom::Asking { answers, query, no_pause, pause_until } => {
                    if let Some(until) = *pause_until
                        && !answers.is_closed()
                    {
                        tokio::select! {
                            () = no_pause.notified() => {}
                            () = sleep_until(until) => {}
                        }
                        *pause_until = None;
                    }
                    if let Some(answers) = answers.recv().await {
                        *pause_until = Some(tokio::time::Instant::now() + PAUSE);
                        return Some(answers);
                    }
                    self.state = match query.await {
                        Ok((ended, backlog)) => {
                            self.ended = Some(ended);
                            AnswersFrom::Waiting(backlog)
                        }
                        // The query panicked, or the node is stopping.
                        Err(_) => AnswersFrom::Over,
                    };
                }
                AnswersFrom::Waiting(_) => {
                    let AnswersFrom::Waiting(mut backlog) = std::mem::replace(&mut self.state, AnswersFrom::Over)
                    else {
                        continue;
                    };
                    if let Some(order) = self.control.order() {
                        // The peer wants no more, so it did not get all answers.
                        let ended = self.ended.take().unwrap_or(Ok(()));
                        self.ended = Some(ended.and(Err(order.error())));
                    } else if let Some(last) = backlog.in_memory() {
                        self.state = AnswersFrom::Waiting(backlog);
                        return Some(last);
                    } else if !backlog.is_empty() {
                        self.state = AnswersFrom::Reading(backlog.read());
                    }
                }
                AnswersFrom::Reading(reading) => match reading.await {
                    Ok((backlog, Ok(answers))) => {
                        self.state = AnswersFrom::Waiting(backlog);
                        if answers.is_some() {
                            return answers;
                        }
                    }
                    Ok((_, Err(error))) => {
                        warn!("answers that waited for a slow peer cannot be read: {error}");
                        self.ended = Some(Err(FindError::AnswersLost));
                        self.state = AnswersFrom::Over;
                    }
                    Err(_) => {
                        self.ended = Some(Err(FindError::AnswersLost));
                        self.state = AnswersFrom::Over;
                    }
                },
                AnswersFrom::Over => return None,
            }
        }
    }

    /// Whether the query has ended well, and all its answers were taken.
    fn has_no_more(&self) -> bool {
        let AnswersFrom::Waiting(backlog) = &self.state else { return false };
        backlog.is_spent() && matches!(self.ended, Some(Ok(()))) && self.control.order().is_none()
    }

    /// Stops the query, which then ends with [`FindError::Cancelled`]. SQLite may not notice it the
    /// first time, so it must be repeated until the query has ended.
    fn cancel(&self) {
        self.control.stop(StopOrder::Cancel);
    }

    /// Stops the query, which then ends with [`FindError::TimeLimit`]. Otherwise it works as
    /// [`Self::cancel`].
    fn time_out(&self) {
        self.control.stop(StopOrder::TimeOut);
    }

    /// Repeats the first order.
    fn stop_again(&self) {
        self.control.repeat();
    }

    /// Waits for the end of the query. Returns the last response, and the failure if it is one of
    /// this node.
    async fn finish(mut self) -> (Response, Option<FindError>) {
        // All answers were taken, or nobody wants them.
        while self.next().await.is_some() {}
        metrics::FIND_SECONDS.observe(self.begun.elapsed());
        let Some(ended) = self.ended.take() else {
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
                    FindError::ResponseLimit => metrics::FIND_ANSWERED.increment(),
                    FindError::Cancelled => metrics::FIND_CANCELLED.increment(),
                    FindError::Index(_) => metrics::FIND_FAILED.increment(),
                    _ => metrics::FIND_REFUSED.increment(),
                }
                let failure = error.failure();
                let response = response(&self.request, failure.status)
                    .with_comment(&failure.comment)
                    .with_offending_elements(&failure.offending_elements);
                let ours = error.is_ours();
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

/// Returns a C-FIND-RSP (PS3.7 table 9.3-4).
pub(super) fn response(request: &CFindRequest, status: Status) -> Response {
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
            let turns = Turns::new(1);
            let peer: CountedPeer = Arc::new(crate::model::peer::CountedAs::address([127, 0, 0, 1].into()));
            let first = wait_for_turn(&turns, &peer, &QueryControl::default()).await.unwrap();
            for (order, expected) in [(StopOrder::Cancel, "Cancelled"), (StopOrder::TimeOut, "TimeLimit")] {
                let control = Arc::new(QueryControl::default());
                let (turns, peer, inside) = (Arc::clone(&turns), Arc::clone(&peer), Arc::clone(&control));
                let waiting = tokio::spawn(async move { wait_for_turn(&turns, &peer, &inside).await });
                control.stop(order);
                assert_eq!(format!("{:?}", waiting.await.unwrap().unwrap_err()), expected);
            }
            let next =
                tokio::spawn(async move { wait_for_turn(&turns, &peer, &QueryControl::default()).await.is_ok() });
            drop(first);
            assert!(next.await.unwrap());
        });
    }
}
