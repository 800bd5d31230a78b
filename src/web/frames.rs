//! WADO-RS frames and bulk data (PS3.18 10.4.1.1.3, 10.4.1.1.5): runs of bytes of one object.
//!
//! The places of the frames of an object are found once and kept. A frame is then one read, of a
//! file or of a member of an archive. The object is never read as a whole. Frames of a lossless
//! transfer syntax are decompressed if the client wants native ones.

use std::sync::Arc;

use hyper::header::{ACCEPT, CONTENT_LENGTH, HeaderValue};
use hyper::{Response, StatusCode};
use tokio::task::spawn_blocking;

use super::body::{Body, Outlet};
use super::decompress::Decompressing;
use super::forms::{self, FrameForm, OCTETS, Wrapping, frame_type};
use super::frame_source::{FrameSource, Runs, frame_source, no_pixels};
use super::multipart::Parts;
use super::negotiate::{Accept, not_acceptable};
use super::object_reader::{OpenObject, lost};
use super::piece_buffers::{PIECE_BYTES, PieceBuffer, PieceBuffers};
use super::problem::{Problem, breaks_off};
use super::query::decode;
use super::ranges::{Selected, Window, add_range, selected_by};
use super::wado_target::{Listed, Target, typed};
use crate::archive::Archives;
use crate::encoding::padding::without_padding;
use crate::encoding::syntax::EXPLICIT_VR_LITTLE_ENDIAN;
use crate::encoding::tag::{parse_tag, tag_number};
use crate::encoding::walk::Event;
use crate::model::location::Location;
use crate::pixels::codec::Codec;
use crate::pixels::frames::{Frame, MAX_FRAGMENTS, PixelError, Pixels};
use crate::qr::Instances;
use crate::web::http_state::{Call, HttpState};

/// Maximum number of frames of one request. OHIF asks for one, and dicom-microscopy-viewer for
/// some.
const MAX_FRAMES: usize = 10_000;

/// Maximum length of a native frame whose bits have to be moved. This happens in memory.
const MAX_MOVED: u64 = 256 << 20;

/// Maximum number of steps of a path to a value. A step is a tag, and for each sequence an item and
/// a tag.
const MAX_STEPS: usize = 64;

/// MIME Type of Encapsulated Document: the type of an encapsulated document.
const MIME_TYPE: u32 = 0x0042_0012;

/// Reads the frames of a path. They are numbers from 1, separated by commas, in the requested
/// order.
pub(super) fn numbers(raw: &str) -> Result<Vec<u32>, Problem> {
    let text = decode(raw).unwrap_or_default();
    let number = |text: &str| {
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u32>().ok().filter(|number| is_number && *number > 0)
    };
    let numbers: Option<Vec<u32>> = text.split(',').take(MAX_FRAMES + 1).map(|text| number(text.trim())).collect();
    match numbers {
        Some(numbers) if numbers.len() > MAX_FRAMES => Err(Problem::bad_request("more than 10,000 frames")),
        Some(numbers) => Ok(numbers),
        None => Err(Problem::bad_request("frames are numbers from 1, separated by commas")),
    }
}

/// Answers with frames of an instance.
pub(super) async fn answer(server: &Arc<HttpState>, call: &Call<'_>) -> Result<Response<Body>, Problem> {
    let wanted = numbers(call.route.parameter("frames"))?;
    let accept = Accept::of(call.headers.get_all(ACCEPT), call.query);
    let instances = one(server, call).await?;
    let found = frame_source(server, &call.peer, &instances, no_pixels).await?;
    send(server, call, (instances, found), Some(wanted), &accept).await
}

/// Returns the list of the one instance of a path, whose object is at hand.
async fn one(server: &Arc<HttpState>, call: &Call<'_>) -> Result<Arc<Instances>, Problem> {
    let Listed { instances, .. } = Target::of(call)?.instances(server, call).await?;
    Ok(instances)
}

