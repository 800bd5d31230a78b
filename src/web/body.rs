//! Body of a response. Its bytes are at hand, or a thread makes them in pieces while the client
//! takes them.
//!
//! A body that is made in pieces ends by an order to end. If its maker stops without that order,
//! the body is an error. Then hyper resets the stream, and no client takes half an object for a
//! whole one.

use std::io;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::body::{Body as HttpBody, Bytes, Frame, SizeHint};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::debug;

use crate::shares::{Share, Turn};
use crate::store::{Spool, SpoolDirectory};
use crate::web::connection_activity::InFlight;

/// Maximum number of pieces that wait in memory for the client. A response also has one that is
/// written and one that is made.
const WAITING_PIECES: usize = 2;

/// Time that the maker of a body waits for its client, in total, before pieces go to a file.
/// Smaller: clients that are about as fast as the index get files. Larger: the write-ahead log
/// grows while the index is held.
const READER_WAIT: Duration = Duration::from_secs(1);

/// The body of a response.
pub(super) struct Body {
    content: Content,
    /// Counts the request until its response is out, and knows whether it waits for the client.
    in_flight: Option<InFlight>,
    /// Counts its memory until it is out.
    _memory: Option<Share>,
}

enum Content {
    Whole(Option<Bytes>),
    Pieces(mpsc::Receiver<BodyPiece>),
    Ended,
}

enum BodyPiece {
    Bytes(Bytes),
    End,
}

/// The maker of the body stopped before its end.
#[derive(Debug, thiserror::Error)]
#[error("the response could not be made to its end")]
pub(super) struct Broken;

impl Body {
    /// Returns an empty body.
    pub(super) fn empty() -> Self {
        Self { content: Content::Whole(None), in_flight: None, _memory: None }
    }

    /// Returns a body whose pieces come through the outlet.
    pub(super) fn pieces(time_limit: Duration) -> (Outlet, Self) {
        let (sender, receiver) = mpsc::channel(WAITING_PIECES);
        let outlet = Outlet { sender, runtime: Handle::current(), limit: time_limit, backlog: None, _turn: None };
        (outlet, Self { content: Content::Pieces(receiver), in_flight: None, _memory: None })
    }

    /// Returns the same body, which counts as in flight until it is dropped.
    pub(super) fn counted(self, mut in_flight: InFlight) -> Self {
        in_flight.waits_for_client(true);
        Self { in_flight: Some(in_flight), ..self }
    }

    /// Returns the same body, whose memory counts until it is dropped.
    pub(super) fn holding(self, memory: Share) -> Self {
        Self { _memory: Some(memory), ..self }
    }

    /// Returns its length if all its bytes are at hand.
    pub(super) fn length(&self) -> Option<u64> {
        match &self.content {
            Content::Whole(bytes) => Some(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Content::Ended => Some(0),
            Content::Pieces(_) => None,
        }
    }
}

impl<T: Into<Bytes>> From<T> for Body {
    fn from(bytes: T) -> Self {
        let bytes = bytes.into();
        Self { content: Content::Whole((!bytes.is_empty()).then_some(bytes)), in_flight: None, _memory: None }
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let frame = self.content.poll(cx);
        if let Some(in_flight) = &mut self.in_flight {
            // A poll asks for bytes. Until the next poll, the response waits for the client.
            in_flight.waits_for_client(frame.is_ready());
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.content, Content::Whole(None) | Content::Ended)
    }

    fn size_hint(&self) -> SizeHint {
        self.length().map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Content {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let next = match self {
            Self::Whole(bytes) => return Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Ended => return Poll::Ready(None),
            Self::Pieces(receiver) => std::task::ready!(receiver.poll_recv(cx)),
        };
        Poll::Ready(match next {
            Some(BodyPiece::Bytes(bytes)) => Some(Ok(Frame::data(bytes))),
            Some(BodyPiece::End) => {
                *self = Self::Ended;
                None
            }
            None => {
                *self = Self::Ended;
                Some(Err(Broken))
            }
        })
    }
}

/// Entry of the pieces of a body. Its methods wait, so only threads may call them.
pub(super) struct Outlet {
    sender: mpsc::Sender<BodyPiece>,
    runtime: Handle,
    /// Maximum time for the client to take one piece.
    limit: Duration,
    backlog: Option<ResponseBacklog>,
    /// The turn to wait for a client on a thread.
    _turn: Option<Turn>,
}

/// Pieces that wait on disk for a slow client.
struct ResponseBacklog {
    spools: SpoolDirectory,
    time_limit: Duration,
    spool: Option<Spool>,
    is_full: bool,
}

impl Outlet {
    /// Returns the same outlet, whose pieces go to a file if the client is slow. So its maker need
    /// not wait.
    pub(super) fn with_backlog(mut self, spools: &SpoolDirectory) -> Self {
        let spools = spools.clone();
        self.backlog = Some(ResponseBacklog { spools, time_limit: READER_WAIT, spool: None, is_full: false });
        self
    }

