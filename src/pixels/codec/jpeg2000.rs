//! JPEG 2000 (ITU-T T.800).

use hayro_jpeg2000::{DecodeSettings, DecoderContext, Image};
use memchr::memmem;

use super::frame::{CodecError, FrameShape};

/// Start of codestream, and the marker that has to follow it (T.800 A.4.1, A.5.1).
const START: [u8; 4] = [0xFF, 0x4F, 0xFF, 0x51];

/// Bytes before the codestream. DICOM has none (PS3.5 A.4.4), and some writers put a JP2 header
/// there.
const MAX_BEFORE: usize = 4 << 10;

/// Precincts and code-blocks of one frame. Each takes some hundred bytes in the library.
const MAX_PARTS: u64 = 2_000_000;

/// Tiles of one frame (T.800 A.4.2).
const MAX_TILES: u64 = 65_535;

/// Deepest samples. The library computes with 24 bits.
const MAX_PRECISION: u8 = 16;

/// Decodes one frame into interleaved samples. A transform of its components is undone.
pub(super) fn decode(stream: &[u8], shape: &FrameShape) -> Result<Vec<u8>, CodecError> {
    let head = stream.get(..MAX_BEFORE + START.len()).unwrap_or(stream);
    let start = memmem::find(head, &START).ok_or(CodecError::Damaged)?;
    let codestream = stream.get(start..).unwrap_or_default();
    let size = Size::of(codestream).ok_or(CodecError::Damaged)?;
    if (size.columns, size.rows, size.precisions.len()) != (shape.columns, shape.rows, shape.samples) {
        return Err(CodecError::OtherImage);
    }
    if size.is_subsampled {
        return Err(CodecError::Unsupported("components of different sizes"));
    }
    let deepest = size.precisions.iter().map(|(precision, _)| *precision).max().unwrap_or(0);
    if deepest > MAX_PRECISION || u16::from(deepest) > shape.bits_allocated {
        return Err(CodecError::OtherImage);
    }
    size.check_parts(codestream)?;
    let settings = DecodeSettings { resolve_palette_indices: false, strict: true, target_resolution: None };
    let image = Image::new(codestream, &settings).map_err(|_| CodecError::Damaged)?;
    let mut context = DecoderContext::default();
    let decoded = image.decode(&mut context).map_err(|_| CodecError::Damaged)?;
    let pixels = shape.pixels();
    let components = decoded.components();
    if components.len() != shape.samples || components.iter().any(|component| component.samples().len() != pixels) {
        return Err(CodecError::OtherImage);
    }
    let width = shape.sample_bytes();
    let mut out = vec![0; pixels * shape.samples * width];
    for (number, (component, (precision, is_signed))) in components.iter().zip(&size.precisions).enumerate() {
        // The library shifts signed samples as if they were unsigned.
        let shift = if *is_signed { 1_i32 << (precision - 1) } else { 0 };
        let greatest = (1_i32 << precision) - 1;
        let places = out.chunks_exact_mut(width).skip(number).step_by(shape.samples);
        for (place, sample) in places.zip(component.samples()) {
            let value = (sample.round() as i32).clamp(0, greatest) - shift;
            place.iter_mut().zip(value.to_le_bytes()).for_each(|(place, byte)| *place = byte);
        }
    }
    Ok(out)
}

/// The SIZ marker segment (T.800 A.5.1).
struct Size {
    columns: u32,
    rows: u32,
    tiles: u64,
    /// Bits of the samples of each component, and whether they are signed.
    precisions: Vec<(u8, bool)>,
    is_subsampled: bool,
}

impl Size {
    fn of(codestream: &[u8]) -> Option<Self> {
        let fields = codestream.get(8..40)?.as_chunks::<4>().0;
        let fields: Vec<u32> = fields.iter().map(|bytes| u32::from_be_bytes(*bytes)).collect();
        let &[right, bottom, left, top, tile_columns, tile_rows, tile_left, tile_top] = fields.as_slice() else {
            return None;
        };
        let count = u16::from_be_bytes(*codestream.get(40..)?.first_chunk()?);
        let components = codestream.get(42..42 + usize::from(count) * 3)?.as_chunks::<3>().0;
        let tiles = |end: u32, start: u32, step: u32| {
            Some(u64::from(end.checked_sub(start)?.div_ceil(std::num::NonZeroU32::new(step)?.get())))
        };
        Some(Self {
            columns: right.checked_sub(left)?,
            rows: bottom.checked_sub(top)?,
            tiles: tiles(right, tile_left, tile_columns)?.checked_mul(tiles(bottom, tile_top, tile_rows)?)?,
            precisions: components.iter().map(|[depth, ..]| ((depth & 0x7F) + 1, depth & 0x80 != 0)).collect(),
            is_subsampled: components.iter().any(|[_, across, down]| (*across, *down) != (1, 1)),
        })
    }

