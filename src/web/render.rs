//! Rendered frames and thumbnails (PS3.18 10.4.1.1.4): pixels to a picture that every browser shows.
//!
//! Frames that are not compressed are rendered, in grey and in colour, and those of JPEG Baseline. One of JPEG
//! Baseline goes out as it is where nothing has to be changed of it. Everything else is 406 and says so. What a request asks for
//! is checked before memory is taken, and only two pictures are made at a time.

use std::io::Cursor;
use std::sync::Arc;

use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::PngEncoder;
use image::imageops::{FilterType, resize};
use image::{ExtendedColorType, ImageBuffer, ImageEncoder as _, ImageFormat, ImageReader, Limits, Luma, Rgb};
use tokio::task::spawn_blocking;

use super::body::Body;
use super::call::{Answering, Call};
use super::frames::{Found, Runs, found, no_pixels, numbers};
use super::negotiate::{Accept, not_acceptable};
use super::pixels::{Looks, Pixels};
use super::problem::Problem;
use super::query::pairs;
use super::target::{Listed, Target};
use crate::qr::Instances;

/// Pixels of a frame that is rendered.
const MAX_SOURCE_PIXELS: u64 = 100_000_000;

/// Columns and rows of a picture.
const MAX_SIDE: u32 = 4096;

/// Columns and rows of a thumbnail.
const THUMBNAIL_SIDE: u32 = 128;

/// The quality of a JPEG where none is asked for.
const QUALITY: u8 = 90;

/// JPEG Baseline (Process 1).
const JPEG_BASELINE: &str = "1.2.840.10008.1.2.4.50";

/// What a picture can be, the default first (PS3.18 table 8.7.4-1).
const MEDIA_TYPES: [&str; 2] = ["image/jpeg", "image/png"];

/// What is asked of a picture.
#[derive(Clone, Debug, PartialEq)]
struct Wanted {
    /// The columns and rows that it has to fit into.
    viewport: Option<(u32, u32)>,
    /// Centre and width.
    window: Option<(f64, f64)>,
    quality: u8,
}

impl Wanted {
    fn of(query: &str) -> Result<Self, Problem> {
        let mut wanted = Self { viewport: None, window: None, quality: QUALITY };
        for (name, value) in pairs(query) {
            match name.as_ref() {
                "viewport" => wanted.viewport = Some(viewport(&value)?),
                "window" => wanted.window = Some(window(&value)?),
                "quality" => {
                    let quality = value.parse().ok().filter(|quality| (1..=100).contains(quality));
                    wanted.quality =
                        quality.ok_or_else(|| Problem::bad_request("quality is a number from 1 to 100"))?;
                }
                _ => {}
            }
        }
        Ok(wanted)
    }

    fn changes_nothing(&self) -> bool {
        self.viewport.is_none() && self.window.is_none()
    }
}

fn viewport(text: &str) -> Result<(u32, u32), Problem> {
    let sides: Option<Vec<u32>> = text.split(',').map(|side| side.parse().ok()).collect();
    match sides.as_deref() {
        Some([columns, rows]) if (1..=MAX_SIDE).contains(columns) && (1..=MAX_SIDE).contains(rows) => {
            Ok((*columns, *rows))
        }
        Some([_, _]) => Err(Problem::bad_request("a viewport has 1 to 4096 columns and rows")),
        _ => Err(Problem::bad_request("a viewport is two whole numbers; a part of the source is not cut out")),
    }
}

fn window(text: &str) -> Result<(f64, f64), Problem> {
    let refused = || Problem::bad_request("a window is a centre, a width of 1 or more, and linear");
    let mut parts = text.split(',');
    let mut number = || parts.next().and_then(|part| part.parse::<f64>().ok()).filter(|number| number.is_finite());
    let (centre, width) = (number().ok_or_else(refused)?, number().filter(|width| *width >= 1.0).ok_or_else(refused)?);
    match (parts.next(), parts.next()) {
        (None | Some("linear" | "LINEAR"), None) => Ok((centre, width)),
        _ => Err(refused()),
    }
}

