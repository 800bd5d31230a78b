//! JPEG (ITU-T T.81): Baseline, Extended of 8 bits, and Lossless.

use std::borrow::Cow;
use std::io::{self, Read};

use jpeg_decoder::{CodingProcess, ColorTransform, Decoder};
use memchr::memmem;

use super::frame::{CodecError, Deadline, FrameShape};

/// Whether the transfer syntax promises that nothing is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Process {
    Lossy,
    Lossless,
}

/// Reads of the decoder between two looks at the clock. It reads a few bytes at a time.
const READS_BETWEEN_CHECKS: u32 = 256;

/// A stream that ends with an error when the time is over.
struct TimedStream<'s> {
    stream: &'s [u8],
    deadline: &'s Deadline,
    reads: u32,
}

impl Read for TimedStream<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reads = self.reads.wrapping_add(1);
        if self.reads.is_multiple_of(READS_BETWEEN_CHECKS) && self.deadline.check().is_err() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.stream.read(buffer)
    }
}

/// Decodes one frame into interleaved samples. Colours are not converted.
pub(super) fn decode(
    stream: &[u8],
    shape: &FrameShape,
    process: Process,
    deadline: &Deadline,
) -> Result<Vec<u8>, CodecError> {
    let stream = &*without_tables_of_quantisation(stream);
    let mut decoder = Decoder::new(TimedStream { stream, deadline, reads: 0 });
    // Of three components this converts nothing. `None` does not interleave them.
    decoder.set_color_transform(ColorTransform::RGB);
    decoder.read_info().map_err(refused)?;
    let info = decoder.info().ok_or(CodecError::Damaged)?;
    if (u32::from(info.width), u32::from(info.height)) != (shape.columns, shape.rows) {
        return Err(CodecError::OtherImage);
    }
    let is_lossless = info.coding_process == CodingProcess::Lossless;
    if is_lossless != (process == Process::Lossless) {
        return Err(CodecError::OtherImage);
    }
    if is_lossless {
        check_lossless(stream)?;
    }
    let decoded = decoder.decode().map_err(refused)?;
    in_samples(decoded, shape)
}

fn refused(error: jpeg_decoder::Error) -> CodecError {
    match error {
        jpeg_decoder::Error::Unsupported(_) => CodecError::Unsupported("a rare kind of JPEG"),
        jpeg_decoder::Error::Io(error) if error.kind() == io::ErrorKind::TimedOut => CodecError::TooLong,
        jpeg_decoder::Error::Format(_) | jpeg_decoder::Error::Io(_) | jpeg_decoder::Error::Internal(_) => {
            CodecError::Damaged
        }
    }
}

/// The stream as the library takes it. Lossless JPEG has no quantisation, so the number of a table
/// shall be zero (T.81 B.2.2). DCMTK writes 1 for the second and third component, and the library
/// refuses that.
fn without_tables_of_quantisation(stream: &[u8]) -> Cow<'_, [u8]> {
    const SOF3: u8 = 0xC3;
    const SOS: u8 = 0xDA;
    // Behind SOI, each segment has a marker and its length.
    let mut at = 2;
    while let Some(&[0xFF, marker, high, low, ..]) = stream.get(at..)
        && marker != SOS
    {
        if marker != SOF3 {
            at += 2 + usize::from(u16::from_be_bytes([high, low]));
            continue;
        }
        // Nine bytes of the frame come before its components, which have three bytes each.
        let count = stream.get(at + 9).copied().map_or(0, usize::from);
        let mut stream = stream.to_vec();
        (0..count).for_each(|component| {
            if let Some(table) = stream.get_mut(at + 12 + 3 * component) {
                *table = 0;
            }
        });
        return stream.into();
    }
    stream.into()
}

/// Refuses what the library decodes wrongly: a point transform, and restart intervals together with
/// the first predictor. Neither marker can occur inside of entropy-coded data (T.81 F.1.2.3).
fn check_lossless(stream: &[u8]) -> Result<(), CodecError> {
    let parameters = |marker: &'static [u8; 2]| {
        memmem::find_iter(stream, marker).filter_map(|at| stream.get(at + 4..)).collect::<Vec<_>>()
    };
    let mut has_first_predictor = false;
    // T.81 B.2.3: a count of components with two bytes each, then Ss, Se, Ah and Al.
    for scan in parameters(&[0xFF, 0xDA]) {
        let count = scan.first().copied().map(usize::from).ok_or(CodecError::Damaged)?;
        let (Some(predictor), Some(transform)) = (scan.get(1 + 2 * count), scan.get(3 + 2 * count)) else {
            return Err(CodecError::Damaged);
        };
        has_first_predictor |= *predictor == 1;
        if transform & 0x0F != 0 {
            return Err(CodecError::Unsupported("a point transform"));
        }
    }
    if has_first_predictor && parameters(&[0xFF, 0xDD]).iter().any(|interval| !interval.starts_with(&[0, 0])) {
        return Err(CodecError::Unsupported("restart intervals"));
    }
    Ok(())
}

/// Brings samples of one or two bytes into the bytes that the object allocates.
fn in_samples(decoded: Vec<u8>, shape: &FrameShape) -> Result<Vec<u8>, CodecError> {
    let samples = shape.pixels() * shape.samples;
    let words = || decoded.as_chunks::<2>().0.iter().map(|bytes| u16::from_ne_bytes(*bytes));
    match (decoded.len().checked_div(samples), decoded.len().checked_rem(samples), shape.sample_bytes()) {
        (Some(1), Some(0), 1) => Ok(decoded),
        (Some(1), Some(0), 2) => Ok(decoded.iter().flat_map(|byte| [*byte, 0]).collect()),
        (Some(2), Some(0), 2) if cfg!(target_endian = "little") => Ok(decoded),
        (Some(2), Some(0), 2) => Ok(words().flat_map(u16::to_le_bytes).collect()),
        // The library gives two bytes for fewer than eight bits, too.
        (Some(2), Some(0), 1) => words().map(|word| u8::try_from(word).map_err(|_| CodecError::OtherImage)).collect(),
        _ => Err(CodecError::OtherImage),
    }
}
