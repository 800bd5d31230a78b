//! Rendering of the native samples of a frame to a picture of 8 bits (PS3.3 C.11.1, C.11.2, PS3.4
//! N.2).
//!
//! It knows no HTTP and no files. The request is checked before memory is taken.

use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::PngEncoder;
use image::imageops::{FilterType, crop_imm, flip_horizontal_in_place, flip_vertical_in_place, resize};
use image::{ExtendedColorType, ImageBuffer, ImageEncoder as _, Luma, Pixel, Rgb};

use super::query::pairs;
use crate::pixels::codec::MAX_PIXELS;
use crate::pixels::transforms::{Function, Greys, PixelTransforms, VoiWindow};

/// Maximum number of columns and of rows of a picture.
pub(super) const MAX_SIDE: u32 = 4096;

/// Maximum number of pixels of a GIF with colours. Choosing 256 colours takes some 100 ns for each
/// pixel.
const MAX_PIXELS_OF_GIF: u64 = 25_000_000;

/// Speed at which colours of a GIF are chosen, from 1 to 30. Larger: the colours fit less.
const GIF_SPEED: i32 = 10;

/// The quality of a JPEG if the request names none.
const QUALITY: u8 = 90;

/// Parameters of a request for a picture (PS3.18 8.3.5).
#[derive(Clone, Debug, PartialEq)]
pub struct PictureRequest {
    /// Columns and rows that the picture has to fit into.
    pub viewport: Option<(u32, u32)>,
    /// The part of the frame that is shown.
    region: Region,
    window: Option<VoiWindow>,
    quality: u8,
    /// The text that the picture should show. None is drawn.
    pub(super) annotations: Option<&'static str>,
}

/// A part of a frame: first column and row, and columns and rows. Negative sizes flip it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Region {
    start: (u32, u32),
    size: (Option<i32>, Option<i32>),
}

impl PictureRequest {
    /// Reads the parameters of a query, and ignores others.
    ///
    /// # Errors
    /// The reason, if a value is not allowed.
    pub fn of(query: &str) -> Result<Self, &'static str> {
        let mut wanted =
            Self { viewport: None, region: Region::default(), window: None, quality: QUALITY, annotations: None };
        for (name, value) in pairs(query) {
            match name.as_ref() {
                "viewport" => {
                    let (viewport, region) = viewport(&value)?;
                    (wanted.viewport, wanted.region) = (Some(viewport), region);
                }
                "window" => wanted.window = Some(window(&value)?),
                "quality" => {
                    let quality = value.parse().ok().filter(|quality| (1..=100).contains(quality));
                    wanted.quality = quality.ok_or("quality is a number from 1 to 100")?;
                }
                "annotation" => wanted.annotations = annotations(&value),
                _ => {}
            }
        }
        Ok(wanted)
    }

    /// Whether a stored picture may be sent as it is.
    pub(super) fn changes_nothing(&self) -> bool {
        self.viewport.is_none() && self.window.is_none()
    }
}

/// Returns the requested annotations in words of our own (PS3.18 8.3.5.1.1).
fn annotations(text: &str) -> Option<&'static str> {
    let has = |word: &str| text.split(',').any(|part| part.trim() == word);
    match (has("patient"), has("technique")) {
        (true, true) => Some("patient,technique"),
        (true, false) => Some("patient"),
        (false, true) => Some("technique"),
        (false, false) => (!text.is_empty()).then_some("all"),
    }
}

fn viewport(text: &str) -> Result<((u32, u32), Region), &'static str> {
    let wrong = "a viewport is two whole numbers, and may have four more: the start and the size of a region";
    let parts: Vec<&str> = text.split(',').map(str::trim).collect();
    let [columns, rows, region @ ..] = parts.as_slice() else { return Err(wrong) };
    let side = |text: &str| text.parse::<u32>().map_err(|_| wrong);
    let viewport = (side(columns)?, side(rows)?);
    if !(1..=MAX_SIDE).contains(&viewport.0) || !(1..=MAX_SIDE).contains(&viewport.1) {
        return Err("a viewport has 1 to 4096 columns and rows");
    }
    if region.len() > 4 {
        return Err(wrong);
    }
    // PS3.18 8.3.5.1.3: a number that is left out has its default.
    let number = |at: usize| match region.get(at).copied().unwrap_or_default() {
        "" => Ok(None),
        text => match text.parse::<f64>() {
            Ok(number) if number.abs() <= 65_535.0 => Ok(Some(number.round() as i32)),
            Ok(_) | Err(_) => Err(wrong),
        },
    };
    let start = |at: usize| u32::try_from(number(at)?.unwrap_or(0)).map_err(|_| wrong);
    let size = (number(2)?, number(3)?);
    if size.0 == Some(0) || size.1 == Some(0) {
        return Err("a region has at least one column and one row");
    }
    Ok((viewport, Region { start: (start(0)?, start(1)?), size }))
}