/// A frame as a picture: of an instance, or of the middle of a series or study.
pub(super) async fn answer(
    answering: &Arc<Answering>,
    call: &Call<'_>,
    is_thumbnail: bool,
) -> Result<Response<Body>, Problem> {
    let mut wanted = Wanted::of(call.query)?;
    if is_thumbnail && wanted.viewport.is_none() {
        wanted.viewport = Some((THUMBNAIL_SIDE, THUMBNAIL_SIDE));
    }
    let accept = Accept::of(call.headers.get_all(ACCEPT), call.query);
    let media_type = accept.choose(&MEDIA_TYPES).ok_or_else(|| not_acceptable(&MEDIA_TYPES))?;
    let frame = match call.route.parameter("frames") {
        "" => 1,
        raw => match numbers(raw)?.as_slice() {
            [one] => *one,
            _ => return Err(Problem::bad_request("one frame is rendered at a time")),
        },
    };
    let Listed { instances, .. } = Target::of(call)?.instances(answering, call).await?;
    let one = middle(&instances).ok_or_else(|| Problem::not_found("there is nothing to render"))?;
    let Found { pixels, location } = found(answering, call, &one).await?;
    let _turn = answering.rendering.acquire().await.map_err(|_| Problem::ours())?;
    let rendered = spawn_blocking(move || {
        let place = pixels.frame(frame).map_err(|error| no_pixels(&error))?;
        let is_jpeg = pixels.transfer_syntax == JPEG_BASELINE && media_type == "image/jpeg" && wanted.changes_nothing();
        check(&pixels)?;
        let mut bytes = Vec::new();
        let mut runs = Runs::open(one, location).map_err(|error| super::instances::lost(&error))?;
        for range in &place.ranges {
            let read = runs.read(*range, &mut |piece| {
                bytes.extend_from_slice(piece);
                Ok(())
            });
            read.map_err(|()| Problem::ours())?;
        }
        if is_jpeg {
            return Ok(bytes);
        }
        let frame = if pixels.is_encapsulated() { decoded(&pixels, &bytes)? } else { native(&pixels, bytes) };
        render(&pixels.looks, frame, &wanted, media_type)
    });
    let bytes = rendered.await.map_err(|_| Problem::ours())??;
    let mut response = Response::new(Body::from(bytes));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    Ok(response)
}

fn not_rendered(why: &str) -> Problem {
    Problem::new(StatusCode::NOT_ACCEPTABLE, format!("not rendered: {why}; the frames can be had as they are"))
}

/// The instance in the middle of a list.
fn middle(instances: &Instances) -> Option<Arc<Instances>> {
    let one = instances.get(instances.len() / 2)?;
    Some(Arc::new([(one.sop_instance_uid.to_owned(), one.kind.clone())].into_iter().collect()))
}

/// Whether these pixels are rendered; before memory is taken for them.
fn check(pixels: &Pixels) -> Result<(), Problem> {
    let shape = &pixels.shape;
    let count = u64::from(shape.rows) * u64::from(shape.columns);
    if count == 0 || count > MAX_SOURCE_PIXELS {
        return Err(not_rendered("a frame has to have 1 to 100,000,000 pixels"));
    }
    let photometric = pixels.looks.photometric.as_str();
    if pixels.is_encapsulated() {
        // In JPEG without a marker RGB cannot be told from YCbCr, and decoders take it for that.
        return match (pixels.transfer_syntax.as_str(), photometric) {
            (JPEG_BASELINE, "MONOCHROME1" | "MONOCHROME2" | "YBR_FULL" | "YBR_FULL_422") => Ok(()),
            (JPEG_BASELINE, _) => Err(not_rendered("of JPEG Baseline only grey, YBR_FULL and YBR_FULL_422 are")),
            _ => Err(not_rendered("of compressed frames only those of JPEG Baseline are")),
        };
    }
    let is_known = match (photometric, shape.samples, shape.bits_allocated) {
        ("MONOCHROME1" | "MONOCHROME2" | "", 0 | 1, 8 | 16) => pixels.looks.high_bit < shape.bits_allocated,
        ("RGB" | "YBR_FULL", 3, 8) => true,
        _ => false,
    };
    if is_known {
        return Ok(());
    }
    Err(not_rendered("only grey of 8 and 16 bits, and RGB and YBR_FULL of 8 bits are"))
}

