//! JPEG-LS (ITU-T T.87): lossless and near-lossless, of 2 to 16 bits.
//!
//! Each sample is predicted from its neighbours, and the error of the prediction is coded. Flat
//! parts are coded as runs. Names in brackets are those of T.87. Mapping tables, restart intervals
//! and point transforms are refused: DICOM needs none, and no encoder at hand writes them.

use memchr::memmem;

use super::frame::{CodecError, Deadline, FrameShape};

/// Most components of one frame.
const MAX_COMPONENTS: usize = 4;

/// Contexts of the regular mode (T.87 A.3.4).
const CONTEXTS: usize = 365;

/// Orders of the lengths of runs (J, T.87 A.2.1).
const RUN_ORDERS: [u32; 32] =
    [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 9, 10, 11, 12, 13, 14, 15];

/// Decodes one frame into interleaved samples. A lossless transfer syntax promises that no sample
/// differs from the compressed one.
pub(super) fn decode(
    stream: &[u8],
    shape: &FrameShape,
    is_lossless: bool,
    deadline: &Deadline,
) -> Result<Vec<u8>, CodecError> {
    let mut rest = stream.strip_prefix(&[0xFF, 0xD8]).ok_or(CodecError::Damaged)?;
    let mut frame = None;
    let mut preset = None;
    let mut out = vec![0; shape.pixels() * shape.samples * shape.sample_bytes()];
    let mut is_decoded = vec![false; shape.samples];
    while is_decoded.contains(&false) {
        let (marker, segment, after) = next_segment(rest)?;
        rest = after;
        match marker {
            0xF7 => frame = Some(FrameHeader::of(segment, shape)?),
            0xF8 => match segment.split_first() {
                Some((1, values)) => preset = Some(words(values)?),
                Some(_) => return Err(CodecError::Unsupported("a mapping table")),
                None => return Err(CodecError::Damaged),
            },
            0xE8 if memmem::find(segment, b"mrfx").is_some() && segment.last() != Some(&0) => {
                return Err(CodecError::Unsupported("a colour transform"));
            }
            0xDD if segment.iter().any(|byte| *byte != 0) => return Err(CodecError::Unsupported("restart intervals")),
            0xDA => {
                let frame = frame.as_ref().ok_or(CodecError::Damaged)?;
                let scan = ScanHeader::of(segment, frame)?;
                if is_lossless && scan.near != 0 {
                    return Err(CodecError::OtherImage);
                }
                let (data, after) = entropy_coded(rest);
                rest = after;
                for number in &scan.components {
                    let is_first = is_decoded.get_mut(*number).is_some_and(|known| !std::mem::replace(known, true));
                    if !is_first {
                        return Err(CodecError::Damaged);
                    }
                }
                let coding = Coding::of(frame.precision, scan.near, preset)?;
                Scan::new(data, coding, shape.columns as usize).decode(&scan, shape, deadline, &mut out)?;
            }
            0xC0..=0xCF => return Err(CodecError::OtherImage),
            _ => {}
        }
    }
    Ok(out)
}

/// Returns a marker, the parameters of its segment, and everything behind it.
fn next_segment(stream: &[u8]) -> Result<(u8, &[u8], &[u8]), CodecError> {
    let fill = stream.iter().take_while(|byte| **byte == 0xFF).count();
    if fill == 0 {
        return Err(CodecError::Damaged);
    }
    let (marker, rest) = stream.get(fill..).and_then(<[u8]>::split_first).ok_or(CodecError::Damaged)?;
    let length = rest.first_chunk().map(|bytes| usize::from(u16::from_be_bytes(*bytes)));
    let length = length.filter(|length| *length >= 2).ok_or(CodecError::Damaged)?;
    let (segment, after) = rest.split_at_checked(length).ok_or(CodecError::Damaged)?;
    Ok((*marker, segment.get(2..).unwrap_or_default(), after))
}

/// Divides a stream behind the data of a scan. They have no byte 0xFF before one that is above
/// 0x7F.
fn entropy_coded(stream: &[u8]) -> (&[u8], &[u8]) {
    let end = memchr::memchr_iter(0xFF, stream).find(|at| stream.get(at + 1).is_none_or(|next| *next >= 0x80));
    stream.split_at(end.unwrap_or(stream.len()))
}