fn window(text: &str) -> Result<VoiWindow, &'static str> {
    let wrong = "a window is a centre, a width, and a function: linear, linear-exact or sigmoid";
    let mut parts = text.split(',').map(str::trim);
    let mut number = || parts.next().and_then(|part| part.parse::<f64>().ok()).ok_or(wrong);
    let (centre, width) = (number()?, number()?);
    let function = match parts.next().map(str::to_ascii_lowercase).as_deref() {
        None | Some("linear") => Function::Linear,
        Some("linear-exact") => Function::LinearExact,
        Some("sigmoid") => Function::Sigmoid,
        Some(_) => return Err(wrong),
    };
    if parts.next().is_some() {
        return Err(wrong);
    }
    VoiWindow::new(centre, width, function)
        .ok_or("the width of a window is 1 or more if it is linear, else more than 0")
}

/// Reason why a frame is not rendered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PictureError {
    /// The frame is larger than the limit, or empty.
    #[error("a frame must have 1 to 100,000,000 pixels")]
    TooLarge,
    /// A GIF would take too long.
    #[error("a GIF with colours has at most 25,000,000 pixels")]
    TooManyColours,
    /// The pixels are of a kind that is not rendered.
    #[error("only grey, palette, RGB and YBR_FULL pixels of the usual numbers of bits are rendered")]
    SampleKind,
    /// The palette is missing or damaged.
    #[error("the object has no complete palette")]
    NoPalette,
    /// The frame has fewer bytes than its size requires.
    #[error("the frame ends before its last pixel")]
    Short,
    /// The region lies outside of the frame.
    #[error("the region of the viewport lies outside of the frame")]
    Region,
    /// The picture cannot be written.
    #[error("the picture cannot be written")]
    Encoder,
}

/// A frame of native little-endian samples.
#[derive(Clone, Debug)]
pub struct Native<'a> {
    /// Its samples.
    pub bytes: &'a [u8],
    /// Columns (0028,0011).
    pub columns: u32,
    /// Rows (0028,0010).
    pub rows: u32,
    /// Kind and arrangement of its samples.
    pub kind: SampleKind,
}

/// Kind and arrangement of samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SampleKind {
    /// One sample of 1, 8, 16 or 32 bits.
    Grey {
        /// Bits of one sample.
        bits: u16,
        /// Whether the smallest value is white (MONOCHROME1).
        is_inverse: bool,
    },
    /// One floating-point sample of 4 or 8 bytes.
    Float {
        /// Bytes of one sample.
        bytes: usize,
        /// Whether the smallest value is white (MONOCHROME1).
        is_inverse: bool,
    },
    /// An index into the palette, of 8 or 16 bits.
    Palette {
        /// Bits of one sample.
        bits: u16,
    },
    /// Red, green and blue, or luminance and two chrominances, of 8 or 16 bits.
    Colour {
        /// Bits of one sample.
        bits: u16,
        /// Whether the samples are YBR_FULL.
        is_ybr: bool,
        /// Whether each sample has a plane of its own.
        is_planar: bool,
    },
    /// YBR_FULL_422: two luminances, then the chrominances of both pixels.
    Ybr422,
}

