//! RLE Lossless (PS3.5 annex G).

use super::frame::{CodecError, FrameShape};

/// Length of the RLE header: the number of segments and 15 offsets.
const HEADER_BYTES: usize = 64;

/// Decodes one frame. Each segment has one byte of each sample, the most significant byte first.
pub(super) fn decode(stream: &[u8], shape: &FrameShape) -> Result<Vec<u8>, CodecError> {
    let (pixels, width) = (shape.pixels(), shape.sample_bytes());
    let segments = shape.samples * width;
    let (header, _) = stream.split_at_checked(HEADER_BYTES).ok_or(CodecError::Damaged)?;
    let mut numbers = header.as_chunks::<4>().0.iter().map(|bytes| u32::from_le_bytes(*bytes) as usize);
    if numbers.next() != Some(segments) {
        return Err(CodecError::OtherImage);
    }
    let offsets: Vec<usize> = numbers.take(segments).collect();
    if offsets.len() < segments {
        return Err(CodecError::Damaged);
    }
    let mut out = vec![0; pixels * segments];
    for (number, start) in offsets.iter().enumerate() {
        let end = offsets.get(number + 1).copied().unwrap_or(stream.len());
        let segment = stream.get(*start..end).ok_or(CodecError::Damaged)?;
        let (sample, byte) = (number / width, width - 1 - number % width);
        let (first, step) =
            if shape.is_planar { (sample * pixels * width + byte, width) } else { (sample * width + byte, segments) };
        let places = out.get_mut(first..).unwrap_or_default().iter_mut().step_by(step).take(pixels);
        unpack(segment, places)?;
    }
    Ok(out)
}

/// Decodes one segment (PS3.5 G.3.2). Bytes after the last pixel are padding.
fn unpack<'a>(mut segment: &[u8], mut places: impl ExactSizeIterator<Item = &'a mut u8>) -> Result<(), CodecError> {
    while places.len() > 0 {
        let (control, rest) = segment.split_first().ok_or(CodecError::Damaged)?;
        segment = rest;
        match *control {
            0x80 => {}
            count @ 0..0x80 => {
                let (literal, rest) = segment.split_at_checked(usize::from(count) + 1).ok_or(CodecError::Damaged)?;
                segment = rest;
                // A run may reach into the padding.
                literal.iter().zip(&mut places).for_each(|(byte, place)| *place = *byte);
            }
            count @ 0x81.. => {
                let (byte, rest) = segment.split_first().ok_or(CodecError::Damaged)?;
                segment = rest;
                places.by_ref().take(257 - usize::from(count)).for_each(|place| *place = *byte);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(segments: &[&[u8]]) -> Vec<u8> {
        let mut bytes = vec![0; HEADER_BYTES];
        bytes[0] = segments.len() as u8;
        for (number, segment) in segments.iter().enumerate() {
            let start = bytes.len() as u32;
            bytes[4 + 4 * number..8 + 4 * number].copy_from_slice(&start.to_le_bytes());
            bytes.extend_from_slice(segment);
        }
        bytes
    }

    const GREY_16: FrameShape = FrameShape { columns: 2, rows: 2, samples: 1, bits_allocated: 16, is_planar: false };

    #[test]
    fn segments_are_put_together_byte_by_byte() {
        // Four times 0x12 as a run, then 1 2 3 4 as they are.
        let bytes = frame(&[&[0xFD, 0x12], &[3, 1, 2, 3, 4, 0x80]]);
        assert_eq!(decode(&bytes, &GREY_16).unwrap(), [1, 0x12, 2, 0x12, 3, 0x12, 4, 0x12]);
        let rgb = FrameShape { samples: 3, bits_allocated: 8, rows: 1, ..GREY_16 };
        let bytes = frame(&[&[1, 1, 2], &[0xFF, 9], &[1, 5, 6]]);
        assert_eq!(decode(&bytes, &rgb).unwrap(), [1, 9, 5, 2, 9, 6]);
        assert_eq!(decode(&bytes, &FrameShape { is_planar: true, ..rgb }).unwrap(), [1, 2, 9, 9, 5, 6]);
    }

    #[test]
    fn a_damaged_frame_is_refused() {
        assert_eq!(decode(&frame(&[&[3, 1, 2, 3, 4]]), &GREY_16), Err(CodecError::OtherImage));
        assert_eq!(decode(&frame(&[&[0xFD, 0], &[3, 1, 2]]), &GREY_16), Err(CodecError::Damaged));
        assert_eq!(decode(&frame(&[&[0xFD, 0], &[0xFD]]), &GREY_16), Err(CodecError::Damaged));
        assert_eq!(decode(&[2, 0, 0, 0], &GREY_16), Err(CodecError::Damaged));
        let mut outside = frame(&[&[0xFD, 0], &[0xFD, 0]]);
        outside[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(decode(&outside, &GREY_16), Err(CodecError::Damaged));
    }
}