/// Returns the five numbers of a preset: MAXVAL, T1, T2, T3 and RESET.
fn words(values: &[u8]) -> Result<[i32; 5], CodecError> {
    let numbers = values.first_chunk::<10>().ok_or(CodecError::Damaged)?.as_chunks::<2>().0;
    let mut words = [0; 5];
    for (word, bytes) in words.iter_mut().zip(numbers) {
        *word = i32::from(u16::from_be_bytes(*bytes));
    }
    Ok(words)
}

/// The SOF55 marker segment.
struct FrameHeader {
    precision: u32,
    components: Vec<u8>,
}

impl FrameHeader {
    fn of(segment: &[u8], shape: &FrameShape) -> Result<Self, CodecError> {
        let (head, components) = segment.split_first_chunk::<6>().ok_or(CodecError::Damaged)?;
        let [precision, rows @ .., count] = *head;
        let [rows, columns] = [[rows[0], rows[1]], [rows[2], rows[3]]].map(u16::from_be_bytes);
        let components: Vec<u8> = components.as_chunks::<3>().0.iter().map(|[name, ..]| *name).collect();
        let is_same = (u32::from(columns), u32::from(rows)) == (shape.columns, shape.rows)
            && (usize::from(count), components.len()) == (shape.samples, shape.samples)
            && shape.samples <= MAX_COMPONENTS;
        if !is_same || !(2..=16).contains(&precision) || u16::from(precision) > shape.bits_allocated {
            return Err(CodecError::OtherImage);
        }
        Ok(Self { precision: u32::from(precision), components })
    }
}

/// The SOS marker segment.
struct ScanHeader {
    /// Numbers of the components of the scan.
    components: Vec<usize>,
    near: i32,
    /// Whether all components of a pixel come together, and not line by line.
    is_by_pixel: bool,
}

impl ScanHeader {
    fn of(segment: &[u8], frame: &FrameHeader) -> Result<Self, CodecError> {
        let (count, rest) = segment.split_first().ok_or(CodecError::Damaged)?;
        let (components, parameters) = rest.split_at_checked(usize::from(*count) * 2).ok_or(CodecError::Damaged)?;
        let [near, interleave, transform] = *parameters else { return Err(CodecError::Damaged) };
        let mut numbers = Vec::new();
        for [name, table] in components.as_chunks::<2>().0 {
            if *table != 0 {
                return Err(CodecError::Unsupported("a mapping table"));
            }
            let number = frame.components.iter().position(|known| known == name);
            numbers.push(number.ok_or(CodecError::Damaged)?);
        }
        if transform != 0 {
            return Err(CodecError::Unsupported("a point transform"));
        }
        match (numbers.len(), interleave) {
            (1, _) | (2..=MAX_COMPONENTS, 1 | 2) => {
                Ok(Self { is_by_pixel: interleave == 2 && numbers.len() > 1, components: numbers, near: near.into() })
            }
            _ => Err(CodecError::Damaged),
        }
    }
}

/// Numbers that hold for a whole scan (T.87 A.1, A.2.1, C.2.4.1.1).
struct Coding {
    /// Greatest sample (MAXVAL).
    greatest: i32,
    near: i32,
    /// Distance of two samples that differ (2 NEAR + 1).
    step: i32,
    /// T1, T2 and T3.
    thresholds: [i32; 3],
    /// Samples of a context after which its counts are halved (RESET).
    reset: i64,
    range: i32,
    /// Bits of an error that is written as it is (qbpp).
    error_bits: u32,
    /// Bits of the longest code (LIMIT).
    limit: u32,
}

impl Coding {
    fn of(precision: u32, near: i32, preset: Option<[i32; 5]>) -> Result<Self, CodecError> {
        let whole = (1_i32 << precision) - 1;
        let [greatest, t1, t2, t3, reset] = preset.unwrap_or_default();
        let or = |value: i32, default: i32| if value == 0 { default } else { value };
        let greatest = or(greatest, whole);
        let reset = i64::from(or(reset, 64));
        if greatest > whole || near > (greatest / 2).min(255) || reset < 3 || greatest < 1 {
            return Err(CodecError::Damaged);
        }
        let [d1, d2, d3] = default_thresholds(greatest, near);
        let thresholds = [or(t1, d1), or(t2, d2), or(t3, d3)];
        let step = 2 * near + 1;
        let range = (greatest + 2 * near) / step + 1;
        let bits = |count: i32| (count - 1).max(1).ilog2() + 1;
        let sample_bits = bits(greatest + 1).max(2);
        let limit = 2 * (sample_bits + sample_bits.max(8));
        Ok(Self { greatest, near, step, thresholds, reset, range, error_bits: bits(range), limit })
    }