impl SampleKind {
    /// Returns the kind of samples with this Photometric Interpretation, Samples per Pixel and Bits
    /// Allocated.
    ///
    /// # Errors
    /// [`PictureError::SampleKind`] if they are not rendered.
    pub fn of(photometric: &str, samples: u16, bits: u16, is_planar: bool) -> Result<Self, PictureError> {
        match (photometric, samples.max(1), bits) {
            ("MONOCHROME1" | "MONOCHROME2" | "", 1, 1 | 8 | 16 | 32) => {
                Ok(Self::Grey { bits, is_inverse: photometric == "MONOCHROME1" })
            }
            ("PALETTE COLOR", 1, 8 | 16) => Ok(Self::Palette { bits }),
            ("RGB" | "YBR_FULL", 3, 8 | 16) => Ok(Self::Colour { bits, is_ybr: photometric == "YBR_FULL", is_planar }),
            ("YBR_FULL_422", 3, 8) => Ok(Self::Ybr422),
            _ => Err(PictureError::SampleKind),
        }
    }

    /// Returns the number of bytes of a frame.
    fn frame_bytes(self, pixels: usize) -> usize {
        match self {
            Self::Grey { bits: 1, .. } => pixels.div_ceil(8),
            Self::Grey { bits, .. } | Self::Palette { bits } => pixels * usize::from(bits / 8),
            Self::Float { bytes, .. } => pixels * bytes,
            Self::Colour { bits, .. } => pixels * 3 * usize::from(bits / 8),
            Self::Ybr422 => pixels * 2,
        }
    }
}

/// Format of a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PictureFormat {
    /// `image/jpeg`.
    Jpeg,
    /// `image/png`.
    Png,
    /// `image/gif`. Pictures with more than 256 colours lose some.
    Gif,
}

impl PictureFormat {
    /// Returns the format with this media type.
    pub(super) fn of(media_type: &str) -> Option<Self> {
        match media_type {
            "image/jpeg" => Some(Self::Jpeg),
            "image/png" => Some(Self::Png),
            "image/gif" => Some(Self::Gif),
            _ => None,
        }
    }
}

/// Checks the size of a frame, before it is read.
///
/// # Errors
/// [`PictureError::TooLarge`].
pub fn check_size(columns: u32, rows: u32) -> Result<(), PictureError> {
    let pixels = u64::from(columns) * u64::from(rows);
    if pixels == 0 || pixels > MAX_PIXELS { Err(PictureError::TooLarge) } else { Ok(()) }
}

/// Renders frame `number` of an object.
///
/// # Errors
/// If its pixels cannot be shown as wanted.
pub fn render(
    frame: &Native<'_>,
    transforms: &PixelTransforms,
    number: u32,
    wanted: &PictureRequest,
    format: PictureFormat,
) -> Result<Vec<u8>, PictureError> {
    check_size(frame.columns, frame.rows)?;
    let pixels = frame.columns as usize * frame.rows as usize;
    let bytes = frame.bytes.get(..frame.kind.frame_bytes(pixels)).ok_or(PictureError::Short)?;
    let greys = transforms.of_frame(number);
    let view = PictureView { wanted, format, columns: frame.columns, rows: frame.rows };
    match frame.kind {
        SampleKind::Grey { bits: bits @ (1 | 8 | 16), is_inverse } => view.encode::<Luma<u8>>(grey(
            bytes,
            bits,
            pixels,
            &Mapping { transforms, greys, is_inverse },
            wanted.window,
        )),
        SampleKind::Grey { is_inverse, .. } => {
            let sample = |bytes: &[u8; 4]| {
                if transforms.is_signed {
                    f64::from(i32::from_le_bytes(*bytes))
                } else {
                    f64::from(u32::from_le_bytes(*bytes))
                }
            };
            let values = bytes.as_chunks::<4>().0.iter().map(sample);
            view.encode::<Luma<u8>>(wide_grey(values, &Mapping { transforms, greys, is_inverse }, wanted.window))
        }
        SampleKind::Float { bytes: 4, is_inverse } => {
            let values = bytes.as_chunks::<4>().0.iter().map(|bytes| f64::from(f32::from_le_bytes(*bytes)));
            view.encode::<Luma<u8>>(wide_grey(values, &Mapping { transforms, greys, is_inverse }, wanted.window))
        }
        SampleKind::Float { is_inverse, .. } => {
            let values = bytes.as_chunks::<8>().0.iter().map(|bytes| f64::from_le_bytes(*bytes));
            view.encode::<Luma<u8>>(wide_grey(values, &Mapping { transforms, greys, is_inverse }, wanted.window))
        }
        SampleKind::Palette { bits } => view.encode::<Rgb<u8>>(palette(bytes, bits, transforms)?),
        SampleKind::Colour { bits, is_ybr, is_planar } => {
            let narrow;
            let bytes = if bits == 16 {
                narrow = high_bytes(bytes, transforms.bits_stored);
                narrow.as_slice()
            } else {
                bytes
            };
            view.encode::<Rgb<u8>>(colour(bytes, pixels, is_ybr, is_planar))
        }
        SampleKind::Ybr422 => view.encode::<Rgb<u8>>(subsampled(bytes, pixels)),
    }
}