/// Samples of a frame, as they are stored.
struct Samples {
    bytes: Vec<u8>,
    columns: u32,
    rows: u32,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Grey values of so many bits each.
    Grey(u16),
    /// Red, green and blue, pixel by pixel.
    Rgb,
}

fn native(pixels: &Pixels, bytes: Vec<u8>) -> Samples {
    let (columns, rows) = (u32::from(pixels.shape.columns), u32::from(pixels.shape.rows));
    if pixels.shape.samples <= 1 {
        return Samples { bytes, columns, rows, kind: Kind::Grey(pixels.shape.bits_allocated) };
    }
    let bytes = colour(&bytes, &pixels.looks, columns as usize * rows as usize);
    Samples { bytes, columns, rows, kind: Kind::Rgb }
}

/// A frame of JPEG Baseline. What the stream says of its size has to be what the object says.
fn decoded(pixels: &Pixels, bytes: &[u8]) -> Result<Samples, Problem> {
    let refused = || not_rendered("the JPEG stream is damaged, or another picture than the object says");
    let (columns, rows) = (u32::from(pixels.shape.columns), u32::from(pixels.shape.rows));
    let mut reader = ImageReader::with_format(Cursor::new(bytes), ImageFormat::Jpeg);
    let mut limits = Limits::default();
    (limits.max_image_width, limits.max_image_height) = (Some(columns), Some(rows));
    reader.limits(limits);
    let picture = reader.decode().map_err(|_| refused())?;
    if (picture.width(), picture.height()) != (columns, rows) {
        return Err(refused());
    }
    let (bytes, kind) = if pixels.shape.samples <= 1 {
        (picture.into_luma8().into_raw(), Kind::Grey(8))
    } else {
        (picture.into_rgb8().into_raw(), Kind::Rgb)
    };
    Ok(Samples { bytes, columns, rows, kind })
}

fn render(looks: &Looks, samples: Samples, wanted: &Wanted, media_type: &str) -> Result<Vec<u8>, Problem> {
    let Samples { bytes, columns, rows, kind } = samples;
    let defect = || {
        tracing::error!("a picture could not be made of a frame");
        Problem::ours()
    };
    let size = wanted.viewport.map_or((columns, rows), |viewport| fitted((columns, rows), viewport));
    let (bytes, colours) = match kind {
        Kind::Grey(bits) => {
            let shown = grey(&bytes, looks, bits, wanted.window);
            let picture = ImageBuffer::<Luma<u8>, _>::from_raw(columns, rows, shown).ok_or_else(defect)?;
            (in_size(picture, size).into_raw(), ExtendedColorType::L8)
        }
        Kind::Rgb => {
            let picture = ImageBuffer::<Rgb<u8>, _>::from_raw(columns, rows, bytes).ok_or_else(defect)?;
            (in_size(picture, size).into_raw(), ExtendedColorType::Rgb8)
        }
    };
    let mut out = Vec::new();
    let written = if media_type == "image/png" {
        PngEncoder::new(&mut out).write_image(&bytes, size.0, size.1, colours)
    } else {
        JpegEncoder::new_with_quality(&mut out, wanted.quality).encode(&bytes, size.0, size.1, colours)
    };
    written.map_err(|_| defect())?;
    Ok(out)
}