    /// T.87 A.3.3.
    fn quantized(&self, gradient: i32) -> i32 {
        let [t1, t2, t3] = self.thresholds;
        let size = gradient.abs();
        let level = match size {
            _ if size <= self.near => 0,
            _ if size < t1 => 1,
            _ if size < t2 => 2,
            _ if size < t3 => 3,
            _ => 4,
        };
        level * gradient.signum()
    }

    /// Returns the number of the context, which is negative if its errors are. 0 begins a run.
    fn context(&self, near: &Neighbours) -> i32 {
        81 * self.quantized(near.above_right - near.above)
            + 9 * self.quantized(near.above - near.above_left)
            + self.quantized(near.above_left - near.left)
    }

    /// Returns the sample of a prediction and its error (T.87 A.4.4, A.4.5).
    fn sample(&self, predicted: i32, error: i32) -> i32 {
        let sample = predicted + error * self.step;
        let turn = self.range * self.step;
        let sample = match sample {
            _ if sample < -self.near => sample + turn,
            _ if sample > self.greatest + self.near => sample - turn,
            _ => sample,
        };
        sample.clamp(0, self.greatest)
    }
}

/// T.87 C.2.4.1.1.1.
fn default_thresholds(greatest: i32, near: i32) -> [i32; 3] {
    let clamped = |value: i32, least: i32| if value > greatest || value < least { least } else { value };
    let basic = [3, 7, 21];
    let mut least = near + 1;
    let mut thresholds = [0; 3];
    for (at, (threshold, basic)) in (0..).zip(thresholds.iter_mut().zip(basic)) {
        let tolerance = (3 + 2 * at) * near;
        let value = if greatest >= 128 {
            let factor = (greatest.min(4095) + 128) / 256;
            factor * (basic - 2 - at) + 2 + at + tolerance
        } else {
            let factor = 256 / (greatest + 1);
            (basic / factor + tolerance).max(2 + at)
        };
        least = clamped(value, least);
        *threshold = least;
    }
    thresholds
}

/// Known samples around the next one (Ra, Rb, Rc and Rd).
struct Neighbours {
    left: i32,
    above: i32,
    above_left: i32,
    above_right: i32,
}

impl Neighbours {
    /// T.87 A.4.1.
    fn predicted(&self) -> i32 {
        let (least, greatest) = (self.left.min(self.above), self.left.max(self.above));
        match self.above_left {
            corner if corner >= greatest => least,
            corner if corner <= least => greatest,
            corner => self.left + self.above - corner,
        }
    }
}

/// Two lines of one component. Each has a further sample at both ends (T.87 A.2.1).
struct Lines {
    above: Vec<i32>,
    current: Vec<i32>,
}

impl Lines {
    fn new(width: usize) -> Self {
        Self { above: vec![0; width + 2], current: vec![0; width + 2] }
    }

    /// Begins the next line.
    fn begin(&mut self) {
        std::mem::swap(&mut self.above, &mut self.current);
        if let [.., last, end] = self.above.as_mut_slice() {
            *end = *last;
        }
        if let (Some(start), Some(first)) = (self.current.first_mut(), self.above.get(1)) {
            *start = *first;
        }
    }

    fn around(&self, column: usize) -> Neighbours {
        let above = self.above.get(column..).and_then(<[i32]>::first_chunk::<3>);
        let [above_left, above, above_right] = above.copied().unwrap_or_default();
        Neighbours { left: self.current.get(column).copied().unwrap_or(0), above, above_left, above_right }
    }

    fn set(&mut self, column: usize, sample: i32) {
        if let Some(place) = self.current.get_mut(column + 1) {
            *place = sample;
        }
    }

    /// Repeats the sample before a column.
    fn repeat(&mut self, column: usize, count: usize) {
        let sample = self.current.get(column).copied().unwrap_or(0);
        self.current.get_mut(column + 1..column + 1 + count).unwrap_or_default().fill(sample);
    }
}

