//! Frames and whole objects that are decompressed while they are sent (PS3.18 8.7.3.3.2, 8.7.3.5).
//!
//! One frame after the other is read, decompressed and handed over. The first frame is decompressed
//! before the head of the response goes out. So a refusal has a status of its own.

use std::sync::Arc;

use dicom_core::VR;
use hyper::StatusCode;
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;

use super::found::{Found, Runs, no_pixels};
use super::objects::{OpenObject, lost};
use super::piece::PIECE_BYTES;
use super::problem::Problem;
use crate::archive::Archives;
use crate::encoding::syntax::Encoding;
use crate::encoding::vr::has_long_length;
use crate::encoding::walk::{Event, WalkError};
use crate::pixels::codec::{Codec, CodecError};
use crate::pixels::places::{Frame, PixelError, Pixels};
use crate::qr::Instances;
use crate::shares::{CountedPeer, Share};
use crate::web::call::Answering;

/// Frames that are decompressed while they are sent.
pub(super) struct Decompressing {
    codec: &'static Codec,
    answering: Arc<Answering>,
    /// The first frame, which was decompressed before the head of the response went out.
    first: Option<Vec<u8>>,
    /// Memory for one frame.
    _memory: Share,
}

impl Decompressing {
    /// Decompresses the first of the frames.
    pub(super) async fn begin(
        answering: &Arc<Answering>,
        peer: &CountedPeer,
        (instances, found): (Arc<Instances>, &Found),
        frames: &[Frame],
    ) -> Result<Self, Problem> {
        let pixels = &found.pixels;
        let codec = Codec::lossless(&pixels.transfer_syntax).ok_or_else(Problem::ours)?;
        codec.check(&pixels.shape.of_frame()).map_err(|error| not_decompressed(&error))?;
        let longest = frames.iter().map(|frame| frame.length).max().unwrap_or(0);
        if longest > pixels.shape.most_compressed() {
            return Err(not_decompressed(&CodecError::Damaged));
        }
        let memory = usize::try_from(pixels.frame_bits() / 8 + longest).map_err(|_| Problem::ours())?;
        let busy = || Problem::busy("many frames are being decompressed; try again");
        let memory = answering.decoded.take(peer, memory).ok_or_else(busy)?;
        let permit = answering.decoding().await?;
        let found = Found { pixels: Arc::clone(pixels), location: found.location.clone() };
        let (shared, frame) = (Arc::clone(answering), frames.first().cloned());
        let first = spawn_blocking(move || {
            let _until_its_end = permit;
            let Some(frame) = frame else { return Ok(None) };
            let mut runs = Runs::of_frames(&shared, instances, &found).map_err(|error| lost(&error))?;
            let stream = runs.whole(&found.pixels, &frame).map_err(|()| Problem::ours())?;
            let native = codec.decompress(&stream, &found.pixels.shape.of_frame());
            native.map(Some).map_err(|error| not_decompressed(&error))
        });
        let first = first.await.map_err(|_| Problem::ours())??;
        Ok(Self { codec, answering: Arc::clone(answering), first, _memory: memory })
    }

    /// Reads and decompresses the next frame.
    pub(super) fn next(&mut self, runs: &mut Runs, pixels: &Pixels, frame: &Frame) -> Result<Vec<u8>, ()> {
        if let Some(first) = self.first.take() {
            return Ok(first);
        }
        let permit = Handle::current().block_on(Arc::clone(&self.answering.decoding).acquire_owned());
        let _until_its_end = permit.map_err(|_| ())?;
        let stream = runs.whole(pixels, frame)?;
        self.codec.decompress(&stream, &pixels.shape.of_frame()).map_err(|error| {
            tracing::warn!(%error, "a retrieval over HTTP breaks off: a frame cannot be decompressed");
        })
    }
}

/// Returns status 406 with the reason of the decoder.
pub(super) fn not_decompressed(error: &CodecError) -> Problem {
    let why = format!("not decompressed: {error}; the frames can be retrieved as stored");
    Problem::new(StatusCode::NOT_ACCEPTABLE, why)
}

/// Longest value of one element (PS3.5 7.1.1). It must be even.
const MAX_VALUE: u64 = 0xFFFF_FFFE;

/// Length of an element header with a 32-bit length.
const LONG_HEADER: u64 = 12;

/// Photometric Interpretation.
const PHOTOMETRIC: u32 = 0x0028_0004;

/// A part of a decompressed object.
#[derive(Clone, Debug, PartialEq, Eq)]
enum ObjectPart {
    /// These bytes of the stored object.
    Copy((u64, u64)),
    /// The stored object from here to its end.
    Rest(u64),
    /// Bytes that replace others.
    Bytes(Vec<u8>),
    /// All frames.
    Frames,
}

/// A data set in Explicit VR Little Endian, made of a compressed object.
///
/// It differs from the stored one in Pixel Data, and lacks offset tables, which only compressed
/// frames have. Photometric Interpretation differs too if a transform of the compression was
/// undone.
pub(super) struct DecompressedObject {
    runs: Runs,
    pixels: Arc<Pixels>,
    frames: Vec<Frame>,
    parts: Vec<ObjectPart>,
    decompressing: Decompressing,
}

