//! Pixel transforms of an object: Modality LUT, VOI LUT, windows and palette. See PS3.3 C.7.6.3,
//! C.11.1, C.11.2 and the functional groups of C.7.6.16.

use crate::encoding::padding::without_padding;
use crate::encoding::tag::PIXEL_REPRESENTATION;
use crate::encoding::walk::{Event, Input, Walk, WalkError};

/// Maximum length of decimal values: some windows of 16 characters.
const MAX_DECIMALS: u32 = 4 << 10;

/// Maximum number of entries of a look-up table. A descriptor has 16 bits, and 0 stands for this
/// number.
const MAX_ENTRIES: usize = 1 << 16;

/// Maximum number of frames with greys of their own. Those of later frames are not read.
const MAX_FRAMES_WITH_GREYS: u32 = 100_000;

/// Pixel transforms of an object: how to show its pixels.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PixelTransforms {
    /// Photometric Interpretation (0028,0004).
    pub photometric: String,
    /// Bits Stored (0028,0101).
    pub bits_stored: u16,
    /// High Bit (0028,0102).
    pub high_bit: u16,
    /// Whether Pixel Representation (0028,0103) is 1.
    pub is_signed: bool,
    /// Pixel Padding Value (0028,0120), as stored.
    pub padding: Option<u16>,
    /// Modality LUT Sequence (0028,3000).
    pub modality_lut: Option<Lut>,
    /// First item of VOI LUT Sequence (0028,3010).
    pub voi_lut: Option<Lut>,
    /// Red, green and blue Palette Color Lookup Tables (0028,1201) to (0028,1203).
    pub palette: Option<Box<[Lut; 3]>>,
    /// Greys of all frames without greys of their own.
    pub greys: Greys,
    /// Greys of single frames. Empty if all frames have the same.
    pub greys_of_frames: Vec<Greys>,
}

/// Mapping from stored values to greys.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Greys {
    /// Rescale Slope (0028,1053).
    pub slope: f64,
    /// Rescale Intercept (0028,1052).
    pub intercept: f64,
    /// The first window.
    pub window: Option<VoiWindow>,
}

/// A window over values (PS3.3 C.11.2.1.2).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct VoiWindow {
    /// Window Center (0028,1050).
    pub centre: f64,
    /// Window Width (0028,1051), more than 0.
    pub width: f64,
    /// VOI LUT Function (0028,1056).
    pub function: Function,
}

/// VOI LUT Function (0028,1056).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Function {
    /// PS3.3 C.11.2.1.2.1.
    #[default]
    Linear,
    /// PS3.3 C.11.2.1.3.2.
    LinearExact,
    /// PS3.3 C.11.2.1.3.1.
    Sigmoid,
}

impl VoiWindow {
    /// Returns a window. `None` if its width is not allowed.
    #[must_use]
    pub fn new(centre: f64, width: f64, function: Function) -> Option<Self> {
        let is_allowed = centre.is_finite() && width.is_finite() && width > 0.0;
        let is_wide = function != Function::Linear || width >= 1.0;
        (is_allowed && is_wide).then_some(Self { centre, width, function })
    }
}

impl Default for Greys {
    fn default() -> Self {
        Self { slope: 1.0, intercept: 0.0, window: None }
    }
}

impl PixelTransforms {
    /// Returns the greys of a frame, counted from 1.
    #[must_use]
    pub fn of_frame(&self, number: u32) -> Greys {
        let own = usize::try_from(number).ok().and_then(|number| self.greys_of_frames.get(number.checked_sub(1)?));
        own.copied().unwrap_or(self.greys)
    }

    /// Returns the memory that it takes besides the struct itself, in bytes.
    pub(crate) fn cost(&self) -> usize {
        let luts = self.modality_lut.iter().chain(&self.voi_lut).chain(self.palette.iter().flat_map(|all| all.iter()));
        luts.map(|lut| lut.entries.len() * size_of::<u16>()).sum::<usize>()
            + self.greys_of_frames.len() * size_of::<Greys>()
    }
}