/// Statistics of the errors of a context (T.87 A.2.1, A.6).
#[derive(Clone)]
struct Statistics {
    /// Sum of the sizes of the errors (A).
    sizes: i64,
    /// Sum of the errors (B). In a context of runs: the number of negative ones (Nn).
    bias: i64,
    /// Correction of the prediction (C).
    correction: i32,
    /// Number of the errors (N).
    count: i64,
}

impl Statistics {
    /// Order of the code of the next error (k, T.87 A.5.1).
    fn order(&self, sizes: i64) -> u32 {
        (0..24).find(|order| self.count << order >= sizes).unwrap_or(24)
    }

    fn halve(&mut self, reset: i64) {
        if self.count >= reset {
            self.sizes >>= 1;
            self.bias >>= 1;
            self.count >>= 1;
        }
        self.count += 1;
    }

    /// T.87 A.6.1 and A.6.2.
    fn update(&mut self, error: i32, coding: &Coding) {
        self.bias += i64::from(error * coding.step);
        self.sizes += i64::from(error.abs());
        self.halve(coding.reset);
        if self.bias <= -self.count {
            self.bias = (self.bias + self.count).max(1 - self.count);
            self.correction = (self.correction - 1).max(-128);
        } else if self.bias > 0 {
            self.bias = (self.bias - self.count).min(0);
            self.correction = (self.correction + 1).min(127);
        }
    }
}

/// Bits of a scan. The byte behind 0xFF has seven (T.87 A.1).
struct Bits<'s> {
    bytes: std::slice::Iter<'s, u8>,
    value: u64,
    count: u32,
    is_after_ff: bool,
}

impl Bits<'_> {
    fn fill(&mut self) {
        while self.count <= 56
            && let Some(byte) = self.bytes.next()
        {
            let bits = if self.is_after_ff { 7 } else { 8 };
            self.value = self.value << bits | u64::from(*byte);
            self.count += bits;
            self.is_after_ff = *byte == 0xFF;
        }
    }

    /// Returns up to 24 bits.
    fn bits(&mut self, count: u32) -> Result<i32, CodecError> {
        if self.count < count {
            self.fill();
        }
        self.count = self.count.checked_sub(count).ok_or(CodecError::Damaged)?;
        i32::try_from(self.value >> self.count & ((1 << count) - 1)).map_err(|_| CodecError::Damaged)
    }

    /// Returns the number of zeros before the next one, which is passed.
    fn zeros(&mut self, most: u32) -> Result<u32, CodecError> {
        let mut zeros = 0;
        loop {
            if self.count == 0 {
                self.fill();
            }
            let left = self.count.checked_sub(1).ok_or(CodecError::Damaged)?;
            let here = (self.value << (63 - left)).leading_zeros().min(self.count);
            zeros += here;
            if zeros > most {
                return Err(CodecError::Damaged);
            }
            self.count -= here;
            if self.count > 0 {
                self.count -= 1;
                return Ok(zeros);
            }
        }
    }

    /// Returns a mapped error (T.87 A.5.3).
    fn golomb(&mut self, order: u32, limit: u32, error_bits: u32) -> Result<i32, CodecError> {
        let most = limit.checked_sub(error_bits + 1).ok_or(CodecError::Damaged)?;
        let zeros = self.zeros(most)?;
        if zeros < most {
            let high = i32::try_from(u64::from(zeros) << order).map_err(|_| CodecError::Damaged)?;
            Ok(high + self.bits(order)?)
        } else {
            Ok(self.bits(error_bits)? + 1)
        }
    }
}

/// A scan that is being decoded.
struct Scan<'s> {
    bits: Bits<'s>,
    coding: Coding,
    width: usize,
    regular: Vec<Statistics>,
    /// Contexts of samples that end a run: first those unlike the sample above, then those like it.
    ends_of_runs: [Statistics; 2],
}

impl<'s> Scan<'s> {
    fn new(data: &'s [u8], coding: Coding, width: usize) -> Self {
        let sizes = i64::from((coding.range + 32) / 64).max(2);
        let first = Statistics { sizes, bias: 0, correction: 0, count: 1 };
        Self {
            bits: Bits { bytes: data.iter(), value: 0, count: 0, is_after_ff: false },
            coding,
            width,
            regular: vec![first.clone(); CONTEXTS],
            ends_of_runs: [first.clone(), first],
        }
    }