/// Mapping from stored values to the greys of one frame.
struct Mapping<'l> {
    transforms: &'l PixelTransforms,
    greys: Greys,
    is_inverse: bool,
}

impl Mapping<'_> {
    /// Modality LUT (PS3.3 C.11.1).
    fn modality(&self, stored: f64) -> f64 {
        match &self.transforms.modality_lut {
            Some(lut) => f64::from(lut.at(stored)),
            None => stored * self.greys.slope + self.greys.intercept,
        }
    }

    /// Returns a function from modality values to greys. `range` has the least and the greatest
    /// value.
    fn shown(&self, window: Option<VoiWindow>, range: (f64, f64)) -> impl Fn(f64) -> u8 {
        let lut = self.transforms.voi_lut.as_ref().filter(|_| window.is_none());
        let window = window.or(self.greys.window).unwrap_or(VoiWindow {
            centre: range.0.midpoint(range.1),
            width: range.1 - range.0,
            function: Function::LinearExact,
        });
        move |value| {
            let share = match lut {
                Some(lut) => f64::from(lut.at(value)) / f64::from(lut.greatest()),
                None => share(value, window),
            };
            // A value that is not a number has no grey. The cast makes it black.
            let level = (share.clamp(0.0, 1.0) * 255.0).round() as u8;
            if self.is_inverse { 255 - level } else { level }
        }
    }
}

/// Returns the place of a value in a window: 0 is black, 1 is white. It may be outside.
fn share(value: f64, VoiWindow { centre, width, function }: VoiWindow) -> f64 {
    match function {
        // PS3.3 C.11.2.1.2.1.
        Function::Linear if width > 1.0 => (value - (centre - 0.5)) / (width - 1.0) + 0.5,
        Function::Linear if value <= centre - 0.5 => 0.0,
        Function::Linear => 1.0,
        // PS3.3 C.11.2.1.3.2. One single value has the width 0.
        Function::LinearExact if width > 0.0 => (value - centre) / width + 0.5,
        Function::LinearExact => 0.5,
        // PS3.3 C.11.2.1.3.1.
        Function::Sigmoid => 1.0 / (1.0 + (-4.0 * (value - centre) / width).exp()),
    }
}

/// Returns the value of stored bits (PS3.5 8.1.1).
fn stored(raw: u16, transforms: &PixelTransforms) -> f64 {
    let bits = transforms.bits_stored.clamp(1, 16);
    let shift = (transforms.high_bit.saturating_add(1)).saturating_sub(bits).min(15);
    let value = u32::from(raw) >> shift & ((1_u32 << bits) - 1);
    if transforms.is_signed && value >> (bits - 1) & 1 == 1 {
        f64::from(value) - f64::from(1_u32 << bits)
    } else {
        f64::from(value)
    }
}

