//! Rendered frames and thumbnails (PS3.18 10.4.1.1.4): pictures that every browser shows.
//!
//! The request and the size of the frame are checked before memory is taken. Only a few frames are
//! rendered at a time. A frame that cannot be rendered is a 406 with the reason.

use std::sync::Arc;
use std::time::Duration;

use hyper::header::ACCEPT;
use hyper::{Response, StatusCode};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::body::Body;
use super::forms::frame_type;
use super::frame_source::{FrameSource, Runs, frame_source, no_pixels};
use super::frames::{self, numbers};
use super::http_state::{Call, HttpState};
use super::negotiate::{Accept, not_acceptable};
use super::object_reader::lost;
use super::picture::{Native, PictureError, PictureFormat, PictureRequest, SampleKind, check_size, render};
use super::problem::Problem;
use super::resource::SERVICE;
use super::search::warn;
use super::wado_target::{Listed, Target, alone, typed};
use crate::encoding::syntax::{JPEG_BASELINE, is_video};
use crate::encoding::walk::WalkError;
use crate::pixels::codec::Codec;
use crate::pixels::frames::{PixelError, Pixels};
use crate::qr::Instances;

/// Number of columns and of rows of a thumbnail.
const THUMBNAIL_SIDE: u32 = 128;

/// Time for one picture. After it the client gets an error, and the work goes on to its end.
const RENDERING_TIME: Duration = Duration::from_secs(10);

/// Formats of a picture, the default first (PS3.18 table 8.7.4-1).
pub(super) const MEDIA_TYPES: [&str; 3] = ["image/jpeg", "image/png", "image/gif"];

/// Formats of a picture and of a video.
pub(super) const WITH_VIDEO: [&str; 5] = ["image/jpeg", "image/png", "image/gif", "video/mp4", "video/mpeg"];

/// Answers with a frame as a picture. It is a frame of an instance, or of the middle of a series or
/// study.
pub(super) async fn answer(
    server: &Arc<HttpState>,
    call: &Call<'_>,
    is_thumbnail: bool,
) -> Result<Response<Body>, Problem> {
    let mut wanted = PictureRequest::of(call.query).map_err(Problem::bad_request)?;
    if is_thumbnail && wanted.viewport.is_none() {
        wanted.viewport = Some((THUMBNAIL_SIDE, THUMBNAIL_SIDE));
    }
    let accept = Accept::of(call.headers.get_all(ACCEPT), call.query);
    accept.choose(&WITH_VIDEO).ok_or_else(|| not_acceptable(&MEDIA_TYPES))?;
    let number = match call.route.parameter("frames") {
        "" => 1,
        raw => match numbers(raw)?.as_slice() {
            [one] => *one,
            _ => return Err(Problem::bad_request("one frame is rendered at a time")),
        },
    };
    let annotations = wanted.annotations;
    let mut response = send(server, call, &Target::of(call)?, (number, wanted), &accept).await?;
    if let Some(annotations) = annotations {
        let text = format!("The following annotation values are not supported: {annotations}");
        warn(response.headers_mut(), &format!("{}{SERVICE}", call.base), &text);
    }
    Ok(response)
}

/// Sends a frame of the middle instance of a target as a picture. A video goes out as it is stored
/// to whoever takes it, unless it has to fit into a viewport.
pub(super) async fn send(
    server: &Arc<HttpState>,
    call: &Call<'_>,
    target: &Target,
    (number, wanted): (u32, PictureRequest),
    accept: &Accept,
) -> Result<Response<Body>, Problem> {
    let Listed { instances, .. } = target.instances(server, call).await?;
    let one = middle(&instances).ok_or_else(|| Problem::not_found("there is nothing to render"))?;
    let found = frame_source(server, &call.peer, &one, cannot_be_shown).await?;
    let stored = &found.pixels.transfer_syntax;
    let video = frame_type(stored);
    let is_chosen = || accept.choose(&[&[video], MEDIA_TYPES.as_slice()].concat()) == Some(video);
    if is_video(stored) && wanted.viewport.is_none() && is_chosen() {
        return frames::send(server, call, (one, found), Some(vec![number]), accept).await;
    }
    let media_type = accept.choose(&MEDIA_TYPES).ok_or_else(|| not_acceptable(&MEDIA_TYPES))?;
    let format = PictureFormat::of(media_type).ok_or_else(Problem::ours)?;
    let turn = server.decoding(&call.peer).await?;
    let shared = Arc::clone(server);
    let rendered = spawn_blocking(move || {
        let _until_its_end = turn;
        picture(&shared, (one, &found), number, &wanted, format)
    });
    let rendered = timeout(RENDERING_TIME, rendered).await.map_err(|_| not_rendered("it takes too long"))?;
    let bytes = rendered.map_err(|_| Problem::ours())??;
    typed(Body::from(bytes), media_type)
}