    /// Decodes all lines into their places.
    fn decode(
        mut self,
        header: &ScanHeader,
        shape: &FrameShape,
        deadline: &Deadline,
        out: &mut [u8],
    ) -> Result<(), CodecError> {
        let (samples, bytes) = (shape.samples, shape.sample_bytes());
        let mut lines: Vec<Lines> = header.components.iter().map(|_| Lines::new(self.width)).collect();
        // Components of a pixel share a run, and lines of components do not.
        let together = if header.is_by_pixel { lines.len() } else { 1 };
        let mut run_indexes = vec![0; lines.len()];
        for row in out.chunks_exact_mut(self.width * samples * bytes) {
            deadline.check()?;
            for (group, run_index) in lines.chunks_mut(together).zip(&mut run_indexes) {
                self.line(group, run_index)?;
            }
            for (lines, component) in lines.iter().zip(&header.components) {
                let places = row.chunks_exact_mut(bytes).skip(*component).step_by(samples);
                for (place, sample) in places.zip(lines.current.iter().skip(1)) {
                    place.iter_mut().zip(sample.to_le_bytes()).for_each(|(place, byte)| *place = byte);
                }
            }
        }
        Ok(())
    }

    /// Decodes one line of components that share their runs.
    fn line(&mut self, group: &mut [Lines], run_index: &mut usize) -> Result<(), CodecError> {
        group.iter_mut().for_each(Lines::begin);
        let mut column = 0;
        while column < self.width {
            let mut contexts = [0; MAX_COMPONENTS];
            for (context, lines) in contexts.iter_mut().zip(&*group) {
                *context = self.coding.context(&lines.around(column));
            }
            if contexts == [0; MAX_COMPONENTS] {
                column = self.run(group, column, run_index)?;
                continue;
            }
            for (context, lines) in contexts.iter().zip(&mut *group) {
                let sample = self.regular(*context, &lines.around(column))?;
                lines.set(column, sample);
            }
            column += 1;
        }
        Ok(())
    }

    /// Decodes a sample in the regular mode (T.87 A.4 to A.6).
    fn regular(&mut self, context: i32, around: &Neighbours) -> Result<i32, CodecError> {
        let Self { bits, coding, regular, .. } = self;
        let sign = if context < 0 { -1 } else { 1 };
        let statistics = regular.get_mut(context.unsigned_abs() as usize).ok_or(CodecError::Damaged)?;
        let predicted = (around.predicted() + sign * statistics.correction).clamp(0, coding.greatest);
        let order = statistics.order(statistics.sizes);
        let mapped = bits.golomb(order, coding.limit, coding.error_bits)?;
        let is_turned = coding.near == 0 && order == 0 && 2 * statistics.bias <= -statistics.count;
        let error = match (mapped % 2, is_turned) {
            (0, false) => mapped / 2,
            (_, false) => -(mapped + 1) / 2,
            (0, true) => -(mapped / 2) - 1,
            (_, true) => mapped / 2,
        };
        if error.abs() > coding.range {
            return Err(CodecError::Damaged);
        }
        statistics.update(error, coding);
        Ok(coding.sample(predicted, sign * error))
    }

    /// Decodes a run and the sample that ends it (T.87 A.7). Returns the column behind them.
    fn run(&mut self, group: &mut [Lines], mut column: usize, run_index: &mut usize) -> Result<usize, CodecError> {
        let order = |index: usize| RUN_ORDERS.get(index).copied().unwrap_or(15);
        while self.bits.bits(1)? == 1 {
            let (whole, left) = (1_usize << order(*run_index), self.width - column);
            group.iter_mut().for_each(|lines| lines.repeat(column, whole.min(left)));
            column += whole.min(left);
            if whole <= left {
                *run_index = (*run_index + 1).min(RUN_ORDERS.len() - 1);
            }
            if column == self.width {
                return Ok(column);
            }
        }
        let order = order(*run_index);
        let rest = self.bits.bits(order)? as usize;
        if column + rest >= self.width {
            return Err(CodecError::Damaged);
        }
        group.iter_mut().for_each(|lines| lines.repeat(column, rest));
        column += rest;
        let is_alone = group.len() == 1;
        for lines in group {
            let Neighbours { left, above, .. } = lines.around(column);
            let is_like_above = is_alone && (left - above).abs() <= self.coding.near;
            let error = self.end_of_run(is_like_above, self.coding.limit - order - 1)?;
            let sign = if !is_like_above && left > above { -1 } else { 1 };
            let predicted = if is_like_above { left } else { above };
            lines.set(column, self.coding.sample(predicted, sign * error));
        }
        *run_index = run_index.saturating_sub(1);
        Ok(column + 1)
    }

