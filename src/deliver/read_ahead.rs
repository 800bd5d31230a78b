//! Reads objects ahead of the peer, in short steps on few threads (ADR 0021).
//!
//! A step opens objects, or continues with one, until a few pieces are ready. Then it releases its
//! thread. The next step begins when the peer has taken pieces. A peer that takes nothing holds no
//! thread, no reader of the index, and no more memory than its pieces. A peer without memory gets
//! one small piece at a time.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;

use super::buffer::{Buffer, PIECE_LENGTH, Spares};
use super::decoders::{DecodingFor, DecodingProgress};
use super::order::SendOrder;
use super::sending::{Piece, Sending, Unfinished};
use crate::archive::Archives;
use crate::shares::{PeerMemory, Share, Turn, Turns};

/// Pieces that are read before the peer has taken the earlier ones.
const READ_AHEAD: usize = 3;

/// A step begins when at most so many pieces are left. So it reads several, and the change of
/// threads is worth it.
const FEW_LEFT: usize = 1;

/// Bytes of a piece for a peer without memory left, without its command.
const SMALL_PIECE_LENGTH: usize = 32 * 1024;

/// Objects that are read ahead. Reading ends when this is dropped.
pub(crate) struct ReadAhead {
    pieces: mpsc::UnboundedReceiver<Piece>,
    state: ReadAheadState,
    spares: Spares,
    time_limit: Duration,
    threads: Arc<Turns>,
    memory: PeerMemory,
    /// The memory that is counted for large pieces.
    share: Option<Share>,
    /// Progress of an object that is decompressed before it goes out.
    progress: Arc<DecodingProgress>,
}

enum ReadAheadState {
    /// No step is under way.
    Waiting(Box<ReadProgress>),
    Reading(JoinHandle<Box<ReadProgress>>),
    Ended,
    /// A step did not return. What it had not read is lost.
    Broken,
}

/// The file system returns nothing in time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SlowSource;

/// The size of one step.
#[derive(Clone, Copy, Debug)]
struct StepSize {
    pieces: usize,
    piece_length: usize,
}

/// The state that goes from one step to the next.
pub(crate) struct ReadProgress {
    sending: Arc<Sending>,
    order: SendOrder,
    archives: Archives,
    /// Number of objects that were begun or failed.
    number: usize,
    /// The object whose beginning was sent.
    unfinished: Option<Unfinished>,
    out: PieceSender,
    decoding: DecodingFor,
    ended: bool,
}

/// The receiver of pieces, and buffers for them.
pub(crate) struct PieceSender {
    pieces: mpsc::UnboundedSender<Piece>,
    spares: Spares,
}

impl ReadAhead {
    /// Starts reading.
    pub(crate) fn start(sending: Sending) -> Self {
        let time_limit = sending.delivery.source_timeout();
        let threads = Arc::clone(&sending.delivery.threads);
        let memory = sending.memory.clone();
        let (sender, pieces) = mpsc::unbounded_channel();
        let progress = Arc::<DecodingProgress>::default();
        let decoding = DecodingFor {
            decoders: Arc::clone(&sending.delivery.decoders),
            peer: Arc::clone(memory.peer()),
            progress: Arc::clone(&progress),
        };
        let sending = Arc::new(sending);
        let reading = ReadProgress {
            order: SendOrder::new(&sending),
            sending,
            archives: Archives::default(),
            number: 0,
            unfinished: None,
            out: PieceSender { pieces: sender, spares: Spares::default() },
            decoding,
            ended: false,
        };
        let state = ReadAheadState::Waiting(Box::new(reading));
        let spares = Spares::default();
        let mut this = Self { pieces, state, spares, time_limit, threads, memory, share: None, progress };
        this.read_on();
        this
    }

    /// Returns the next piece, if it is ready.
    pub(crate) fn at_hand(&mut self) -> Option<Piece> {
        let piece = self.pieces.try_recv().ok()?;
        self.read_on_in_time();
        Some(piece)
    }