/// Returns the greys of samples of up to 16 bits. Each stored value that occurs is mapped once.
fn grey(bytes: &[u8], bits: u16, pixels: usize, mapping: &Mapping<'_>, window: Option<VoiWindow>) -> Vec<u8> {
    let raw = |at: usize| -> u16 {
        match bits {
            1 => bytes.get(at / 8).map_or(0, |byte| u16::from(byte >> (at % 8) & 1)),
            8 => bytes.get(at).copied().map_or(0, u16::from),
            _ => bytes.as_chunks::<2>().0.get(at).map_or(0, |bytes| u16::from_le_bytes(*bytes)),
        }
    };
    let mut occurs = vec![false; if bits == 16 { 1 << 16 } else { 1 << 8 }];
    for at in 0..pixels {
        if let Some(occurs) = occurs.get_mut(usize::from(raw(at))) {
            *occurs = true;
        }
    }
    let one_bit = PixelTransforms { bits_stored: 1, high_bit: 0, is_signed: false, ..PixelTransforms::default() };
    let transforms = if bits == 1 { &one_bit } else { mapping.transforms };
    let value = |raw: usize| mapping.modality(stored(u16::try_from(raw).unwrap_or(u16::MAX), transforms));
    let all = || occurs.iter().enumerate().filter(|(_, occurs)| **occurs).map(|(raw, _)| raw);
    let is_padding = |raw: &usize| mapping.transforms.padding.is_some_and(|padding| usize::from(padding) == *raw);
    let image = match bits {
        // A mask that is all background is black.
        1 => Some((value(0), value(1))),
        _ => range(all().filter(|raw| !is_padding(raw)).map(value)).or_else(|| range(all().map(value))),
    };
    let shown = mapping.shown(window, image.unwrap_or((0.0, 0.0)));
    let mut table = vec![0; occurs.len()];
    for (raw, level) in table.iter_mut().enumerate() {
        if occurs.get(raw) == Some(&true) {
            *level = shown(value(raw));
        }
    }
    (0..pixels).map(|at| table.get(usize::from(raw(at))).copied().unwrap_or(0)).collect()
}

/// Returns the greys of samples of more than 16 bits.
fn wide_grey(values: impl Iterator<Item = f64> + Clone, mapping: &Mapping<'_>, window: Option<VoiWindow>) -> Vec<u8> {
    let values = values.map(|value| mapping.modality(value));
    let shown = mapping.shown(window, range(values.clone()).unwrap_or((0.0, 0.0)));
    values.map(shown).collect()
}

/// Returns the least and the greatest of several values. `None` if there is none.
fn range(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values.filter(|value| value.is_finite()).fold(None, |range, value| {
        let (least, greatest) = range.unwrap_or((value, value));
        Some((value.min(least), value.max(greatest)))
    })
}

/// PS3.3 C.7.6.3.1.5.
fn palette(bytes: &[u8], bits: u16, transforms: &PixelTransforms) -> Result<Vec<u8>, PictureError> {
    let tables = transforms.palette.as_deref().ok_or(PictureError::NoPalette)?;
    let colour = |raw: u16| tables.each_ref().map(|table| table.at(stored(raw, transforms)) as u8);
    if bits == 8 {
        let colours: Vec<[u8; 3]> = (0..=u8::MAX).map(|raw| colour(u16::from(raw))).collect();
        return Ok(bytes.iter().flat_map(|raw| colours.get(usize::from(*raw)).copied().unwrap_or_default()).collect());
    }
    Ok(bytes.as_chunks::<2>().0.iter().flat_map(|bytes| colour(u16::from_le_bytes(*bytes))).collect())
}

/// Returns the eight highest of the stored bits of each sample.
fn high_bytes(bytes: &[u8], bits_stored: u16) -> Vec<u8> {
    let shift = bits_stored.clamp(8, 16) - 8;
    bytes.as_chunks::<2>().0.iter().map(|bytes| (u16::from_le_bytes(*bytes) >> shift).min(0xFF) as u8).collect()
}

/// Returns colours as red, green and blue, pixel by pixel.
fn colour(bytes: &[u8], pixels: usize, is_ybr: bool, is_planar: bool) -> Vec<u8> {
    let mut out = vec![0; pixels * 3];
    for (at, pixel) in out.as_chunks_mut::<3>().0.iter_mut().enumerate() {
        let sample = |number: usize| {
            let place = if is_planar { number * pixels + at } else { at * 3 + number };
            bytes.get(place).copied().unwrap_or(0)
        };
        let samples = [sample(0), sample(1), sample(2)];
        *pixel = if is_ybr { rgb(samples) } else { samples };
    }
    out
}

/// YBR_FULL_422 (PS3.3 C.7.6.3.1.2): two luminances, then the chrominances that both have.
fn subsampled(bytes: &[u8], pixels: usize) -> Vec<u8> {
    let pairs = bytes.as_chunks::<4>().0.iter();
    let mut out: Vec<u8> = pairs
        .flat_map(|[first, second, blue, red]| [[*first, *blue, *red], [*second, *blue, *red]])
        .flat_map(rgb)
        .collect();
    out.resize(pixels * 3, 0);
    out
}