fn in_size<P>(picture: ImageBuffer<P, Vec<u8>>, (columns, rows): (u32, u32)) -> ImageBuffer<P, Vec<u8>>
where
    P: image::Pixel<Subpixel = u8> + 'static,
{
    if picture.dimensions() == (columns, rows) {
        picture
    } else {
        resize(&picture, columns, rows, FilterType::Triangle)
    }
}

/// The largest size of the same form that fits into a viewport.
fn fitted((columns, rows): (u32, u32), (most_columns, most_rows): (u32, u32)) -> (u32, u32) {
    let by_columns = u64::from(most_columns) * u64::from(rows) <= u64::from(most_rows) * u64::from(columns);
    let part = |side: u32, of: u32, from: u32| {
        u32::try_from(u64::from(side) * u64::from(of) / u64::from(from.max(1))).unwrap_or(MAX_SIDE).clamp(1, MAX_SIDE)
    };
    if by_columns {
        (most_columns, part(rows, most_columns, columns))
    } else {
        (part(columns, most_rows, rows), most_rows)
    }
}

/// Grey values as they are shown: stored value, modality, window, and the sense of MONOCHROME1 (PS3.3 C.11.1, C.11.2, PS3.4
/// N.2).
fn grey(bytes: &[u8], looks: &Looks, bits_allocated: u16, window: Option<(f64, f64)>) -> Vec<u8> {
    let stored = |raw: u16| -> f64 {
        let bits = looks.bits_stored.clamp(1, 16);
        let shift = (looks.high_bit + 1).saturating_sub(bits).min(15);
        let value = u32::from(raw) >> shift & ((1_u32 << bits) - 1);
        if looks.is_signed && value >> (bits - 1) & 1 == 1 {
            f64::from(value) - f64::from(1_u32 << bits)
        } else {
            f64::from(value)
        }
    };
    let raw: Box<dyn Iterator<Item = u16> + '_> = if bits_allocated == 8 {
        Box::new(bytes.iter().map(|byte| u16::from(*byte)))
    } else {
        Box::new(bytes.chunks_exact(2).filter_map(|pair| pair.first_chunk()).map(|pair| u16::from_le_bytes(*pair)))
    };
    let raw: Vec<u16> = raw.collect();
    let modality = |raw: u16| stored(raw) * looks.slope + looks.intercept;
    let (centre, width) = window.or(looks.window).unwrap_or_else(|| {
        let range = raw
            .iter()
            .map(|raw| modality(*raw))
            .fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(value), high.max(value)));
        ((range.0 + range.1 + 1.0) / 2.0, (range.1 - range.0 + 1.0).max(1.0))
    });
    let shown = |raw: u16| -> u8 {
        // PS3.3 C.11.2.1.2.1.
        let x = modality(raw);
        let share = if width > 1.0 {
            ((x - (centre - 0.5)) / (width - 1.0) + 0.5).clamp(0.0, 1.0)
        } else if x <= centre - 0.5 {
            0.0
        } else {
            1.0
        };
        let level = (share * 255.0).round() as u8;
        if looks.photometric == "MONOCHROME1" { 255 - level } else { level }
    };
    // Each stored value is looked up; most pictures have more pixels than there are values.
    let table: Vec<u8> =
        if bits_allocated == 8 { (0..=255).map(shown).collect() } else { (0..=u16::MAX).map(shown).collect() };
    raw.iter().map(|raw| table.get(usize::from(*raw)).copied().unwrap_or(0)).collect()
}

/// Colours as red, green and blue, pixel by pixel.
fn colour(bytes: &[u8], looks: &Looks, count: usize) -> Vec<u8> {
    let mut out = vec![0; count * 3];
    for (at, pixel) in out.chunks_exact_mut(3).enumerate() {
        let sample = |number: usize| {
            let place = if looks.is_planar { number * count + at } else { at * 3 + number };
            bytes.get(place).copied().unwrap_or(0)
        };
        let samples = [sample(0), sample(1), sample(2)];
        pixel.copy_from_slice(&if looks.photometric == "YBR_FULL" { rgb(samples) } else { samples });
    }
    out
}

