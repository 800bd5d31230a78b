//! Frames without compression (PS3.5 8.2): which transfer syntaxes are decompressed, and how.
//!
//! A frame goes in as it is stored and comes out as native samples. Sizes are checked before memory
//! is taken. Streams come from strangers, so a decoder that panics only refuses its frame.

mod frame;
#[cfg(feature = "render")]
mod jpeg;
#[cfg(feature = "render")]
mod jpeg2000;
mod jpeg_ls;
mod rle;
mod uncoded;

use std::panic::{AssertUnwindSafe, catch_unwind};

use frame::Deadline;
pub use frame::{CodecError, FrameShape};

use crate::encoding::syntax;

/// Pixels of a frame that is decompressed or rendered.
pub const MAX_PIXELS: u64 = 100_000_000;

/// Samples of a frame that is decompressed. Decoders need up to 12 bytes for each.
const MAX_SAMPLES: u64 = 100_000_000;

/// Samples of a frame of JPEG 2000. Its decoder cannot be stopped. With noise of 16 bits it took
/// 240 ns for a sample, and else about 90 ns. Larger: such a frame keeps its place for more than 10
/// seconds.
#[cfg(feature = "render")]
const MAX_SAMPLES_OF_JPEG_2000: u64 = 40_000_000;

/// Whether decompressed samples are those that were compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The transfer syntax is lossless.
    None,
    /// The transfer syntax allows loss.
    Possible,
    /// The transfer syntax is lossy.
    Certain,
}

impl Loss {
    /// Whether Lossy Image Compression (0028,2110) with this value can stay as it is when the
    /// compression is undone (PS3.3 C.7.6.1.1.5).
    #[must_use]
    pub fn is_stated_by(self, value: &str) -> bool {
        match self {
            Self::None => true,
            Self::Possible => matches!(value, "00" | "01"),
            Self::Certain => value == "01",
        }
    }
}

/// A way to decompress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    /// Native samples in fragments.
    Native,
    /// Native samples, deflated.
    Deflate,
    Rle,
    #[cfg(feature = "render")]
    Jpeg(jpeg::Process),
    #[cfg(feature = "render")]
    Jpeg2000,
    JpegLs,
}

/// A transfer syntax whose frames are decompressed.
#[derive(Debug)]
pub struct Codec {
    /// UID of the transfer syntax.
    pub transfer_syntax: &'static str,
    /// Whether samples may be lost.
    pub loss: Loss,
    method: Method,
}

/// All transfer syntaxes whose frames are decompressed.
pub static CODECS: &[Codec] = &[
    Codec { transfer_syntax: syntax::ENCAPSULATED_UNCOMPRESSED, loss: Loss::None, method: Method::Native },
    Codec { transfer_syntax: syntax::DEFLATED_IMAGE_FRAME, loss: Loss::None, method: Method::Deflate },
    Codec { transfer_syntax: syntax::RLE_LOSSLESS, loss: Loss::None, method: Method::Rle },
    #[cfg(feature = "render")]
    Codec { transfer_syntax: syntax::JPEG_BASELINE, loss: Loss::Certain, method: Method::Jpeg(jpeg::Process::Lossy) },
    #[cfg(feature = "render")]
    Codec { transfer_syntax: syntax::JPEG_EXTENDED, loss: Loss::Certain, method: Method::Jpeg(jpeg::Process::Lossy) },
    #[cfg(feature = "render")]
    Codec { transfer_syntax: syntax::JPEG_LOSSLESS, loss: Loss::None, method: Method::Jpeg(jpeg::Process::Lossless) },
    #[cfg(feature = "render")]
    Codec {
        transfer_syntax: syntax::JPEG_LOSSLESS_FIRST_ORDER,
        loss: Loss::None,
        method: Method::Jpeg(jpeg::Process::Lossless),
    },
    #[cfg(feature = "render")]
    Codec { transfer_syntax: syntax::JPEG_2000_LOSSLESS, loss: Loss::None, method: Method::Jpeg2000 },
    #[cfg(feature = "render")]
    Codec { transfer_syntax: syntax::JPEG_2000, loss: Loss::Possible, method: Method::Jpeg2000 },
    Codec { transfer_syntax: syntax::JPEG_LS_LOSSLESS, loss: Loss::None, method: Method::JpegLs },
    Codec { transfer_syntax: syntax::JPEG_LS_NEAR_LOSSLESS, loss: Loss::Possible, method: Method::JpegLs },
];