/// Sends frames. Without numbers, it sends all of them.
pub(super) async fn send(
    server: &Arc<HttpState>,
    call: &Call<'_>,
    (instances, found): (Arc<Instances>, FrameSource),
    wanted: Option<Vec<u32>>,
    accept: &Accept,
) -> Result<Response<Body>, Problem> {
    let pixels = Arc::clone(&found.pixels);
    let wanted = wanted.unwrap_or_else(|| (1..=pixels.frames()).collect());
    let Some((wrapping, media_type, form)) = forms::frames(accept, &pixels.transfer_syntax, wanted.len()) else {
        return Err(not_as_wanted(&pixels));
    };
    let frames = frames_of(&pixels, &wanted)?;
    let begin = || Decompressing::begin(server, &call.peer, (Arc::clone(&instances), &found), &frames);
    let decompressing = match form {
        FrameForm::AsStored => None,
        FrameForm::Decompressed => Some(begin().await?),
        FrameForm::DecompressedIfPossible => match begin().await {
            Err(problem) if problem.status == StatusCode::NOT_ACCEPTABLE => None,
            begun => Some(begun?),
        },
    };
    let sent_syntax = if decompressing.is_some() { EXPLICIT_VR_LITTLE_ENDIAN } else { sent_syntax(&pixels) };
    let native_length = decompressing.as_ref().map(|_| pixels.frame_bits().div_ceil(8));
    let length_of = |frame: &Frame| native_length.unwrap_or(frame.length);
    let content_type = format!("{media_type}; transfer-syntax={sent_syntax}");
    let parts = Parts::new();
    let single_length = frames.first().map(length_of).filter(|_| wrapping == Wrapping::Single);
    let part = match single_length {
        Some(length) => selected_by(call.headers, length)?,
        None => Selected::All,
    };
    let heads: Vec<String> = match wrapping {
        Wrapping::Single => Vec::new(),
        Wrapping::Multipart => frames.iter().map(|frame| parts.head(&content_type, Some(length_of(frame)))).collect(),
    };
    let (outlet, body) = server.written_body(&call.peer).await?;
    let mut response = match wrapping {
        Wrapping::Single => typed(body, &content_type)?,
        Wrapping::Multipart => typed(body, &parts.content_type(media_type))?,
    };
    match wrapping {
        Wrapping::Single => add_range(&mut response, part, single_length),
        Wrapping::Multipart => {
            let length: u64 = frames.iter().map(length_of).sum::<u64>()
                + heads.iter().map(|head| head.len() as u64).sum::<u64>()
                + parts.end().len() as u64;
            response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
    }
    let shared = Arc::clone(server);
    spawn_blocking(move || {
        let end = (wrapping == Wrapping::Multipart).then(|| parts.end());
        let mut writing = Writing::new(&shared, outlet, part, decompressing);
        let written = Runs::of_frames(&shared, instances, &found)
            .map_err(|error| breaks_off("an object cannot be opened again", &error))
            .and_then(|mut runs| writing.frames(&mut runs, &pixels, &frames, &heads))
            .and_then(|()| writing.put(end.unwrap_or_default().as_bytes()))
            .and_then(|()| writing.flush());
        if written.is_ok() {
            writing.outlet.end();
        }
    });
    Ok(response)
}

/// Looks up all frames before anything goes out. So a missing frame is a 404, not half an answer.
fn frames_of(pixels: &Pixels, wanted: &[u32]) -> Result<Vec<Frame>, Problem> {
    let frames: Result<Vec<Frame>, PixelError> = wanted.iter().map(|number| pixels.frame(*number)).collect();
    let frames = frames.map_err(|error| no_pixels(&error))?;
    if frames.iter().any(|frame| frame.shift > 0 && frame.length > MAX_MOVED) {
        return Err(Problem::not_found("a frame of single bits that is longer than 256 MiB is not sent by itself"));
    }
    Ok(frames)
}

/// Returns status 406 with the available forms of frames.
fn not_as_wanted(pixels: &Pixels) -> Problem {
    let own = frame_type(&pixels.transfer_syntax);
    let of = |kind: &str, uid: &str| format!("multipart/related; type=\"{kind}\"; transfer-syntax={uid}");
    let stored = sent_syntax(pixels);
    let mut offers = vec![of(OCTETS, stored), of(own, stored)];
    if Codec::lossless(&pixels.transfer_syntax).is_some() {
        offers.push(of(OCTETS, EXPLICIT_VR_LITTLE_ENDIAN));
    }
    offers.dedup();
    not_acceptable(&offers.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Returns the transfer syntax of frames that are sent as stored.
fn sent_syntax(pixels: &Pixels) -> &str {
    if pixels.is_encapsulated() { &pixels.transfer_syntax } else { EXPLICIT_VR_LITTLE_ENDIAN }
}

/// Writes bytes into a body, in pieces.
struct Writing {
    outlet: Outlet,
    window: Window,
    pieces: Arc<PieceBuffers>,
    gathered: Option<PieceBuffer>,
    decompressing: Option<Decompressing>,
}

impl Writing {
    fn new(server: &HttpState, outlet: Outlet, part: Selected, decompressing: Option<Decompressing>) -> Self {
        let pieces = Arc::clone(&server.pieces);
        Self { outlet, window: Window::of(part), pieces, gathered: None, decompressing }
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), ()> {
        let mut rest = self.window.cut(bytes);
        while !rest.is_empty() {
            let gathered = self.gathered.get_or_insert_with(|| PieceBuffers::take(&self.pieces));
            rest = gathered.push(rest);
            if gathered.is_full() {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), ()> {
        let Some(gathered) = self.gathered.take() else { return Ok(()) };
        if self.outlet.send(gathered.into_bytes()).is_break() { Err(()) } else { Ok(()) }
    }

    fn frames(&mut self, runs: &mut Runs, pixels: &Pixels, frames: &[Frame], heads: &[String]) -> Result<(), ()> {
        for (at, frame) in frames.iter().enumerate() {
            self.put(heads.get(at).map_or("", String::as_str).as_bytes())?;
            if let Some(decompressing) = &mut self.decompressing {
                let native = decompressing.next(runs, pixels, frame)?;
                native.chunks(PIECE_BYTES).try_for_each(|piece| self.put(piece))?;
            } else if pixels.is_encapsulated() || frame.shift == 0 && pixels.shape.bits_allocated != 1 {
                for range in &frame.ranges {
                    runs.read(*range, &mut |bytes| self.put(bytes))?;
                }
            } else {
                let packed = runs.whole(pixels, frame)?;
                packed.chunks(PIECE_BYTES).try_for_each(|piece| self.put(piece))?;
            }
        }
        Ok(())
    }
}

/// Answers with the value of one element of an instance, which metadata name by its URI.
pub(super) async fn bulk_data(server: &Arc<HttpState>, call: &Call<'_>) -> Result<Response<Body>, Problem> {
    let steps = steps(call.route.parameter("path"))?;
    let accept = Accept::of(call.headers.get_all(ACCEPT), call.query);
    let instances = one(server, call).await?;
    if steps.as_slice() == [0x7FE0_0010] {
        let found = frame_source(server, &call.peer, &instances, no_pixels).await?;
        if found.pixels.is_encapsulated() {
            return send(server, call, (instances, found), None, &accept).await;
        }
    }
    let turn = server.turn(&call.peer).await?;
    let (shared, listed) = (Arc::clone(server), Arc::clone(&instances));
    let value = spawn_blocking(move || {
        let _until_its_end = turn;
        let instance = listed.get(0).ok_or_else(Problem::ours)?;
        let mut reader = shared.readers.take()?;
        let opened = OpenObject::open(&mut reader, shared.delivery().verified(), &instance, &Archives::default());
        shared.readers.give_back(reader);
        value(opened.map_err(|error| lost(&error))?, &steps)
    });
    let Value { ranges, fragments_of, mime_type, location } = value.await.map_err(|_| Problem::ours())??;
    let syntax = fragments_of.as_deref().unwrap_or(EXPLICIT_VR_LITTLE_ENDIAN);
    let Some((wrapping, mut media_type)) = forms::bulk(&accept, mime_type.as_deref(), syntax) else {
        return Err(not_acceptable(&[OCTETS, "multipart/related; type=\"application/octet-stream\""]));
    };
    if let Some(transfer_syntax) = fragments_of {
        media_type.push_str(&format!("; transfer-syntax={transfer_syntax}"));
    }
    let length = ranges.iter().map(|(_, length)| length).sum();
    let parts = Parts::new();
    let head = parts.head(&media_type, Some(length));
    let part = match wrapping {
        Wrapping::Single => selected_by(call.headers, length)?,
        Wrapping::Multipart => Selected::All,
    };
    let (outlet, body) = server.written_body(&call.peer).await?;
    let mut response = match wrapping {
        Wrapping::Single => typed(body, &media_type)?,
        Wrapping::Multipart => typed(body, &parts.content_type(&media_type))?,
    };
    let (before, behind) = match wrapping {
        Wrapping::Single => {
            add_range(&mut response, part, Some(length));
            (String::new(), String::new())
        }
        Wrapping::Multipart => (head, parts.end()),
    };
    let shared = Arc::clone(server);
    spawn_blocking(move || {
        let mut writing = Writing::new(&shared, outlet, part, None);
        let written = Runs::open(&shared, instances, location)
            .map_err(|error| breaks_off("an object cannot be opened again", &error))
            .and_then(|mut runs| {
                writing.window_free(before.as_bytes(), part)?;
                for range in ranges {
                    runs.read(range, &mut |bytes| writing.put(bytes))?;
                }
                writing.put(behind.as_bytes())?;
                writing.flush()
            });
        if written.is_ok() {
            writing.outlet.end();
        }
    });
    Ok(response)
}

impl Writing {
    /// Puts the bytes before the first part. A response with a range has no parts.
    fn window_free(&mut self, bytes: &[u8], part: Selected) -> Result<(), ()> {
        if part == Selected::All { self.put(bytes) } else { Ok(()) }
    }
}

/// Reads the tags and item numbers of a path to a value, as in `tag` or `tag/item/tag`.
fn steps(raw: &str) -> Result<Vec<u32>, Problem> {
    let refused = || Problem::bad_request("the path to a value is a tag, or tags with item numbers between them");
    let mut steps = Vec::new();
    for (at, text) in raw.split('/').enumerate() {
        let step = if at % 2 == 0 {
            parse_tag(text).map(tag_number)
        } else {
            text.parse::<u32>().ok().filter(|item| *item > 0 && text.bytes().all(|byte| byte.is_ascii_digit()))
        };
        steps.push(step.ok_or_else(refused)?);
        if steps.len() > MAX_STEPS {
            return Err(refused());
        }
    }
    if steps.len() % 2 == 1 { Ok(steps) } else { Err(refused()) }
}

/// The place of a value.
struct Value {
    /// Its runs of bytes, in order.
    ranges: Vec<(u64, u64)>,
    /// The transfer syntax of a value in fragments.
    fragments_of: Option<String>,
    mime_type: Option<String>,
    location: Location,
}

/// Walks to a value.
fn value(object: OpenObject, steps: &[u32]) -> Result<Value, Problem> {
    let OpenObject { mut walk, transfer_syntax, location } = object;
    // The path is that of the metadata.
    walk.open_unknown_sequences();
    let not_there = || Problem::not_found("the object has no such value");
    let mut mime_type = None;
    // Number of steps done, and the current item of each open sequence.
    let mut at = 0;
    let mut items: Vec<u32> = Vec::new();
    let mut found = None;
    loop {
        let event = walk.next().map_err(|error| no_pixels(&PixelError::Walk(error)))?;
        let is_on_path = at == items.len() * 2;
        match event {
            Event::End => break,
            Event::Value { tag, .. } if tag == MIME_TYPE && items.is_empty() => {
                let bytes = walk.value(tag, 256).unwrap_or_default();
                let text = String::from_utf8_lossy(&bytes);
                mime_type = super::negotiate::MediaRange::parse(without_padding(&text))
                    .map(|range| format!("{}/{}", range.essence.0, range.essence.1))
                    .filter(|own| !own.contains('*'));
            }
            Event::Value { tag, length, offset, .. } if is_on_path && steps.get(at..) == Some(&[tag]) => {
                found = Some((vec![(offset, u64::from(length))], None));
            }
            Event::Fragments { tag, .. } if is_on_path && steps.get(at..) == Some(&[tag]) => {
                let ranges = walk.fragments(tag, MAX_FRAGMENTS).map_err(|error| no_pixels(&PixelError::Walk(error)))?;
                found = Some((ranges, Some(transfer_syntax.clone())));
            }
            Event::Sequence { tag } => {
                if is_on_path && steps.get(at) == Some(&tag) && steps.len() > at + 1 {
                    at += 1;
                }
                items.push(0);
            }
            Event::Item => {
                if let Some(item) = items.last_mut() {
                    *item += 1;
                    if at == items.len() * 2 - 1 && steps.get(at) == items.last() {
                        at += 1;
                    }
                }
            }
            Event::ItemEnd => {
                if at == items.len() * 2 {
                    at -= 1;
                }
            }
            Event::SequenceEnd => {
                if at == items.len() * 2 - 1 {
                    at -= 1;
                }
                items.pop();
            }
            Event::Value { .. } | Event::Fragments { .. } => {}
        }
        // The type of an encapsulated document follows after it.
        if found.is_some() && !matches!(steps, [0x0042_0011]) || mime_type.is_some() && found.is_some() {
            break;
        }
    }
    let (ranges, fragments_of) = found.ok_or_else(not_there)?;
    Ok(Value { ranges, fragments_of, mime_type, location })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_numbers_from_one() {
        assert_eq!(numbers("1").unwrap(), [1]);
        assert_eq!(numbers("3,1,2").unwrap(), [3, 1, 2]);
        assert_eq!(numbers("1%2C2").unwrap(), [1, 2]);
        for bad in ["", "0", "1,", ",1", "-1", "1.5", "a", "1,,2", "99999999999", "+1"] {
            assert!(numbers(bad).is_err(), "{bad}");
        }
        assert!(numbers(&vec!["1"; MAX_FRAMES + 1].join(",")).is_err());
    }

    #[test]
    fn a_path_has_tags_and_items() {
        assert_eq!(steps("00420011").unwrap(), [0x0042_0011]);
        assert_eq!(steps("52009229/2/00281201").unwrap(), [0x5200_9229, 2, 0x0028_1201]);
        for bad in [
            "",
            "0042",
            "00420011/",
            "00420011/1",
            "00420011/0/00420011",
            "0042001g",
            "+0420011",
            "../x",
            "00420011/-1/00420011",
        ] {
            assert!(steps(bad).is_err(), "{bad}");
        }
    }
}