fn not_rendered(why: impl std::fmt::Display) -> Problem {
    Problem::new(StatusCode::NOT_ACCEPTABLE, format!("not rendered: {why}; the frames can be retrieved as stored"))
}

/// Says why an object that is there has no picture. A frame that it does not have is not there.
fn cannot_be_shown(error: &PixelError) -> Problem {
    match error {
        PixelError::NoSuchFrame(_) | PixelError::Walk(WalkError::Read(_)) => no_pixels(error),
        PixelError::None | PixelError::Contradiction(_) | PixelError::Walk(_) => {
            Problem::new(StatusCode::NOT_ACCEPTABLE, format!("not rendered: {error}"))
        }
    }
}

impl From<PictureError> for Problem {
    fn from(error: PictureError) -> Self {
        match error {
            PictureError::Region => Self::bad_request(error.to_string()),
            PictureError::TooLarge
            | PictureError::TooManyColours
            | PictureError::SampleKind
            | PictureError::NoPalette
            | PictureError::Short => not_rendered(error),
            PictureError::Encoder => {
                tracing::error!("a frame could not be rendered");
                Self::ours()
            }
        }
    }
}

/// Returns the instance in the middle of a list.
fn middle(instances: &Instances) -> Option<Arc<Instances>> {
    instances.get(instances.len() / 2).map(|instance| alone(&instance))
}

/// Reads and renders one frame.
fn picture(
    server: &HttpState,
    (instances, found): (Arc<Instances>, &FrameSource),
    number: u32,
    wanted: &PictureRequest,
    format: PictureFormat,
) -> Result<Vec<u8>, Problem> {
    let pixels = &found.pixels;
    let frame = pixels.frame(number).map_err(|error| cannot_be_shown(&error))?;
    let (shape, transforms) = (&pixels.shape, &pixels.transforms);
    let (columns, rows) = (u32::from(shape.columns), u32::from(shape.rows));
    check_size(columns, rows)?;
    let codec = match pixels.is_encapsulated() {
        true => Some(
            Codec::of(&pixels.transfer_syntax)
                .ok_or_else(|| not_rendered("frames of this transfer syntax are not decompressed here"))?,
        ),
        false => None,
    };
    let kind = kind(pixels, codec)?;
    if let Some(codec) = codec {
        codec.check(&shape.of_frame()).map_err(not_rendered)?;
        if frame.length > shape.most_compressed() {
            return Err(not_rendered("the compressed frame is longer than its pixels"));
        }
    }
    let mut runs = Runs::of_frames(server, instances, found).map_err(|error| lost(&error))?;
    let mut bytes = runs.whole(pixels, &frame).map_err(|()| Problem::ours())?;
    if is_shown_as_it_is(pixels) && format == PictureFormat::Jpeg && wanted.changes_nothing() {
        return Ok(bytes);
    }
    if let Some(codec) = codec {
        bytes = codec.decompress(&bytes, &shape.of_frame()).map_err(|error| Problem::not_decompressed(&error))?;
    }
    Ok(render(&Native { bytes: &bytes, columns, rows, kind }, transforms, number, wanted, format)?)
}

/// Returns the kind of the native samples.
fn kind(pixels: &Pixels, codec: Option<&Codec>) -> Result<SampleKind, PictureError> {
    let (shape, transforms) = (&pixels.shape, &pixels.transforms);
    if shape.is_float {
        let is_inverse = transforms.photometric == "MONOCHROME1";
        return Ok(SampleKind::Float { bytes: usize::from(shape.bits_allocated / 8), is_inverse });
    }
    let photometric = codec.map_or(transforms.photometric.as_str(), |codec| codec.photometric(&transforms.photometric));
    SampleKind::of(photometric, shape.samples, shape.bits_allocated, shape.is_planar)
}

/// Whether a browser shows the stored stream as the object means it. Without a marker, a browser
/// takes colours for YCbCr. Greys may have a window.
fn is_shown_as_it_is(pixels: &Pixels) -> bool {
    pixels.transfer_syntax == JPEG_BASELINE
        && matches!(pixels.transforms.photometric.as_str(), "YBR_FULL" | "YBR_FULL_422")
}
