//! Frames that are decompressed while they are sent (PS3.18 8.7.3.3.2).
//!
//! One frame after the other is read, decompressed and handed over. The first frame is decompressed
//! before the head of the response goes out. So a refusal has a status of its own.

use std::sync::Arc;

use tokio::task::spawn_blocking;

use super::frame_source::{FrameSource, Runs};
use super::object_reader::lost;
use super::problem::{Problem, breaks_off};
use crate::pixels::codec::{Codec, CodecError};
use crate::pixels::frames::{Frame, Pixels};
use crate::qr::Instances;
use crate::shares::{CountedPeer, Share};
use crate::web::http_state::HttpState;

/// Frames that are decompressed while they are sent.
pub(super) struct Decompressing {
    codec: &'static Codec,
    server: Arc<HttpState>,
    peer: CountedPeer,
    /// The first frame, which was decompressed before the head of the response went out.
    first: Option<Vec<u8>>,
    /// Memory for one frame.
    _memory: Share,
}

impl Decompressing {
    /// Decompresses the first of the frames.
    pub(super) async fn begin(
        server: &Arc<HttpState>,
        peer: &CountedPeer,
        (instances, found): (Arc<Instances>, &FrameSource),
        frames: &[Frame],
    ) -> Result<Self, Problem> {
        let pixels = &found.pixels;
        let codec = Codec::lossless(&pixels.transfer_syntax).ok_or_else(Problem::ours)?;
        codec.check(&pixels.shape.of_frame()).map_err(|error| Problem::not_decompressed(&error))?;
        let longest = frames.iter().map(|frame| frame.length).max().unwrap_or(0);
        if longest > pixels.shape.most_compressed() {
            return Err(Problem::not_decompressed(&CodecError::Damaged));
        }
        let memory = pixels.frame_bits() / 8 + longest;
        let memory = server.delivery().decoders.memory(peer, memory).ok_or_else(Problem::decoders_are_busy)?;
        let turn = server.decoding(peer).await?;
        let found = found.clone();
        let (shared, frame) = (Arc::clone(server), frames.first().cloned());
        let first = spawn_blocking(move || {
            let _until_its_end = turn;
            let Some(frame) = frame else { return Ok((None, memory)) };
            let mut runs = Runs::of_frames(&shared, instances, &found).map_err(|error| lost(&error))?;
            let stream = runs.whole(&found.pixels, &frame).map_err(|()| Problem::ours())?;
            let native = codec.decompress(&stream, &found.pixels.shape.of_frame());
            // A client that goes away does not end this, so the memory is counted until its end.
            native.map(|native| (Some(native), memory)).map_err(|error| Problem::not_decompressed(&error))
        });
        let (first, memory) = first.await.map_err(|_| Problem::ours())??;
        Ok(Self { codec, server: Arc::clone(server), peer: Arc::clone(peer), first, _memory: memory })
    }

    /// Reads and decompresses the next frame.
    pub(super) fn next(&mut self, runs: &mut Runs, pixels: &Pixels, frame: &Frame) -> Result<Vec<u8>, ()> {
        if let Some(first) = self.first.take() {
            return Ok(first);
        }
        let stream = runs.whole(pixels, frame)?;
        let _until_its_end = self.server.delivery().decoders.blocking_turn(&self.peer);
        self.codec.decompress(&stream, &pixels.shape.of_frame()).map_err(|error| {
            breaks_off("a frame cannot be decompressed", &error);
        })
    }
}