    /// Decodes the error of a sample that ends a run (T.87 A.7.2).
    fn end_of_run(&mut self, is_like_above: bool, limit: u32) -> Result<i32, CodecError> {
        let Self { bits, coding, ends_of_runs: [unlike, like], .. } = self;
        let (statistics, kind) = if is_like_above { (like, 1) } else { (unlike, 0) };
        let order = statistics.order(statistics.sizes + i64::from(kind) * (statistics.count >> 1));
        let mapped = bits.golomb(order, limit, coding.error_bits)?;
        let (size, is_odd) = ((mapped + kind + 1) / 2, (mapped + kind) % 2 == 1);
        if size > coding.range {
            return Err(CodecError::Damaged);
        }
        let error = if (order != 0 || 2 * statistics.bias >= statistics.count) == is_odd { -size } else { size };
        statistics.bias += i64::from(error < 0);
        statistics.sizes += i64::from((mapped + 1 - kind) >> 1);
        statistics.halve(coding.reset);
        Ok(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: FrameShape = FrameShape { columns: 4, rows: 4, samples: 1, bits_allocated: 8, is_planar: false };

    /// The example of T.87 H.3.
    const EXAMPLE: [u8; 62] = [
        0xFF, 0xD8, 0xFF, 0xF7, 0, 11, 8, 0, 4, 0, 4, 1, 1, 0x11, 0, 0xFF, 0xDA, 0, 8, 1, 1, 0, 0, 0, 0, 0xC0, 0, 0,
        0x6C, 0x80, 0x20, 0x8E, 1, 0xC0, 0, 0, 0x57, 0x40, 0, 0, 0x6E, 0xE6, 0, 0, 1, 0xBC, 0x18, 0, 0, 5, 0xD8, 0, 0,
        0x91, 0x60, 0, 0, 0, 0, 0, 0xFF, 0xD9,
    ];

    fn decoded(stream: &[u8]) -> Result<Vec<u8>, CodecError> {
        decode(stream, &SHAPE, true, &Deadline::usual())
    }

    #[test]
    fn the_example_of_the_standard_is_decoded() {
        let samples = [0, 0, 90, 74, 68, 50, 43, 205, 64, 145, 145, 145, 100, 145, 145, 145];
        assert_eq!(decoded(&EXAMPLE).unwrap(), samples);
    }

    #[test]
    fn what_is_not_decoded_right_is_refused() {
        let with = |at: usize, byte: u8| {
            let mut stream = EXAMPLE;
            stream[at] = byte;
            decoded(&stream)
        };
        assert_eq!(with(6, 12), Err(CodecError::OtherImage), "deeper than the object states");
        assert_eq!(with(10, 5), Err(CodecError::OtherImage), "wider");
        assert_eq!(with(22, 1), Err(CodecError::OtherImage), "not lossless");
        assert!(matches!(with(21, 1), Err(CodecError::Unsupported(_))), "a mapping table");
        assert!(matches!(with(24, 1), Err(CodecError::Unsupported(_))), "a point transform");
        assert_eq!(with(20, 7), Err(CodecError::Damaged), "another component");
        assert_eq!(decoded(&EXAMPLE[..40]), Err(CodecError::Damaged), "half a scan");
        assert_eq!(decode(&EXAMPLE, &SHAPE, true, &Deadline::over()), Err(CodecError::TooLong));
    }

    #[test]
    fn thresholds_are_those_of_the_standard() {
        assert_eq!(default_thresholds(255, 0), [3, 7, 21]);
        assert_eq!(default_thresholds(4095, 0), [18, 67, 276]);
        assert_eq!(default_thresholds(65_535, 2), [24, 77, 290]);
        assert_eq!(default_thresholds(15, 0), [2, 3, 4]);
    }
}