    /// Returns the same outlet, which holds a turn until it ends.
    pub(super) fn holding(self, turn: Turn) -> Self {
        Self { _turn: Some(turn), ..self }
    }

    /// Waits until the client has gone.
    pub(super) fn closed(&self) -> impl Future<Output = ()> + Send + use<> {
        let sender = self.sender.clone();
        async move { sender.closed().await }
    }

    /// Hands over a piece. It breaks if the client has gone or takes too long.
    pub(super) fn send(&mut self, bytes: impl Into<Bytes>) -> ControlFlow<()> {
        let bytes = bytes.into();
        if bytes.is_empty() {
            return ControlFlow::Continue(());
        }
        let Some(backlog) = &mut self.backlog else { return self.wait(bytes, self.limit).map_break(|_| ()) };
        if backlog.spool.is_none() {
            let begun = Instant::now();
            let time_limit = backlog.time_limit;
            match self.wait(bytes, time_limit) {
                ControlFlow::Continue(()) => {
                    if let Some(backlog) = &mut self.backlog {
                        backlog.time_limit = backlog.time_limit.saturating_sub(begun.elapsed());
                    }
                    return ControlFlow::Continue(());
                }
                ControlFlow::Break(None) => return ControlFlow::Break(()),
                ControlFlow::Break(Some(bytes)) => return self.keep(bytes),
            }
        }
        self.keep(bytes)
    }

    /// Hands over a piece within this time. It gives the piece back if the client did not take it.
    fn wait(&self, bytes: Bytes, limit: Duration) -> ControlFlow<Option<Bytes>> {
        let permit = match self.sender.try_reserve() {
            Ok(permit) => Ok(Ok(permit)),
            Err(_) => self.runtime.block_on(timeout(limit, self.sender.reserve())),
        };
        match permit {
            Ok(Ok(permit)) => {
                permit.send(BodyPiece::Bytes(bytes));
                ControlFlow::Continue(())
            }
            Ok(Err(_)) => ControlFlow::Break(None),
            Err(_) => ControlFlow::Break(Some(bytes)),
        }
    }

    fn keep(&mut self, bytes: Bytes) -> ControlFlow<()> {
        if self.sender.is_closed() {
            return ControlFlow::Break(());
        }
        let Some(backlog) = &mut self.backlog else { return ControlFlow::Break(()) };
        let kept = match &mut backlog.spool {
            _ if backlog.is_full => Err(io::ErrorKind::StorageFull.into()),
            Some(spool) => spool.push(&bytes),
            none => backlog.spools.spool().and_then(|spool| none.insert(spool).push(&bytes)),
        };
        let Err(error) = kept else { return ControlFlow::Continue(()) };
        debug!("results for a slow client cannot be kept beside the index: {error}");
        // From now on the outlet works as without a file. First the pieces in the file go out, then
        // the rest.
        backlog.is_full = true;
        while let Some(spool) = self.backlog.as_mut().and_then(|backlog| backlog.spool.as_mut()) {
            match spool.pop() {
                Ok(Some(piece)) => self.wait(piece.into(), self.limit).map_break(|_| ())?,
                Ok(None) => break,
                Err(_) => return ControlFlow::Break(()),
            }
        }
        self.wait(bytes, self.limit).map_break(|_| ())
    }

    /// Hands over a piece from a task, which waits without holding a thread. It uses no file.
    pub(super) async fn put(&mut self, bytes: impl Into<Bytes>) -> ControlFlow<()> {
        let bytes = bytes.into();
        if bytes.is_empty() {
            return ControlFlow::Continue(());
        }
        match timeout(self.limit, self.sender.send(BodyPiece::Bytes(bytes))).await {
            Ok(Ok(())) => ControlFlow::Continue(()),
            Ok(Err(_)) | Err(_) => ControlFlow::Break(()),
        }
    }

    /// Ends the body after the last piece of a task.
    pub(super) async fn finish(self) {
        // The client may have gone. Then it needs no end.
        let _ = timeout(self.limit, self.sender.send(BodyPiece::End)).await;
    }

    /// Ends the body after the last piece. Pieces on disk go out without holding this thread.
    pub(super) fn end(self) {
        let Self { sender, runtime, limit, backlog, .. } = self;
        runtime.spawn(async move {
            let mut spool = backlog.and_then(|backlog| backlog.spool);
            while let Some(mut waiting) = spool.take() {
                let Ok((waiting, piece)) = spawn_blocking(move || {
                    let piece = waiting.pop();
                    (waiting, piece)
                })
                .await
                else {
                    return;
                };
                let piece = match piece {
                    Ok(Some(piece)) => piece,
                    Ok(None) => break,
                    Err(error) => {
                        tracing::warn!("results that waited for a slow client cannot be read: {error}");
                        return;
                    }
                };
                if !matches!(timeout(limit, sender.send(BodyPiece::Bytes(piece.into()))).await, Ok(Ok(()))) {
                    return;
                }
                spool = Some(waiting);
            }
            // The client may have gone. Then it needs no end.
            let _ = timeout(limit, sender.send(BodyPiece::End)).await;
        });
    }
}
