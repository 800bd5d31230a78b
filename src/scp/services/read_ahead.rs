//! Objects that are read ahead of the peer that gets them, in short steps on few threads (ADR 0021).
//!
//! A step opens objects, or reads on in one, until a few pieces are there, and then gives its thread back. The next step
//! begins when the peer has taken pieces. A peer that takes nothing holds no thread, no reader of the index, and no more
//! memory than its pieces have. Where it may not have more, there is one small piece at a time.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;

use super::retrieve::{Buffer, Order, PIECE_LENGTH, Piece, Sending, Unfinished};
use crate::shares::{PeerMemory, Share, Turn, Turns};
use crate::store::Archives;

/// Pieces that are read before the peer has taken those before them.
const READ_AHEAD: usize = 3;

/// A step begins when no more pieces than these are left: so it reads several, and is worth the way to another thread.
const FEW_LEFT: usize = 1;

/// Bytes of a piece where the peer may not have more memory, its command aside.
const SMALL_PIECE_LENGTH: usize = 32 * 1024;

/// Objects that are being read ahead. Dropped, the reading ends.
pub(in crate::scp) struct ReadAhead {
    pieces: mpsc::UnboundedReceiver<Piece>,
    state: State,
    spares: Vec<Buffer>,
    patience: Duration,
    threads: Arc<Turns>,
    memory: PeerMemory,
    /// What is counted for large pieces.
    share: Option<Share>,
}

enum State {
    /// Nothing is being read.
    Waiting(Box<Reading>),
    Reading(JoinHandle<Box<Reading>>),
    Ended,
    /// A step did not come back: what it had not read yet is not there.
    Broken,
}

/// The file system gives nothing.
#[derive(Debug, Clone, Copy)]
pub(in crate::scp) struct SlowSource;

/// How much one step reads.
#[derive(Clone, Copy, Debug)]
struct Step {
    pieces: usize,
    piece_length: usize,
}

/// What goes from one step to the next.
pub(super) struct Reading {
    sending: Arc<Sending>,
    order: Order,
    archives: Archives,
    message_id: u16,
    /// The object of which the beginning is out.
    unfinished: Option<Unfinished>,
    out: Outgoing,
    ended: bool,
}

/// Where pieces go, and what they are made of.
pub(super) struct Outgoing {
    pieces: mpsc::UnboundedSender<Piece>,
    spares: Vec<Buffer>,
}

impl Outgoing {
    /// An empty buffer.
    pub(super) fn buffer(&mut self) -> Buffer {
        let mut buffer = self.spares.pop().unwrap_or_default();
        buffer.reset();
        buffer
    }
}

impl ReadAhead {
    /// Begins to read.
    pub(super) fn start(sending: Sending) -> Self {
        let patience = sending.retrieve.options().source_timeout;
        let threads = Arc::clone(&sending.retrieve.threads);
        let memory = sending.memory.clone();
        let (sender, pieces) = mpsc::unbounded_channel();
        let sending = Arc::new(sending);
        let reading = Reading {
            order: Order::new(&sending),
            sending,
            archives: Archives::default(),
            message_id: 0,
            unfinished: None,
            out: Outgoing { pieces: sender, spares: Vec::new() },
            ended: false,
        };
        let state = State::Waiting(Box::new(reading));
        let mut this = Self { pieces, state, spares: Vec::new(), patience, threads, memory, share: None };
        this.read_on();
        this
    }

    /// The next piece, if it is at hand.
    pub(in crate::scp) fn at_hand(&mut self) -> Option<Piece> {
        let piece = self.pieces.try_recv().ok()?;
        self.read_on_in_time();
        Some(piece)
    }

    /// The next piece; `None` after the last, and never for another reason.
    pub(in crate::scp) async fn next(&mut self) -> Result<Option<Piece>, SlowSource> {
        loop {
            if let Some(piece) = self.at_hand() {
                return Ok(Some(piece));
            }
            match &mut self.state {
                State::Waiting(reading) if reading.ended => self.state = State::Ended,
                State::Waiting(_) => self.read_on(),
                State::Ended => return Ok(None),
                State::Broken => return Err(SlowSource),
                State::Reading(step) => {
                    let next = async {
                        tokio::select! {
                            biased;
                            // None: the step has lost its end of the channel. Only the step itself says whether all was read.
                            Some(piece) = self.pieces.recv() => Ok(piece),
                            ended = step => Err(ended),
                        }
                    };
                    match timeout(self.patience, next).await.map_err(|_| SlowSource)? {
                        Ok(piece) => {
                            self.read_on_in_time();
                            return Ok(Some(piece));
                        }
                        Err(Ok(reading)) => self.state = State::Waiting(reading),
                        // A defect of ours, or the node is stopping.
                        Err(Err(_)) => self.state = State::Broken,
                    }
                }
            }
        }
    }

    /// Gives the memory of a piece back.
    pub(in crate::scp) fn give_back(&mut self, buffer: Buffer) {
        if self.share.is_some() {
            self.spares.push(buffer);
        }
    }

    /// Reads on before the last piece is gone, where the peer may have several.
    fn read_on_in_time(&mut self) {
        if let State::Reading(step) = &mut self.state
            && let Poll::Ready(ended) = Pin::new(step).poll(&mut Context::from_waker(Waker::noop()))
        {
            self.state = ended.map_or(State::Broken, State::Waiting);
        }
        if self.share.is_some() && self.pieces.len() <= FEW_LEFT {
            self.read_on();
        }
    }