    /// Refuses streams with so many parts that a list of them would fill the memory.
    fn check_parts(&self, codestream: &[u8]) -> Result<(), CodecError> {
        let samples = u64::from(self.columns) * u64::from(self.rows) * self.precisions.len() as u64;
        let refused = Err(CodecError::Unsupported("very many small parts"));
        if self.tiles == 0 || self.tiles.saturating_mul(self.precisions.len() as u64) > MAX_TILES {
            return refused;
        }
        for style in coding_styles(codestream) {
            let style = style.ok_or(CodecError::Damaged)?;
            // Every tile has some of each, however small it is. Lower resolutions add a third.
            let parts = |exponent: u32| samples.checked_shr(exponent).unwrap_or(0) * 4 / 3;
            let least = self.tiles * self.precisions.len() as u64 * u64::from(style.resolutions);
            if parts(style.block_exponent).max(parts(style.precinct_exponent)) + least > MAX_PARTS {
                return refused;
            }
        }
        Ok(())
    }
}

/// Values of a COD or COC marker segment about the number of parts.
struct CodingStyle {
    resolutions: u8,
    /// Samples of a code-block, as a power of two.
    block_exponent: u32,
    /// Samples of the smallest precinct, as a power of two.
    precinct_exponent: u32,
}

impl CodingStyle {
    /// Reads SPcod or SPcoc (T.800 table A.15).
    fn of(has_precincts: bool, parameters: &[u8]) -> Option<Self> {
        let (&[levels, width, height, _, _], sizes) = parameters.split_first_chunk()?;
        let resolutions = levels.checked_add(1).filter(|resolutions| *resolutions <= 33)?;
        // The library goes by this count and not by the length of the segment, so both must agree.
        if sizes.len() != if has_precincts { usize::from(resolutions) } else { 0 } {
            return None;
        }
        let exponents = sizes.iter().map(|size| u32::from(size & 0x0F) + u32::from(size >> 4));
        let smallest = exponents.min().unwrap_or(30);
        let block = |exponent: u8| u32::from(exponent & 0x0F) + 2;
        Some(Self {
            resolutions,
            block_exponent: block(width) + block(height),
            // A precinct holds the code-blocks of up to three sub-bands of half its size.
            precinct_exponent: smallest,
        })
    }
}

/// All coding styles, of the main header and of the headers of tile-parts. `None` for a damaged
/// one.
fn coding_styles(codestream: &[u8]) -> impl Iterator<Item = Option<CodingStyle>> {
    headers(codestream).map(|(marker, segment)| {
        if marker == 0x52 {
            let (&[style, _, _, _, _], parameters) = segment.split_first_chunk()?;
            CodingStyle::of(style & 1 == 1, parameters)
        } else {
            // Fewer than 257 components, so the index has one byte.
            let (&[_, style], parameters) = segment.split_first_chunk()?;
            CodingStyle::of(style & 1 == 1, parameters)
        }
    })
}

/// The COD (0x52) and COC (0x53) marker segments, found by a walk over all headers.
fn headers(codestream: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    let mut at = 2;
    // Where the tile-part ends that the walk is in.
    let mut tile_end = None;
    std::iter::from_fn(move || {
        loop {
            let [_, marker] = *codestream.get(at..)?.first_chunk()?;
            if matches!(marker, 0x30..=0x3F) {
                at += 2;
                continue;
            }
            if marker == 0x93 {
                // Start of data.
                at = tile_end.take().filter(|end| *end > at)?;
                continue;
            }
            let length = usize::from(u16::from_be_bytes(*codestream.get(at + 2..)?.first_chunk()?));
            let segment = codestream.get(at + 4..(at + 2).checked_add(length)?)?;
            if marker == 0x90 {
                // Psot counts from the marker; 0 says that the rest is one tile-part.
                let length = u32::from_be_bytes(*segment.get(2..)?.first_chunk()?) as usize;
                tile_end = (length > 0).then_some(at.checked_add(length)?);
            }
            at = at.checked_add(2 + length)?;
            if matches!(marker, 0x52 | 0x53) {
                return Some((marker, segment));
            }
        }
    })
}