/// A look-up table (PS3.3 C.11.1.1, C.11.2.1.1, C.7.6.3.1.5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lut {
    first: i32,
    bits: u16,
    entries: Vec<u16>,
}

impl Lut {
    /// Returns a table of a descriptor and its data. `None` if they make no table.
    ///
    /// Data of 8 bits are in bytes or in words. The length of the data shows which.
    #[must_use]
    pub fn new(descriptor: [u16; 3], is_signed: bool, data: &[u8]) -> Option<Self> {
        let words = words(data);
        let is_in_words = words.len() >= entry_count(descriptor);
        let entries = if is_in_words { words } else { data.iter().copied().map(u16::from).collect() };
        Self::of_entries(descriptor, is_signed, entries)
    }

    fn of_entries(descriptor: [u16; 3], is_signed: bool, mut entries: Vec<u16>) -> Option<Self> {
        let [_, first, bits] = descriptor;
        let first = if is_signed { i32::from(first.cast_signed()) } else { i32::from(first) };
        entries.truncate(entry_count(descriptor));
        // If there are fewer entries than the descriptor has, the last one serves for the rest.
        (!entries.is_empty() && (8..=16).contains(&bits)).then_some(Self { first, bits, entries })
    }

    /// Returns the entry of a value. Values outside of the table have the first or the last entry.
    #[must_use]
    pub fn at(&self, value: f64) -> u16 {
        let index = (value - f64::from(self.first)).clamp(0.0, (self.entries.len() - 1) as f64);
        self.entries.get(index as usize).copied().unwrap_or(0)
    }

    /// Returns the greatest entry that the table can have.
    #[must_use]
    pub fn greatest(&self) -> u16 {
        u16::try_from((1_u32 << self.bits) - 1).unwrap_or(u16::MAX)
    }

    /// Returns the table with entries of 8 bits. Some writers state 16 bits and use only the lower
    /// 8.
    pub(crate) fn in_bytes(mut self) -> Self {
        if self.bits > 8 && self.entries.iter().any(|entry| *entry > 0xFF) {
            let shift = self.bits - 8;
            self.entries.iter_mut().for_each(|entry| *entry = (*entry >> shift).min(0xFF));
        }
        self.bits = 8;
        self
    }
}

/// Returns the number of entries that a descriptor states.
fn entry_count([count, _, _]: [u16; 3]) -> usize {
    if count == 0 { MAX_ENTRIES } else { usize::from(count) }
}

/// Expands a Segmented Palette Color Lookup Table (PS3.3 C.7.9.2) of 16-bit words to its entries.
/// `None` if it is damaged.
fn expanded(data: &[u8]) -> Option<Vec<u16>> {
    let words = words(data);
    let mut out: Vec<u16> = Vec::new();
    let mut at = 0;
    while at < words.len() {
        at = segment(&words, at, &mut out, true)?;
        if out.len() > MAX_ENTRIES {
            return None;
        }
    }
    Some(out)
}

/// Expands the segment at `at`. Returns the position after it.
fn segment(words: &[u16], at: usize, out: &mut Vec<u16>, may_refer: bool) -> Option<usize> {
    let count = usize::from(*words.get(at + 1)?);
    match *words.get(at)? {
        0 => {
            let end = at + 2 + count;
            out.extend_from_slice(words.get(at + 2..end)?);
            Some(end)
        }
        1 => {
            // The product of a difference and a step does not fit into 32 bits.
            let (from, to) = (i64::from(*out.last()?), i64::from(*words.get(at + 2)?));
            let steps = i64::try_from(count).ok()?;
            out.extend((1..=steps).map(|step| (from + (to - from) * step / steps) as u16));
            Some(at + 3)
        }
        // A segment that repeats others. Repeated segments repeat none themselves (C.7.9.2.3).
        2 if may_refer => {
            let (low, high) = (usize::from(*words.get(at + 2)?), usize::from(*words.get(at + 3)?));
            let mut source = (low | high << 16) / 2;
            for _ in 0..count {
                source = segment(words, source, out, false)?;
                if out.len() > MAX_ENTRIES {
                    return None;
                }
            }
            Some(at + 4)
        }
        _ => None,
    }
}

