//! Frames whose samples are native ones: in fragments as they are (PS3.5 A.4.11), or deflated
//! (PS3.5 A.4.13).

use std::io::Read as _;

use flate2::read::DeflateDecoder;

use super::frame::{CodecError, FrameShape};

/// Returns the samples without a byte that makes the length even.
pub(super) fn of_padded(stream: &[u8], shape: &FrameShape) -> Result<Vec<u8>, CodecError> {
    let expected = shape.native_bytes();
    if stream.len() != expected + expected % 2 && stream.len() != expected {
        return Err(CodecError::OtherImage);
    }
    stream.get(..expected).map(<[u8]>::to_vec).ok_or(CodecError::OtherImage)
}

/// Inflates a frame, and no more than its samples. Some writers pad the samples as well.
pub(super) fn inflated(stream: &[u8], shape: &FrameShape) -> Result<Vec<u8>, CodecError> {
    let expected = shape.native_bytes();
    let mut frame = Vec::with_capacity(expected);
    // Two bytes more show that the stream is longer.
    let read = DeflateDecoder::new(stream).take(expected as u64 + 2).read_to_end(&mut frame);
    read.map_err(|_| CodecError::Damaged)?;
    of_padded(&frame, shape)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::DeflateEncoder;

    use super::*;

    const SHAPE: FrameShape = FrameShape { columns: 3, rows: 1, samples: 1, bits_allocated: 8, is_planar: false };

    fn deflated(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn samples_come_as_they_are_without_padding() {
        assert_eq!(of_padded(b"abc\0", &SHAPE), Ok(b"abc".to_vec()));
        assert_eq!(of_padded(b"abc", &SHAPE), Ok(b"abc".to_vec()));
        for other in [&b""[..], b"ab", b"abcde"] {
            assert_eq!(of_padded(other, &SHAPE), Err(CodecError::OtherImage));
        }
        let bits = FrameShape { bits_allocated: 1, ..SHAPE };
        assert_eq!(of_padded(b"\x05\0", &bits), Ok(vec![5]));
    }

    #[test]
    fn deflated_samples_are_inflated_and_no_more() {
        let padded = [deflated(b"abc"), vec![0]].concat();
        assert_eq!(inflated(&padded, &SHAPE), Ok(b"abc".to_vec()));
        assert_eq!(inflated(&deflated(b"abc\0"), &SHAPE), Ok(b"abc".to_vec()));
        assert_eq!(inflated(&deflated(&[0; 1_000_000]), &SHAPE), Err(CodecError::OtherImage));
        assert_eq!(inflated(&[0xFF; 9], &SHAPE), Err(CodecError::Damaged));
    }
}