/// PS3.3 C.7.6.3.1.2.
fn rgb([y, blue, red]: [u8; 3]) -> [u8; 3] {
    let (y, blue, red) = (f64::from(y), f64::from(blue) - 128.0, f64::from(red) - 128.0);
    [y + 1.402 * red, y - 0.344_136 * blue - 0.714_136 * red, y + 1.772 * blue]
        .map(|value| value.round().clamp(0.0, 255.0) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looks(photometric: &str) -> Looks {
        Looks { photometric: photometric.into(), bits_stored: 12, high_bit: 11, slope: 1.0, ..Looks::default() }
    }

    fn words(values: &[i16]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    // PS3.3 C.11.2.1.2.1: of a window of 100 around 50, 0 is black and 99 white.
    #[test]
    fn a_window_goes_from_black_to_white() {
        let shown = grey(&words(&[0x0FFF, 0, 50, 99, 100]), &looks("MONOCHROME2"), 16, Some((50.0, 100.0)));
        assert_eq!((shown[1], shown[3], shown[4]), (0, 255, 255));
        assert!(shown[2] > 120 && shown[2] < 136);
        let inverse = grey(&words(&[0, 99]), &looks("MONOCHROME1"), 16, Some((50.0, 100.0)));
        assert_eq!(inverse, [255, 0]);
        let hounsfield = Looks { slope: 1.0, intercept: -1024.0, window: Some((0.0, 2.0)), ..looks("MONOCHROME2") };
        assert_eq!(grey(&words(&[1000, 1024, 1048]), &hounsfield, 16, None), [0, 255, 255]);
        let signed = Looks { is_signed: true, ..looks("MONOCHROME2") };
        assert_eq!(grey(&words(&[0x0FFF, 0, 1]), &signed, 16, Some((0.5, 2.0))), [0, 128, 255]);
        // Without any window the least is black and the greatest white.
        assert_eq!(grey(&words(&[7, 9]), &looks("MONOCHROME2"), 16, None), [0, 255]);
        assert_eq!(grey(&[3, 3], &Looks { bits_stored: 8, high_bit: 7, ..looks("MONOCHROME2") }, 8, None).len(), 2);
    }

    #[test]
    fn colours_are_put_together_from_planes_and_from_luminance() {
        let planes = Looks { is_planar: true, ..looks("RGB") };
        assert_eq!(colour(&[1, 2, 3, 4, 5, 6], &planes, 2), [1, 3, 5, 2, 4, 6]);
        assert_eq!(colour(&[1, 2, 3], &looks("RGB"), 2), [1, 2, 3, 0, 0, 0], "too few bytes are black");
        assert_eq!(rgb([255, 128, 128]), [255, 255, 255]);
        assert_eq!(rgb([76, 85, 255]), [254, 0, 0]);
    }

    #[test]
    fn a_picture_fits_into_its_viewport() {
        assert_eq!(fitted((512, 512), (128, 128)), (128, 128));
        assert_eq!(fitted((1000, 500), (100, 100)), (100, 50));
        assert_eq!(fitted((1, 65535), (100, 100)), (1, 100));
    }

    #[test]
    fn what_is_asked_for_is_checked_first() {
        let wanted = Wanted::of("viewport=256,128&window=40,400,linear&quality=50&x=y").unwrap();
        assert_eq!((wanted.viewport, wanted.window, wanted.quality), (Some((256, 128)), Some((40.0, 400.0)), 50));
        for bad in [
            "viewport=100000,100000",
            "viewport=0,1",
            "viewport=1",
            "viewport=1,1,0,0,1,1",
            "viewport=-1,1",
            "viewport=99999999999,1",
            "window=40",
            "window=40,0",
            "window=NaN,1",
            "window=1,inf",
            "window=40,400,sigmoid",
            "window=1,2,linear,3",
            "quality=0",
            "quality=101",
            "quality=x",
        ] {
            assert!(Wanted::of(bad).is_err(), "{bad}");
        }
    }
}