/// The sequence of a value, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ValueContext {
    Root,
    ModalityLut,
    VoiLut,
    /// In the functional groups of all frames.
    AllFrames,
    /// In the functional groups of one frame, counted from 1.
    OneFrame(u32),
    Elsewhere,
}

/// Descriptor and data of a table that is being read.
#[derive(Default)]
struct LutParts {
    descriptor: Option<[u16; 3]>,
    data: Vec<u8>,
    is_segmented: bool,
}

impl LutParts {
    fn lut(self, is_signed: bool) -> Option<Lut> {
        match self.is_segmented {
            true => Lut::of_entries(self.descriptor?, is_signed, expanded(&self.data)?),
            false => Lut::new(self.descriptor?, is_signed, &self.data),
        }
    }
}

/// Numbers for greys that are being read.
#[derive(Clone, Copy, Default)]
struct GreyParts {
    slope: Option<f64>,
    intercept: Option<f64>,
    centre: Option<f64>,
    width: Option<f64>,
    function: Option<Function>,
}

impl GreyParts {
    fn greys(self, others: Greys) -> Greys {
        let window = self.centre.zip(self.width);
        let window =
            window.and_then(|(centre, width)| VoiWindow::new(centre, width, self.function.unwrap_or_default()));
        Greys {
            slope: self.slope.unwrap_or(others.slope),
            intercept: self.intercept.unwrap_or(others.intercept),
            window: window.or(others.window),
        }
    }
}

/// Gathers transforms during a walk over an object.
#[derive(Default)]
pub(crate) struct TransformReader {
    /// Open sequences, and the number of the item in each.
    path: Vec<(u32, u32)>,
    transforms: PixelTransforms,
    modality_lut: LutParts,
    voi_lut: LutParts,
    palette: [LutParts; 3],
    root: GreyParts,
    all_frames: GreyParts,
    frames: Vec<GreyParts>,
}

impl TransformReader {
    /// Takes an event of the walk. It reads the value of the event if it says something of
    /// transforms.
    pub(crate) fn take<R: Input>(&mut self, event: &Event, walk: &mut Walk<R>) -> Result<(), WalkError> {
        match *event {
            Event::Sequence { tag } => self.path.push((tag, 0)),
            Event::SequenceEnd => drop(self.path.pop()),
            Event::Item => {
                if let Some((_, item)) = self.path.last_mut() {
                    *item += 1;
                }
            }
            Event::Value { tag, length, .. } => return self.value(tag, length, walk),
            Event::ItemEnd | Event::Fragments { .. } | Event::End => {}
        }
        Ok(())
    }

    fn context(&self) -> ValueContext {
        const MODALITY_LUT: u32 = 0x0028_3000;
        const VOI_LUT: u32 = 0x0028_3010;
        // Frame VOI LUT Sequence, Pixel Value Transformation Sequence.
        const GROUPS: [u32; 2] = [0x0028_9132, 0x0028_9145];
        const SHARED: u32 = 0x5200_9229;
        const PER_FRAME: u32 = 0x5200_9230;
        match *self.path.as_slice() {
            [] => ValueContext::Root,
            [(MODALITY_LUT, 1)] => ValueContext::ModalityLut,
            [(VOI_LUT, 1)] => ValueContext::VoiLut,
            [(SHARED, 1), (group, 1)] if GROUPS.contains(&group) => ValueContext::AllFrames,
            [(PER_FRAME, frame), (group, 1)] if GROUPS.contains(&group) => ValueContext::OneFrame(frame),
            _ => ValueContext::Elsewhere,
        }
    }

