//! Properties of a frame that a codec must know, its time, and the reasons why it is refused.

use std::time::{Duration, Instant};

/// Time for one frame. Larger: a stream that was made to be slow keeps a place longer. Smaller:
/// large frames on a busy machine are refused.
const TIME_OF_FRAME: Duration = Duration::from_secs(10);

/// The moment at which a decoder gives up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadline(Instant);

impl Deadline {
    /// Returns the deadline of a frame whose decoding begins now.
    pub(super) fn usual() -> Self {
        Self(Instant::now() + TIME_OF_FRAME)
    }

    /// Returns a deadline that is over.
    #[cfg(test)]
    pub(super) fn over() -> Self {
        Self(Instant::now())
    }

    /// Checks that there is time left.
    pub(super) fn check(&self) -> Result<(), CodecError> {
        if Instant::now() < self.0 { Ok(()) } else { Err(CodecError::TooLong) }
    }
}

/// Size of a frame, as the object states it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameShape {
    /// Columns (0028,0011).
    pub columns: u32,
    /// Rows (0028,0010).
    pub rows: u32,
    /// Samples per Pixel (0028,0002).
    pub samples: usize,
    /// Bits Allocated (0028,0100).
    pub bits_allocated: u16,
    /// Planar Configuration (0028,0006) is 1: one plane for each sample.
    pub is_planar: bool,
}

impl FrameShape {
    /// Number of pixels. The limits of [`super::Codec::check`] keep it small.
    pub(super) fn pixels(&self) -> usize {
        self.columns as usize * self.rows as usize
    }

    /// Bytes of the native frame. Samples of one bit are packed (PS3.5 8.1.1).
    pub(super) fn native_bytes(&self) -> usize {
        (self.pixels() * self.samples * usize::from(self.bits_allocated)).div_ceil(8)
    }

    /// Bytes of one sample.
    pub(super) fn sample_bytes(&self) -> usize {
        usize::from(self.bits_allocated / 8)
    }
}

/// Reason why a frame is not decompressed. The message contains no values of the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// No decoder exists here for the transfer syntax.
    #[error("frames of this transfer syntax are not decompressed here")]
    NoDecoder,
    /// The frame is larger than the limits.
    #[error("a frame must have 1 to 100,000,000 pixels, and at most 100,000,000 samples if it is compressed")]
    TooLarge,
    /// The stream uses a feature that the decoder does not have.
    #[error("the compressed stream uses {0}, which is not decompressed here")]
    Unsupported(&'static str),
    /// The stream describes another image than the object does.
    #[error("stream and object differ in size or depth")]
    OtherImage,
    /// Its decoder cannot be stopped, and would need too long.
    #[error("a frame of JPEG 2000 must have at most 40,000,000 samples")]
    TooSlow,
    /// The time is over.
    #[error("decompression takes too long")]
    TooLong,
    /// The stream cannot be decoded.
    #[error("the compressed stream is damaged")]
    Damaged,
}