/// PS3.3 C.7.6.3.1.2.
fn rgb([y, blue, red]: [u8; 3]) -> [u8; 3] {
    let (y, blue, red) = (f32::from(y), f32::from(blue) - 128.0, f32::from(red) - 128.0);
    [y + 1.402 * red, y - 0.344_136 * blue - 0.714_136 * red, y + 1.772 * blue]
        .map(|value| value.round().clamp(0.0, 255.0) as u8)
}

/// Writes a picture as a GIF. Greys keep their values.
fn gif<P>(picture: ImageBuffer<P, Vec<u8>>) -> Result<Vec<u8>, PictureError>
where
    P: Pixel<Subpixel = u8> + 'static,
{
    let (columns, rows) = picture.dimensions();
    let side = |side| u16::try_from(side).map_err(|_| PictureError::TooLarge);
    let (width, height) = (side(columns)?, side(rows)?);
    let frame = if P::CHANNEL_COUNT == 1 {
        let greys: Vec<u8> = (0..=u8::MAX).flat_map(|grey| [grey; 3]).collect();
        gif::Frame::from_palette_pixels(width, height, picture.into_raw(), greys, None)
    } else if u64::from(columns) * u64::from(rows) > MAX_PIXELS_OF_GIF {
        return Err(PictureError::TooManyColours);
    } else {
        gif::Frame::from_rgb_speed(width, height, picture.as_raw(), GIF_SPEED)
    };
    let mut out = Vec::new();
    let mut encoder = gif::Encoder::new(&mut out, width, height, &[]).map_err(|_| PictureError::Encoder)?;
    encoder.write_frame(&frame).map_err(|_| PictureError::Encoder)?;
    drop(encoder);
    Ok(out)
}

/// Steps from samples of 8 bits to the picture that is sent.
struct PictureView<'w> {
    wanted: &'w PictureRequest,
    format: PictureFormat,
    columns: u32,
    rows: u32,
}

impl PictureView<'_> {
    fn encode<P>(&self, samples: Vec<u8>) -> Result<Vec<u8>, PictureError>
    where
        P: Pixel<Subpixel = u8> + 'static,
    {
        let picture = ImageBuffer::<P, _>::from_raw(self.columns, self.rows, samples).ok_or(PictureError::Short)?;
        let picture = self.part(picture)?;
        let size = self.wanted.viewport.map_or(picture.dimensions(), |viewport| fitted(picture.dimensions(), viewport));
        let picture =
            if size == picture.dimensions() { picture } else { resize(&picture, size.0, size.1, FilterType::Triangle) };
        let colours = if P::CHANNEL_COUNT == 1 { ExtendedColorType::L8 } else { ExtendedColorType::Rgb8 };
        let mut out = Vec::new();
        let written = match self.format {
            PictureFormat::Png => PngEncoder::new(&mut out).write_image(picture.as_raw(), size.0, size.1, colours),
            PictureFormat::Jpeg => JpegEncoder::new_with_quality(&mut out, self.wanted.quality).encode(
                picture.as_raw(),
                size.0,
                size.1,
                colours,
            ),
            PictureFormat::Gif => return gif(picture),
        };
        written.map_err(|_| PictureError::Encoder)?;
        Ok(out)
    }

    /// Cuts out the region of the viewport (PS3.18 8.3.5.1.3).
    fn part<P>(&self, picture: ImageBuffer<P, Vec<u8>>) -> Result<ImageBuffer<P, Vec<u8>>, PictureError>
    where
        P: Pixel<Subpixel = u8> + 'static,
    {
        let Region { start, size } = self.wanted.region;
        if self.wanted.region == Region::default() {
            return Ok(picture);
        }
        let side = |start: u32, size: Option<i32>, whole: u32| {
            let left = whole.checked_sub(start).filter(|left| *left > 0).ok_or(PictureError::Region)?;
            let side = size.map_or(left, i32::unsigned_abs);
            if side <= left { Ok(side) } else { Err(PictureError::Region) }
        };
        let (columns, rows) = (side(start.0, size.0, self.columns)?, side(start.1, size.1, self.rows)?);
        let mut part = crop_imm(&picture, start.0, start.1, columns, rows).to_image();
        if size.0.is_some_and(i32::is_negative) {
            flip_horizontal_in_place(&mut part);
        }
        if size.1.is_some_and(i32::is_negative) {
            flip_vertical_in_place(&mut part);
        }
        Ok(part)
    }
}