    fn value<R: Input>(&mut self, tag: u32, length: u32, walk: &mut Walk<R>) -> Result<(), WalkError> {
        let context = self.context();
        match context {
            ValueContext::Root => self.of_root(tag, length, walk),
            ValueContext::ModalityLut | ValueContext::VoiLut => {
                let lut = if context == ValueContext::ModalityLut { &mut self.modality_lut } else { &mut self.voi_lut };
                match tag {
                    0x0028_3002 => lut.descriptor = descriptor(walk, tag, length)?,
                    0x0028_3006 => lut.data = table(walk, tag, length)?,
                    _ => {}
                }
                Ok(())
            }
            ValueContext::AllFrames => grey_part(&mut self.all_frames, tag, length, walk),
            ValueContext::OneFrame(frame) if frame <= MAX_FRAMES_WITH_GREYS && is_grey_part(tag) => {
                if self.frames.len() < frame as usize {
                    self.frames.resize_with(frame as usize, GreyParts::default);
                }
                let Some(parts) = self.frames.get_mut(frame as usize - 1) else { return Ok(()) };
                grey_part(parts, tag, length, walk)
            }
            ValueContext::OneFrame(_) | ValueContext::Elsewhere => Ok(()),
        }
    }

    fn of_root<R: Input>(&mut self, tag: u32, length: u32, walk: &mut Walk<R>) -> Result<(), WalkError> {
        let transforms = &mut self.transforms;
        match tag {
            0x0028_0004 => transforms.photometric = first_text(&walk.value(tag, 64)?),
            0x0028_0101 => transforms.bits_stored = number(&walk.value(tag, 64)?).unwrap_or(0),
            0x0028_0102 => transforms.high_bit = number(&walk.value(tag, 64)?).unwrap_or(0),
            PIXEL_REPRESENTATION => transforms.is_signed = number(&walk.value(tag, 64)?) == Some(1),
            0x0028_0120 => transforms.padding = number(&walk.value(tag, 64)?),
            0x0028_1101..=0x0028_1103 => {
                if let Some(parts) = self.palette.get_mut((tag - 0x0028_1101) as usize) {
                    parts.descriptor = descriptor(walk, tag, length)?;
                }
            }
            0x0028_1201..=0x0028_1203 | 0x0028_1221..=0x0028_1223 => {
                if let Some(parts) = self.palette.get_mut((tag & 3) as usize - 1) {
                    parts.data = table(walk, tag, length)?;
                    parts.is_segmented = tag >= 0x0028_1221;
                }
            }
            _ => return grey_part(&mut self.root, tag, length, walk),
        }
        Ok(())
    }

    /// Returns the transforms of the object after the walk has come to its pixels.
    pub(crate) fn finish(self) -> PixelTransforms {
        let mut transforms = self.transforms;
        let is_signed = transforms.is_signed;
        transforms.greys = self.all_frames.greys(self.root.greys(Greys::default()));
        transforms.greys_of_frames = self.frames.into_iter().map(|frame| frame.greys(transforms.greys)).collect();
        transforms.modality_lut = self.modality_lut.lut(is_signed);
        // The input is signed if the values after the Modality LUT can be (PS3.3 C.11.2.1.1).
        let is_signed_input = is_signed && transforms.modality_lut.is_none() || transforms.greys.intercept < 0.0;
        transforms.voi_lut = self.voi_lut.lut(is_signed_input);
        let [red, green, blue] = self.palette.map(|parts| parts.lut(is_signed).map(Lut::in_bytes));
        transforms.palette = red.zip(green).zip(blue).map(|((red, green), blue)| Box::new([red, green, blue]));
        transforms
    }
}

fn is_grey_part(tag: u32) -> bool {
    matches!(tag, 0x0028_1050..=0x0028_1053 | 0x0028_1056)
}