    /// Begins the next step, if there is one to begin.
    fn read_on(&mut self) {
        if !matches!(&self.state, State::Waiting(reading) if !reading.ended) {
            return;
        }
        let State::Waiting(mut reading) = std::mem::replace(&mut self.state, State::Ended) else { return };
        if self.share.is_none() {
            // Those ahead, one that is being sent, and one that is being read.
            self.share = self.memory.take((READ_AHEAD + 2) * PIECE_LENGTH);
        }
        let step = match self.share {
            Some(_) => {
                let pieces = READ_AHEAD.saturating_sub(self.pieces.len()).max(1);
                Step { pieces, piece_length: PIECE_LENGTH }
            }
            None => Step { pieces: 1, piece_length: SMALL_PIECE_LENGTH },
        };
        reading.out.spares.append(&mut self.spares);
        let peer = self.memory.peer();
        self.state = State::Reading(match self.threads.try_take(peer) {
            Some(turn) => begin(reading, step, turn),
            None => {
                let (threads, peer) = (Arc::clone(&self.threads), Arc::clone(peer));
                tokio::spawn(async move {
                    let turn = threads.take(&peer).await;
                    match begin(reading, step, turn).await {
                        Ok(reading) => reading,
                        Err(ended) if ended.is_panic() => std::panic::resume_unwind(ended.into_panic()),
                        // The node is stopping: nobody waits any more.
                        Err(_) => std::future::pending().await,
                    }
                })
            }
        });
    }
}

impl Drop for ReadAhead {
    fn drop(&mut self) {
        if let State::Reading(step) = &self.state {
            // One that still waits for a thread needs none any more.
            step.abort();
        }
    }
}

fn begin(mut reading: Box<Reading>, step: Step, turn: Turn) -> JoinHandle<Box<Reading>> {
    spawn_blocking(move || {
        let _until_its_end = turn;
        reading.step(step);
        reading
    })
}

impl Reading {
    fn step(&mut self, step: Step) {
        // An index that cannot be opened fails the objects that are opened in this step.
        let mut reader = None;
        for _ in 0..step.pieces {
            let Some(piece) = self.next(&mut reader, step.piece_length) else {
                self.ended = true;
                break;
            };
            self.ended = matches!(piece, Piece::Broken(_));
            if self.out.pieces.send(piece).is_err() {
                // Nobody wants it any more.
                self.ended = true;
            }
            if self.ended {
                break;
            }
        }
        if let Some(reader) = reader {
            self.sending.retrieve.readers.give_back(reader);
        }
    }

    fn next(&mut self, reader: &mut Option<crate::qr::Reader>, piece_length: usize) -> Option<Piece> {
        if let Some(Unfinished { data_set, context_id }) = &mut self.unfinished {
            let mut bytes = self.out.buffer();
            return Some(match self.sending.fill(data_set, *context_id, &mut bytes, piece_length) {
                Ok(is_last) => {
                    if is_last {
                        self.unfinished = None;
                    }
                    Piece::More { bytes, is_last }
                }
                Err(error) => Piece::Broken(error),
            });
        }
        if reader.is_none() {
            *reader = self.sending.retrieve.readers.take().ok();
        }
        let at = self.order.next(&self.archives, reader.as_mut())?;
        let instance = self.sending.instances.get(at)?;
        self.message_id = self.message_id.checked_add(1).unwrap_or(1);
        let message_id = self.message_id;
        let begun =
            self.sending.begin(reader.as_mut(), &self.archives, &instance, message_id, (&mut self.out, piece_length));
        Some(match begun {
            Ok((bytes, unfinished)) => {
                let is_last = unfinished.is_none();
                self.unfinished = unfinished;
                Piece::Begin { at, message_id, bytes, is_last }
            }
            Err(failure) => Piece::Failed { at, failure },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::retrieve::{OutgoingContexts, Retrieve};
    use super::*;
    use crate::model::peer::CountedAs;
    use crate::qr::ObjectKind;
    use crate::shares::Shares;
    use crate::telemetry::metrics;

    #[tokio::test]
    async fn a_defect_in_reading_is_not_the_end_of_the_objects() {
        let kind = ObjectKind { sop_class_uid: "1.2".into(), transfer_syntax: "1.2.840.10008.1.2".into() };
        let memory = Shares::new(1 << 30, 0, &metrics::MEMORY_REFUSED);
        let sending = Sending {
            retrieve: Arc::new(Retrieve::new("/nowhere".into(), Default::default())),
            instances: Arc::new([("1.2.3".to_owned(), kind)].into_iter().collect()),
            over: Vec::new(),
            // The defect.
            only: Some(Arc::new(|_| panic!("a defect"))),
            contexts: OutgoingContexts::default(),
            priority: 0,
            originator: None,
            peer_max_length: 0,
            memory: PeerMemory::new(&memory, &Arc::new(CountedAs::address([10, 0, 0, 1].into()))),
        };
        let mut ahead = sending.start();
        for _ in 0..2 {
            assert!(matches!(ahead.next().await, Err(SlowSource)), "objects that were not read are no end");
        }
    }
}