    /// Returns the next piece. `None` only after the last one.
    ///
    /// # Errors
    /// [`SlowSource`] if the disk gave nothing for too long.
    pub(crate) async fn next(&mut self) -> Result<Option<Piece>, SlowSource> {
        loop {
            if let Some(piece) = self.at_hand() {
                return Ok(Some(piece));
            }
            match &mut self.state {
                ReadAheadState::Waiting(reading) if reading.ended => self.state = ReadAheadState::Ended,
                ReadAheadState::Waiting(_) => self.read_on(),
                ReadAheadState::Ended => return Ok(None),
                ReadAheadState::Broken => return Err(SlowSource),
                ReadAheadState::Reading(step) => {
                    let next = async {
                        tokio::select! {
                            biased;
                            // `None`: the step has dropped its end of the channel. Only the step
                            // itself knows whether everything was read.
                            Some(piece) = self.pieces.recv() => Ok(piece),
                            ended = step => Err(ended),
                        }
                    };
                    let frames = self.progress.frames();
                    let Ok(next) = timeout(self.time_limit, next).await else {
                        // Frames of a long object are being decompressed, and it goes on.
                        if self.progress.frames() > frames {
                            continue;
                        }
                        return Err(SlowSource);
                    };
                    match next {
                        Ok(piece) => {
                            self.read_on_in_time();
                            return Ok(Some(piece));
                        }
                        Err(Ok(reading)) => self.state = ReadAheadState::Waiting(reading),
                        // A step panicked, or the node is stopping.
                        Err(Err(_)) => self.state = ReadAheadState::Broken,
                    }
                }
            }
        }
    }

    /// Takes back the memory of a piece.
    pub(crate) fn give_back(&mut self, buffer: Buffer) {
        if self.share.is_some() {
            self.spares.push(buffer);
        }
    }

    /// Starts a step before the last piece is gone, if the peer may have several.
    fn read_on_in_time(&mut self) {
        if let ReadAheadState::Reading(step) = &mut self.state
            && let Poll::Ready(ended) = Pin::new(step).poll(&mut Context::from_waker(Waker::noop()))
        {
            self.state = ended.map_or(ReadAheadState::Broken, ReadAheadState::Waiting);
        }
        if self.share.is_some() && self.pieces.len() <= FEW_LEFT {
            self.read_on();
        }
    }

    /// Starts the next step, if there is more to read.
    fn read_on(&mut self) {
        if !matches!(&self.state, ReadAheadState::Waiting(reading) if !reading.ended) {
            return;
        }
        let ReadAheadState::Waiting(mut reading) = std::mem::replace(&mut self.state, ReadAheadState::Ended) else {
            return;
        };
        if self.share.is_none() {
            // The pieces ahead, one that is being sent, and one that is being read.
            self.share = self.memory.take((READ_AHEAD + 2) * PIECE_LENGTH);
        }
        let step = match self.share {
            Some(_) => {
                let pieces = READ_AHEAD.saturating_sub(self.pieces.len()).max(1);
                StepSize { pieces, piece_length: PIECE_LENGTH }
            }
            None => StepSize { pieces: 1, piece_length: SMALL_PIECE_LENGTH },
        };
        reading.out.spares.append(&mut self.spares);
        let peer = self.memory.peer();
        self.state = ReadAheadState::Reading(match self.threads.try_take(peer) {
            Some(turn) => begin(reading, step, turn),
            None => {
                let (threads, peer) = (Arc::clone(&self.threads), Arc::clone(peer));
                tokio::spawn(async move {
                    let turn = threads.take(&peer).await;
                    match begin(reading, step, turn).await {
                        Ok(reading) => reading,
                        Err(ended) if ended.is_panic() => std::panic::resume_unwind(ended.into_panic()),
                        // The node is stopping, so nobody waits any more.
                        Err(_) => std::future::pending().await,
                    }
                })
            }
        });
    }
}