/// Returns the largest size with the same aspect ratio that fits into a viewport.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn transforms() -> PixelTransforms {
        PixelTransforms { bits_stored: 12, high_bit: 11, ..PixelTransforms::default() }
    }

    fn words(values: &[i16]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    fn window(centre: f64, width: f64) -> Option<VoiWindow> {
        VoiWindow::new(centre, width, Function::Linear)
    }

    fn shown(values: &[i16], transforms: &PixelTransforms, is_inverse: bool, window: Option<VoiWindow>) -> Vec<u8> {
        let mapping = Mapping { transforms, greys: transforms.greys, is_inverse };
        grey(&words(values), 16, values.len(), &mapping, window)
    }

    // PS3.3 C.11.2.1.2.1: of a window of 100 around 50, 0 is black and 99 white.
    #[test]
    fn a_window_goes_from_black_to_white() {
        let levels = shown(&[0x0FFF, 0, 50, 99, 100], &transforms(), false, window(50.0, 100.0));
        assert_eq!((levels[1], levels[3], levels[4]), (0, 255, 255));
        assert!(levels[2] > 120 && levels[2] < 136);
        assert_eq!(shown(&[0, 99], &transforms(), true, window(50.0, 100.0)), [255, 0]);
        let greys = Greys { intercept: -1024.0, window: window(0.0, 2.0), ..Greys::default() };
        assert_eq!(shown(&[1000, 1024, 1048], &PixelTransforms { greys, ..transforms() }, false, None), [0, 255, 255]);
        let signed = PixelTransforms { is_signed: true, ..transforms() };
        assert_eq!(shown(&[0x0FFF, 0, 1], &signed, false, window(0.5, 2.0)), [0, 128, 255]);
    }

    #[test]
    fn without_a_window_the_range_of_the_image_is_shown() {
        assert_eq!(shown(&[7, 9], &transforms(), false, None), [0, 255]);
        let padded = PixelTransforms { padding: Some(4000), ..transforms() };
        assert_eq!(shown(&[4000, 7, 9], &padded, false, None), [255, 0, 255]);
        assert_eq!(shown(&[7, 7], &transforms(), false, None), [128, 128]);
        let mapping = Mapping { transforms: &transforms(), greys: Greys::default(), is_inverse: false };
        assert_eq!(wide_grey([0.25, f64::NAN, 0.5, 0.75].into_iter(), &mapping, None), [0, 0, 128, 255]);
    }

    #[test]
    fn look_up_tables_come_before_windows() {
        use crate::pixels::transforms::Lut;
        let data = words(&[0, 255, 255]);
        let voi_lut = Lut::new([3, 5, 8], false, &data);
        let greys = Greys { window: window(5.0, 2.0), ..Greys::default() };
        let both = PixelTransforms { voi_lut, greys, ..transforms() };
        assert_eq!(shown(&[5, 6, 7], &both, false, None), [0, 255, 255]);
        assert_eq!(shown(&[5, 6, 7], &both, false, window(6.5, 2.0)), [0, 128, 255], "the one that is asked for");
        let modality_lut = Lut::new([3, 0, 16], false, &words(&[300, 100, 200]));
        let modality = PixelTransforms { modality_lut, ..transforms() };
        assert_eq!(shown(&[0, 1, 2], &modality, false, None), [255, 0, 128]);
    }

    #[test]
    fn windows_have_three_forms() {
        let at = |value, function| share(value, VoiWindow::new(10.0, 4.0, function).unwrap());
        assert_eq!(at(9.5, Function::Linear), 0.5);
        assert_eq!(at(10.0, Function::LinearExact), 0.5);
        assert_eq!(at(12.0, Function::LinearExact), 1.0);
        assert_eq!(at(10.0, Function::Sigmoid), 0.5);
        assert!(at(20.0, Function::Sigmoid) > 0.99);
    }

    #[test]
    fn single_bits_are_black_and_white() {
        let mapping = Mapping { transforms: &transforms(), greys: Greys::default(), is_inverse: false };
        assert_eq!(grey(&[0b101, 1], 1, 9, &mapping, None), [255, 0, 255, 0, 0, 0, 0, 0, 255]);
        assert_eq!(grey(&[0], 1, 2, &mapping, None), [0, 0]);
    }

    #[test]
    fn colours_are_put_together_from_planes_and_from_luminance() {
        assert_eq!(colour(&[1, 2, 3, 4, 5, 6], 2, false, true), [1, 3, 5, 2, 4, 6]);
        assert_eq!(rgb([255, 128, 128]), [255, 255, 255]);
        assert_eq!(rgb([76, 85, 255]), [254, 0, 0]);
        assert_eq!(subsampled(&[0, 255, 128, 128], 2), [0, 0, 0, 255, 255, 255]);
        assert_eq!(high_bytes(&words(&[0x0FFF, 0x0010]), 12), [255, 1]);
    }

    #[test]
    fn palettes_are_looked_up() {
        use crate::pixels::transforms::Lut;
        let table = |data: &[u8]| Lut::new([2, 1, 8], false, data).unwrap();
        let palette_of = Some(Box::new([table(&[1, 2]), table(&[3, 4]), table(&[5, 6])]));
        let transforms =
            PixelTransforms { palette: palette_of, bits_stored: 8, high_bit: 7, ..PixelTransforms::default() };
        assert_eq!(palette(&[0, 1, 2, 255], 8, &transforms).unwrap(), [1, 3, 5, 1, 3, 5, 2, 4, 6, 2, 4, 6]);
        assert_eq!(palette(&[0], 8, &PixelTransforms::default()), Err(PictureError::NoPalette));
    }

    #[test]
    fn a_picture_fits_into_its_viewport() {
        assert_eq!(fitted((512, 512), (128, 128)), (128, 128));
        assert_eq!(fitted((1000, 500), (100, 100)), (100, 50));
        assert_eq!(fitted((1, 65535), (100, 100)), (1, 100));
    }

    #[test]
    fn a_region_is_cut_out_and_flipped() {
        let frame = Native {
            bytes: &[0, 255, 0, 0, 0, 0],
            columns: 3,
            rows: 2,
            kind: SampleKind::Grey { bits: 8, is_inverse: false },
        };
        let transforms = PixelTransforms { bits_stored: 8, high_bit: 7, ..PixelTransforms::default() };
        let of = |query: &str| {
            let picture = render(&frame, &transforms, 1, &PictureRequest::of(query).unwrap(), PictureFormat::Png)?;
            Ok::<_, PictureError>(image::load_from_memory(&picture).unwrap().into_luma8().into_raw())
        };
        assert_eq!(of("").unwrap(), [0, 255, 0, 0, 0, 0]);
        assert_eq!(of("viewport=2,1,0,0,2,1").unwrap(), [0, 255]);
        assert_eq!(of("viewport=2,1,,,-2,1").unwrap(), [255, 0]);
        assert_eq!(of("viewport=2,2,1,0,,-2").unwrap(), [0, 0, 255, 0]);
        for outside in ["viewport=2,2,3,0", "viewport=2,2,0,0,4,1", "viewport=1,1,65535,65535,1,1"] {
            assert_eq!(of(outside), Err(PictureError::Region), "{outside}");
        }
    }

    #[test]
    fn what_is_asked_for_is_checked_first() {
        let wanted = PictureRequest::of("viewport=256,128&window=40,400,linear&quality=50&x=y").unwrap();
        assert_eq!((wanted.viewport, wanted.window, wanted.quality), (Some((256, 128)), window(40.0, 400.0), 50));
        assert!(
            PictureRequest::of("window=1,0.5,sigmoid").is_ok()
                && PictureRequest::of("window=1,0.5,LINEAR-EXACT").is_ok()
        );
        for bad in [
            "viewport=100000,100000",
            "viewport=0,1",
            "viewport=1",
            "viewport=1,1,0,0,0,1",
            "viewport=1,1,-1",
            "viewport=1,1,NaN",
            "viewport=1,1,1e9",
            "viewport=1,1,0,0,1,1,1",
            "viewport=-1,1",
            "viewport=99999999999,1",
            "window=40",
            "window=40,0",
            "window=40,0.5",
            "window=NaN,1",
            "window=1,inf",
            "window=40,400,spline",
            "window=1,2,linear,3",
            "quality=0",
            "quality=101",
            "quality=x",
        ] {
            assert!(PictureRequest::of(bad).is_err(), "{bad}");
        }
    }
}