fn grey_part<R: Input>(parts: &mut GreyParts, tag: u32, length: u32, walk: &mut Walk<R>) -> Result<(), WalkError> {
    if !is_grey_part(tag) || length > MAX_DECIMALS {
        return Ok(());
    }
    let value = walk.value(tag, u64::from(MAX_DECIMALS))?;
    match tag {
        0x0028_1050 => parts.centre = decimal(&value),
        0x0028_1051 => parts.width = decimal(&value),
        0x0028_1052 => parts.intercept = decimal(&value),
        0x0028_1053 => parts.slope = decimal(&value),
        _ => {
            parts.function = match first_text(&value).as_str() {
                "LINEAR_EXACT" => Some(Function::LinearExact),
                "SIGMOID" => Some(Function::Sigmoid),
                _ => None,
            }
        }
    }
    Ok(())
}

fn descriptor<R: Input>(walk: &mut Walk<R>, tag: u32, length: u32) -> Result<Option<[u16; 3]>, WalkError> {
    if length != 6 {
        return Ok(None);
    }
    let value = walk.value(tag, 6)?;
    Ok(words(&value).try_into().ok())
}

fn table<R: Input>(walk: &mut Walk<R>, tag: u32, length: u32) -> Result<Vec<u8>, WalkError> {
    const MAX_BYTES: u32 = 2 * MAX_ENTRIES as u32;
    if length > MAX_BYTES { Ok(Vec::new()) } else { walk.value(tag, u64::from(MAX_BYTES)) }
}

/// Returns the first value of a text.
pub(crate) fn first_text(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    without_padding(text.split('\\').next().unwrap_or_default()).to_owned()
}

/// Returns the first of several decimal numbers.
fn decimal(bytes: &[u8]) -> Option<f64> {
    first_text(bytes).parse().ok().filter(|number: &f64| number.is_finite())
}

/// Returns all unsigned numbers of 16 bits.
fn words(bytes: &[u8]) -> Vec<u16> {
    bytes.as_chunks::<2>().0.iter().map(|bytes| u16::from_le_bytes(*bytes)).collect()
}

/// Returns an unsigned number of 16 bits.
pub(crate) fn number(bytes: &[u8]) -> Option<u16> {
    bytes.first_chunk().map(|bytes| u16::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data_of(values: &[u16]) -> Vec<u8> {
        values.iter().copied().flat_map(u16::to_le_bytes).collect()
    }

    #[test]
    fn a_table_maps_values_from_its_first_one_on() {
        let lut = Lut::new([3, 10, 12], false, &data_of(&[100, 200, 4095])).unwrap();
        assert_eq!([9.0, 10.0, 11.0, 12.0, 99.0].map(|value| lut.at(value)), [100, 100, 200, 4095, 4095]);
        assert_eq!(lut.greatest(), 4095);
        let signed = Lut::new([2, 0xFFFF, 8], true, &[7, 9]).unwrap();
        assert_eq!([-1.0, 0.0].map(|value| signed.at(value)), [7, 9]);
        assert_eq!(Lut::new([2, 0, 8], false, &[]), None);
        assert_eq!(Lut::new([2, 0, 40], false, &[1, 2, 3, 4]), None);
    }

    #[test]
    fn palettes_of_16_bits_are_brought_to_8() {
        let high = Lut::new([2, 0, 16], false, &data_of(&[0x1234, 0xFFFF])).unwrap().in_bytes();
        assert_eq!([0.0, 1.0].map(|value| high.at(value)), [0x12, 0xFF]);
        let low = Lut::new([2, 0, 16], false, &data_of(&[0x12, 0xFF])).unwrap().in_bytes();
        assert_eq!([0.0, 1.0].map(|value| low.at(value)), [0x12, 0xFF]);
    }

    // PS3.3 C.7.9.2.
    #[test]
    fn segmented_tables_are_expanded() {
        let data = data_of(&[0, 2, 10, 20, 1, 2, 40, 2, 1, 0, 0]);
        assert_eq!(expanded(&data).unwrap(), [10, 20, 30, 40, 10, 20]);
        assert_eq!(expanded(&data_of(&[1, 2, 40])), None, "no value before a linear segment");
        assert_eq!(expanded(&data_of(&[0, 9, 1])), None);
        assert_eq!(expanded(&data_of(&[0, 1, 1, 2, 0xFFFF, 6, 0])), None, "a reference to a reference");
    }
}
