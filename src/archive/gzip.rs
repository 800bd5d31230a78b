//! The content of a gzip file, which may have several members (RFC 1952 2.2).

use std::io::{BufRead, Read, Result};

use flate2::bufread::GzDecoder;

use super::problem::ArchiveProblem;

/// The first bytes of each member.
const MAGIC: &[u8] = &[0x1F, 0x8B];

/// Inflates the members of a gzip file one after the other. Zeros after the last one are padding of
/// tapes and block devices, which gzip ignores too.
pub(super) struct GzipContent<R> {
    /// `None` after the last member.
    member: Option<GzDecoder<R>>,
}

impl<R: BufRead> GzipContent<R> {
    pub(super) fn new(source: R) -> Self {
        Self { member: Some(GzDecoder::new(source)) }
    }
}

impl<R: BufRead> Read for GzipContent<R> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        while let Some(member) = &mut self.member {
            let count = member.read(buffer)?;
            if count > 0 || buffer.is_empty() {
                return Ok(count);
            }
            let rest = after_zeros(member.get_mut())?;
            if rest.is_empty() {
                self.member = None;
            } else if !MAGIC.starts_with(rest.get(..MAGIC.len()).unwrap_or(rest)) {
                return Err(ArchiveProblem::Damaged("something else follows its content").into_io());
            } else {
                self.member = self.member.take().map(|member| GzDecoder::new(member.into_inner()));
            }
        }
        Ok(0)
    }
}

/// Skips zeros. Returns bytes that follow them, or none at the end.
fn after_zeros(source: &mut impl BufRead) -> Result<&[u8]> {
    loop {
        let bytes = source.fill_buf()?;
        let (zeros, count) = (bytes.iter().take_while(|byte| **byte == 0).count(), bytes.len());
        source.consume(zeros);
        if zeros < count || count == 0 {
            return source.fill_buf();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn member(content: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    fn content(file: &[u8]) -> Result<Vec<u8>> {
        let mut content = Vec::new();
        GzipContent::new(std::io::BufReader::with_capacity(7, file)).read_to_end(&mut content).map(|_| content)
    }

    #[test]
    fn members_follow_each_other_and_zeros_the_last_one() {
        let several = [member(b"one "), member(b""), member(b"two")].concat();
        assert_eq!(content(&several).unwrap(), b"one two");
        assert_eq!(content(&[&several[..], &[0; 100]].concat()).unwrap(), b"one two");
        assert_eq!(content(&[&several[..], &[0; 9], &member(b" three")[..]].concat()).unwrap(), b"one two three");
        assert!(content(&[&several[..], b"\0other"].concat()).is_err());
        assert!(content(&several[..several.len() - 1]).is_err());
    }
}