impl Codec {
    /// The codec of a transfer syntax. `None` if its frames are not decompressed here.
    #[must_use]
    pub fn of(transfer_syntax: &str) -> Option<&'static Self> {
        CODECS.iter().find(|codec| codec.transfer_syntax == transfer_syntax)
    }

    /// The codec of a transfer syntax whose native frames are exactly those that were compressed.
    #[must_use]
    pub fn lossless(transfer_syntax: &str) -> Option<&'static Self> {
        Self::of(transfer_syntax).filter(|codec| codec.loss == Loss::None)
    }

    /// Checks the size of frames, before anything is read.
    ///
    /// # Errors
    /// If frames of this shape are not decompressed.
    pub fn check(&self, shape: &FrameShape) -> Result<(), CodecError> {
        let pixels = u64::from(shape.columns) * u64::from(shape.rows);
        let samples = pixels.saturating_mul(shape.samples as u64);
        if pixels == 0 || pixels > MAX_PIXELS || samples > MAX_SAMPLES {
            return Err(CodecError::TooLarge);
        }
        #[cfg(feature = "render")]
        if self.method == Method::Jpeg2000 && samples > MAX_SAMPLES_OF_JPEG_2000 {
            return Err(CodecError::TooSlow);
        }
        match (self.method, shape.samples, shape.bits_allocated) {
            (Method::Native | Method::Deflate, 1..=4, 1 | 8 | 16 | 32 | 64) => Ok(()),
            (Method::Rle, 1 | 3, 8 | 16 | 32) => Ok(()),
            (Method::JpegLs, 1 | 3, 8 | 16) => Ok(()),
            #[cfg(feature = "render")]
            (Method::Jpeg(_) | Method::Jpeg2000, 1 | 3, 8 | 16) => Ok(()),
            _ => Err(CodecError::Unsupported("an unusual number of samples or bits")),
        }
    }

    /// Decompresses one frame to little-endian samples. They are interleaved or in planes, as the
    /// object states.
    ///
    /// # Errors
    /// If the stream cannot be decoded in time, or is another image than the object states.
    pub fn decompress(&self, stream: &[u8], shape: &FrameShape) -> Result<Vec<u8>, CodecError> {
        self.check(shape)?;
        let deadline = Deadline::usual();
        // Decoders of others have panicked on damaged streams before.
        let decoded = catch_unwind(AssertUnwindSafe(|| match self.method {
            Method::Native => uncoded::of_padded(stream, shape),
            Method::Deflate => uncoded::inflated(stream, shape),
            Method::Rle => rle::decode(stream, shape),
            #[cfg(feature = "render")]
            Method::Jpeg(process) => {
                jpeg::decode(stream, shape, process, &deadline).map(|frame| arranged(frame, shape))
            }
            #[cfg(feature = "render")]
            Method::Jpeg2000 => jpeg2000::decode(stream, shape).map(|frame| arranged(frame, shape)),
            Method::JpegLs => {
                jpeg_ls::decode(stream, shape, self.loss == Loss::None, &deadline).map(|frame| arranged(frame, shape))
            }
        }));
        let frame = decoded.map_err(|_| CodecError::Damaged)??;
        if frame.len() == shape.native_bytes() { Ok(frame) } else { Err(CodecError::OtherImage) }
    }

    /// Photometric Interpretation (0028,0004) of decompressed frames. The component transforms of
    /// JPEG 2000 belong to the compression (PS3.5 8.2.4).
    #[must_use]
    pub fn photometric<'p>(&self, stored: &'p str) -> &'p str {
        if matches!(self.method, Method::Native | Method::Deflate) {
            return stored;
        }
        match stored {
            "YBR_RCT" | "YBR_ICT" => "RGB",
            // JPEG decoders undo the subsampling.
            "YBR_FULL_422" => "YBR_FULL",
            other => other,
        }
    }
}

/// Brings interleaved samples into planes if the object states planes.
fn arranged(frame: Vec<u8>, shape: &FrameShape) -> Vec<u8> {
    if !shape.is_planar || shape.samples == 1 {
        return frame;
    }
    let width = shape.sample_bytes();
    let plane = |number: usize| frame.chunks_exact(width).skip(number).step_by(shape.samples).flatten().copied();
    (0..shape.samples).flat_map(plane).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: FrameShape = FrameShape { columns: 2, rows: 1, samples: 3, bits_allocated: 8, is_planar: true };

    #[test]
    fn sizes_are_checked_before_anything_is_read() {
        let codec = Codec::of("1.2.840.10008.1.2.5").unwrap();
        let check = |columns, rows| codec.check(&FrameShape { columns, rows, ..SHAPE });
        assert_eq!(check(2, 1), Ok(()));
        assert_eq!(check(0, 1), Err(CodecError::TooLarge));
        assert_eq!(check(65_535, 65_535), Err(CodecError::TooLarge));
        assert_eq!(check(10_000, 10_000), Err(CodecError::TooLarge), "three samples each");
        #[cfg(feature = "render")]
        for (uid, expected) in [("4.90", Err(CodecError::TooSlow)), ("4.70", Ok(()))] {
            let codec = Codec::of(&format!("1.2.840.10008.1.2.{uid}")).unwrap();
            let large = FrameShape { columns: 8_000, rows: 6_000, samples: 1, ..SHAPE };
            assert_eq!(codec.check(&large), expected);
        }
        for odd in [FrameShape { samples: 0, ..SHAPE }, FrameShape { bits_allocated: 12, ..SHAPE }] {
            assert!(matches!(codec.check(&odd), Err(CodecError::Unsupported(_))));
        }
    }

    #[test]
    fn only_lossless_frames_become_native_ones() {
        assert!(Codec::lossless("1.2.840.10008.1.2.5").is_some());
        assert!(Codec::lossless("1.2.840.10008.1.2.4.50").is_none());
        assert!(Codec::of("1.2.840.10008.1.2.4.201").is_none());
    }

    #[test]
    fn interleaved_samples_become_planes() {
        assert_eq!(arranged(vec![1, 2, 3, 4, 5, 6], &SHAPE), [1, 4, 2, 5, 3, 6]);
    }

    #[cfg(feature = "render")]
    #[test]
    fn streams_that_are_none_are_refused() {
        let shape = FrameShape { samples: 1, is_planar: false, ..SHAPE };
        // Any bytes are native samples.
        for codec in CODECS.iter().filter(|codec| codec.method != Method::Native) {
            for stream in [&b""[..], b"\xff\xd8", b"\xff\x4f\xff\x51", &[0xFF; 300], &[0; 300]] {
                assert!(codec.decompress(stream, &shape).is_err(), "{}", codec.transfer_syntax);
            }
        }
    }
}
