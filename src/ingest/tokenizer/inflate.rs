//! Inflates a data set in the deflated transfer syntax.

use flate2::{Decompress, FlushDecompress, Status};

/// Input of one call of the inflater. On damaged input the inflater drops output that it still
/// buffers. We feed so few bytes that their largest expansion (1,032 times) always fits the output.
const DEFLATED_STEP: usize = 16;

/// Output of one call of the inflater.
const INFLATE_CHUNK: usize = 32 << 10;

/// Decodes the deflated encoding (PS3.5 A.5).
#[derive(Debug)]
pub(super) struct Inflater {
    pub(super) stream: Decompress,
    out: Vec<u8>,
    pub(super) ended: bool,
}

/// The input is no deflated stream.
pub(super) struct Damaged;

impl Inflater {
    pub(super) fn new() -> Self {
        Self { stream: Decompress::new(false), out: vec![0; INFLATE_CHUNK], ended: false }
    }

    /// Inflates the next few bytes. Returns the output and whether the input is intact. Without
    /// input, it returns the remaining output.
    pub(super) fn next(&mut self, bytes: &mut &[u8]) -> (&[u8], Result<(), Damaged>) {
        // Some writers use a zlib stream, although PS3.5 A.5 means the raw one of RFC 1951. In a
        // raw stream, 78 as the first byte would begin a stored block. Compressors do not write a
        // data set like that.
        if self.stream.total_in() == 0 && bytes.first() == Some(&0x78) {
            self.stream = Decompress::new(true);
        }
        let (read, written) = (self.stream.total_in(), self.stream.total_out());
        let step = bytes.get(..DEFLATED_STEP).unwrap_or(bytes);
        let status = self.stream.decompress(step, &mut self.out, FlushDecompress::None);
        let read = usize::try_from(self.stream.total_in() - read).unwrap_or(usize::MAX);
        let written = usize::try_from(self.stream.total_out() - written).unwrap_or(0);
        *bytes = bytes.get(read..).unwrap_or_default();
        self.ended = matches!(status, Ok(Status::StreamEnd));
        let intact = match status {
            // A further try would give nothing either.
            Ok(_) if read == 0 && written == 0 && !step.is_empty() && !self.ended => Err(Damaged),
            Ok(_) => Ok(()),
            Err(_) => Err(Damaged),
        };
        (self.out.get(..written).unwrap_or_default(), intact)
    }
}