impl Drop for ReadAhead {
    fn drop(&mut self) {
        if let ReadAheadState::Reading(step) = &self.state {
            // A step that waits for a thread needs none any more.
            step.abort();
        }
        self.progress.give_up();
    }
}

fn begin(mut reading: Box<ReadProgress>, step: StepSize, turn: Turn) -> JoinHandle<Box<ReadProgress>> {
    spawn_blocking(move || {
        let _until_its_end = turn;
        reading.step(step);
        reading
    })
}

impl ReadProgress {
    fn step(&mut self, step: StepSize) {
        // An index that cannot be opened fails the objects of this step.
        let mut reader = None;
        for _ in 0..step.pieces {
            let Some(piece) = self.next(&mut reader, step.piece_length) else {
                self.ended = true;
                break;
            };
            self.ended = matches!(piece, Piece::Broken(_));
            if self.out.pieces.send(piece).is_err() {
                // Nobody wants the piece any more.
                self.ended = true;
            }
            if self.ended {
                break;
            }
        }
        if let Some(reader) = reader {
            self.sending.delivery.readers.give_back(reader);
        }
    }

    fn next(&mut self, reader: &mut Option<crate::db::open::Reader>, piece_length: usize) -> Option<Piece> {
        if let Some(Unfinished { data_set, form }) = &mut self.unfinished {
            let mut bytes = self.out.spares.buffer();
            return Some(match self.sending.framing.fill(*form, data_set, &mut bytes, piece_length) {
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
            *reader = self.sending.delivery.readers.take().ok();
        }
        let at = self.order.next(&self.archives, reader.as_mut())?;
        let instance = self.sending.instances.get(at)?;
        self.number += 1;
        let number = self.number;
        let spares = &mut self.out.spares;
        let begun = self.sending.begin(
            reader.as_mut(),
            &self.archives,
            (&instance, number),
            (spares, piece_length),
            &self.decoding,
        );
        Some(match begun {
            Ok((bytes, unfinished)) => {
                let is_last = unfinished.is_none();
                self.unfinished = unfinished;
                Piece::Begin { at, number, bytes, is_last }
            }
            Err(error) => Piece::Failed { at, error },
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::deliver::delivery::{Delivery, DeliveryOptions};
    use crate::deliver::error::DeliverError;
    use crate::deliver::framing::{Framing, ObjectForm};
    use crate::model::peer::CountedAs;
    use crate::qr::{ObjectKind, RetrievedInstance};
    use crate::shares::Shares;
    use crate::store::FileMeta;
    use crate::telemetry::metrics;

    /// Whole files (PS3.10 7.1), as WADO-RS sends them.
    struct Files;

    impl Framing for Files {
        fn choose(&self, _: &ObjectKind) -> Result<ObjectForm, DeliverError> {
            Ok(ObjectForm::default())
        }

        fn begin(&self, _: ObjectForm, instance: &RetrievedInstance<'_>, _: usize, out: &mut Vec<u8>) {
            let meta = FileMeta {
                sop_class_uid: &instance.kind.sop_class_uid,
                sop_instance_uid: instance.sop_instance_uid,
                transfer_syntax: &instance.kind.transfer_syntax,
                source_ae_title: "",
            };
            out.extend_from_slice(&meta.encode());
        }
    }

    fn sending(index: std::path::PathBuf, instances: &[&str]) -> Sending {
        let kind = ObjectKind {
            sop_class_uid: "1.2.840.10008.5.1.4.1.1.2".into(),
            transfer_syntax: "1.2.840.10008.1.2".into(),
        };
        let memory = Shares::new(1 << 30, 0, &metrics::MEMORY_REFUSED);
        let options = DeliveryOptions {
            max_instances: 100,
            source_timeout: Duration::from_secs(60),
            verification_holds: Duration::ZERO,
        };
        Sending {
            delivery: Arc::new(Delivery::new(index, options)),
            instances: Arc::new(instances.iter().map(|uid| ((*uid).to_owned(), kind.clone())).collect()),
            over: Vec::new(),
            only: None,
            framing: Arc::new(Files),
            memory: PeerMemory::new(&memory, &Arc::new(CountedAs::address([10, 0, 0, 1].into()))),
        }
    }

    #[tokio::test]
    async fn a_defect_in_reading_is_not_the_end_of_the_objects() {
        let mut sending = sending("/nowhere".into(), &["1.2.3"]);
        sending.only = Some(Arc::new(|_| panic!("a defect")));
        let mut ahead = ReadAhead::start(sending);
        for _ in 0..2 {
            assert!(matches!(ahead.next().await, Err(SlowSource)), "objects that were not read are no end");
        }
    }

    // This is what WADO-RS needs: objects without presentation contexts and PDUs.
    #[tokio::test]
    async fn objects_are_read_in_a_form_that_has_no_presentation_contexts() {
        use crate::db::open::{Writer, WriterOptions};
        use crate::db::{Arrivals, Received};
        use crate::ingest::{Outcome, Wanted, read_file};
        use crate::model::location::{Location, Place};

        let directory = tempfile::tempdir().unwrap();
        let mut data_set = Vec::new();
        for (group, element, uid) in [
            (8_u16, 0x16_u16, "1.2.840.10008.5.1.4.1.1.2\0"),
            (8, 0x18, "1.2.3.4\0"),
            (0x20, 0x0D, "1.2.3\0"),
            (0x20, 0x0E, "1.2.3.9\0"),
        ] {
            data_set.extend_from_slice(&group.to_le_bytes());
            data_set.extend_from_slice(&element.to_le_bytes());
            data_set.extend_from_slice(&(uid.len() as u32).to_le_bytes());
            data_set.extend_from_slice(uid.as_bytes());
        }
        // More than one piece of pixels.
        let pixels = vec![7_u8; 2 * PIECE_LENGTH + 100];
        data_set.extend_from_slice(b"\xE0\x7F\x10\0");
        data_set.extend_from_slice(&(pixels.len() as u32).to_le_bytes());
        data_set.extend_from_slice(&pixels);
        let meta = FileMeta {
            sop_class_uid: "1.2.840.10008.5.1.4.1.1.2",
            sop_instance_uid: "1.2.3.4",
            transfer_syntax: "1.2.840.10008.1.2",
            source_ae_title: "",
        };
        let file = [&meta.encode()[..], &data_set].concat();
        let path = directory.path().join("object.dcm");
        std::fs::write(&path, &file).unwrap();
        let Outcome::Instance(record) = read_file(&std::fs::File::open(&path).unwrap(), Wanted::index()) else {
            panic!("not an instance")
        };
        let index = directory.path().join("index.db");
        let writer = Writer::open(&index, WriterOptions::default()).unwrap();
        let location = Location {
            place: Place::Managed,
            directory: directory.path().to_owned(),
            file_name: "object.dcm".into(),
            size: file.len() as u64,
            mtime_ms: 0,
        };
        let (done, stored) = tokio::sync::oneshot::channel();
        writer.handle().store(Received::new(record, location), Box::new(move |stored| drop(done.send(stored))));
        stored.await.unwrap().unwrap();
        let mut ahead = ReadAhead::start(sending(index, &["1.2.3.5", "1.2.3.4"]));
        assert!(matches!(ahead.next().await, Ok(Some(Piece::Failed { at: 0, error: DeliverError::Object(_) }))));
        let mut sent = Vec::new();
        while let Ok(Some(piece)) = ahead.next().await {
            let bytes = match piece {
                Piece::Begin { at: 1, number: 2, bytes, .. } | Piece::More { bytes, .. } => bytes,
                Piece::Begin { .. } | Piece::Broken(_) | Piece::Failed { .. } => panic!("another piece"),
            };
            sent.extend_from_slice(bytes.as_slice());
            ahead.give_back(bytes);
        }
        assert!(sent == file);
        writer.close().unwrap();
    }
}