impl DecompressedObject {
    /// Opens an object and decompresses its first frame.
    pub(super) async fn open(
        answering: &Arc<Answering>,
        peer: &CountedPeer,
        instances: Arc<Instances>,
        found: Found,
    ) -> Result<Self, Problem> {
        let pixels = Arc::clone(&found.pixels);
        let codec = Codec::lossless(&pixels.transfer_syntax).ok_or_else(Problem::ours)?;
        let frames: Result<Vec<Frame>, PixelError> = (1..=pixels.frames()).map(|number| pixels.frame(number)).collect();
        let frames = frames.map_err(|error| no_pixels(&error))?;
        let length = pixels.frame_bits() / 8 * frames.len() as u64;
        if length > MAX_VALUE {
            let why =
                "the decompressed pixel data would be longer than 4 GiB, which Explicit VR Little Endian cannot hold";
            return Err(Problem::new(StatusCode::NOT_ACCEPTABLE, why));
        }
        let decompressing = Decompressing::begin(answering, peer, (Arc::clone(&instances), &found), &frames).await?;
        let shared = Arc::clone(answering);
        let opened = spawn_blocking(move || {
            let instance = instances.get(0).ok_or_else(Problem::ours)?;
            let object = OpenObject::at(found.location.clone(), &instance, &Archives::default());
            let parts = parts(object.map_err(|error| lost(&error))?, &found.pixels, codec, length);
            let parts = parts.map_err(|error| no_pixels(&PixelError::Walk(error)))?;
            let runs = Runs::of_frames(&shared, Arc::clone(&instances), &found).map_err(|error| lost(&error))?;
            Ok::<_, Problem>((parts, runs))
        });
        let (parts, runs) = opened.await.map_err(|_| Problem::ours())??;
        Ok(Self { runs, pixels, frames, parts, decompressing })
    }

    /// Hands over the data set in pieces, until `put` says to stop.
    pub(super) fn write(mut self, put: &mut dyn FnMut(&[u8]) -> Result<(), ()>) -> Result<(), ()> {
        for part in &self.parts {
            match part {
                ObjectPart::Copy(range) => self.runs.read(*range, put)?,
                ObjectPart::Rest(from) => self.runs.rest(*from, put)?,
                ObjectPart::Bytes(bytes) => put(bytes)?,
                ObjectPart::Frames => {
                    for frame in &self.frames {
                        let native = self.decompressing.next(&mut self.runs, &self.pixels, frame)?;
                        native.chunks(PIECE_BYTES).try_for_each(&mut *put)?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// Divides an object into parts that are copied and parts that are replaced.
fn parts(object: OpenObject, pixels: &Pixels, codec: &Codec, length: u64) -> Result<Vec<ObjectPart>, WalkError> {
    let OpenObject { mut walk, data_set_offset, .. } = object;
    let mut parts = Vec::new();
    // Everything before this place is copied or replaced.
    let mut done = data_set_offset;
    let mut replace = |done: &mut u64, start: u64, end: u64, bytes: Vec<u8>| {
        parts.push(ObjectPart::Copy((*done, start.saturating_sub(*done))));
        parts.push(ObjectPart::Bytes(bytes));
        *done = end;
    };
    loop {
        let event = walk.next()?;
        let is_root = walk.depth() == 0;
        match event {
            Event::Value { tag, vr, length, offset } if is_root => {
                let end = offset + u64::from(length);
                let start = offset - header_length(vr);
                match tag {
                    PHOTOMETRIC => {
                        let photometric = codec.photometric(&pixels.looks.photometric);
                        if photometric != pixels.looks.photometric {
                            replace(&mut done, start, end, short_text(tag, VR::CS, photometric));
                        }
                    }
                    // Group lengths of groups that change, and offset tables.
                    0x0028_0000 | 0x7FE0_0000..=0x7FE0_0003 => replace(&mut done, start, end, Vec::new()),
                    _ => {}
                }
            }
            Event::Fragments { tag: 0x7FE0_0010, offset, .. } if is_root => {
                let mut end = offset;
                while let Some((fragment, length)) = walk.fragment()? {
                    end = fragment + u64::from(length);
                }
                // The delimiter after the last fragment.
                let end = end + 8;
                let padded = length + length % 2;
                replace(&mut done, offset - LONG_HEADER, end, pixel_header(pixels.shape.bits_allocated, padded));
                parts.push(ObjectPart::Frames);
                if length % 2 == 1 {
                    parts.push(ObjectPart::Bytes(vec![0]));
                }
                parts.push(ObjectPart::Rest(end));
                return Ok(parts);
            }
            Event::End => return Err(WalkError::Misplaced(0x7FE0_0010)),
            _ => {}
        }
    }
}

/// Returns the length of an element header in Explicit VR.
fn header_length(vr: VR) -> u64 {
    if has_long_length(vr) { LONG_HEADER } else { 8 }
}

/// Returns a short element with a text.
fn short_text(tag: u32, vr: VR, text: &str) -> Vec<u8> {
    let padding = text.len() % 2;
    let mut element = Vec::new();
    // The text is one of our own.
    let length = u32::try_from(text.len() + padding).unwrap_or(0);
    Encoding::ExplicitLittle.push_header(&mut element, tag, vr.to_bytes(), length);
    element.extend_from_slice(text.as_bytes());
    element.extend(std::iter::repeat_n(b' ', padding));
    element
}

/// Returns the header of Pixel Data (PS3.5 A.2).
fn pixel_header(bits_allocated: u16, length: u64) -> Vec<u8> {
    let letters = if bits_allocated > 8 { *b"OW" } else { *b"OB" };
    let mut header = Vec::new();
    // The length is at most `MAX_VALUE`.
    Encoding::ExplicitLittle.push_header(&mut header, 0x7FE0_0010, letters, u32::try_from(length).unwrap_or(0));
    header
}
