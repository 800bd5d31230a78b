//! Reads tar archives: v7, ustar, GNU long names and numbers, pax.

use std::io::Read;

use super::limits::{MAX_EXTENDED_HEADER, MAX_NAME};
use super::problem::ArchiveProblem;
use super::range::{SkipRead, fill};

/// Headers and data begin at multiples of this size.
pub(crate) const BLOCK: usize = 512;

/// A member.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TarEntry {
    pub(crate) name: Vec<u8>,
    /// Bytes of data that follow the header.
    pub(crate) size: u64,
    pub(crate) kind: EntryKind,
}

/// The type of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EntryKind {
    File,
    Directory,
    Link,
    /// A device or a FIFO.
    Special,
    /// A file whose holes are left out.
    Sparse,
    /// The rest of a file that began in another volume.
    Continued,
}

impl TarEntry {
    /// Bytes from the start of the data to the next header.
    pub(crate) fn padded(&self) -> u64 {
        self.size.div_ceil(BLOCK as u64).saturating_mul(BLOCK as u64)
    }
}

/// Whether a tar archive begins with these bytes: a header with a correct checksum.
pub(crate) fn is_header(bytes: &[u8]) -> bool {
    bytes.first_chunk::<BLOCK>().is_some_and(|block| block[0] != 0 && checksum_holds(block))
}

/// Reads the next header. `None` at the end of the archive. The caller must have skipped the data
/// of the member before.
pub(crate) fn next(source: &mut (dyn SkipRead + '_)) -> Result<Option<TarEntry>, ArchiveProblem> {
    let mut long_name = None;
    let mut pax = Pax::default();
    loop {
        let mut block = [0; BLOCK];
        match fill(source, &mut block)? {
            // Some writers leave out the blocks of zeros at the end.
            0 if long_name.is_none() => return Ok(None),
            BLOCK => {}
            _ => return Err(ArchiveProblem::Truncated),
        }
        if block.iter().all(|&byte| byte == 0) {
            return Ok(None);
        }
        if !checksum_holds(&block) {
            return Err(ArchiveProblem::Damaged("no tar header where one should be"));
        }
        let size = number(&block[124..136]).ok_or(ArchiveProblem::Damaged("a size that is no number"))?;
        match block[156] {
            b'L' => long_name = Some(extended(source, size)?),
            b'x' => pax = Pax::parse(&extended(source, size)?)?,
            // A global pax header has no name or size for one member. The target of a link is not
            // needed.
            b'g' | b'K' => {
                extended(source, size)?;
            }
            // The label of the volume.
            b'V' => {}
            kind => {
                let mut entry = TarEntry { name: header_name(&block), size, kind: entry_kind(kind) };
                if let Some(mut name) = long_name {
                    name.truncate(name.iter().position(|&byte| byte == 0).unwrap_or(name.len()));
                    entry.name = name;
                }
                if let Some(path) = pax.path {
                    entry.name = path;
                }
                if let Some(size) = pax.size {
                    entry.size = size;
                }
                match entry.kind {
                    EntryKind::File if pax.sparse => entry.kind = EntryKind::Sparse,
                    // v7 marks a directory only by the slash.
                    EntryKind::File if entry.name.ends_with(b"/") => entry.kind = EntryKind::Directory,
                    // A directory of a GNU incremental backup has the list of its entries as data.
                    EntryKind::Directory if kind == b'D' => {}
                    // These have no data, whatever size the header states.
                    EntryKind::Directory | EntryKind::Link | EntryKind::Special => entry.size = 0,
                    EntryKind::File | EntryKind::Sparse | EntryKind::Continued => {}
                }
                if kind == b'S' {
                    pass_sparse_headers(source, block[482])?;
                }
                return Ok(Some(entry));
            }
        }
    }
}

fn entry_kind(flag: u8) -> EntryKind {
    match flag {
        b'1' | b'2' => EntryKind::Link,
        b'3' | b'4' | b'6' => EntryKind::Special,
        b'5' | b'D' => EntryKind::Directory,
        b'S' => EntryKind::Sparse,
        b'M' => EntryKind::Continued,
        // POSIX: an unknown type is treated as a file.
        _ => EntryKind::File,
    }
}

/// GNU: skips the blocks that list the holes. Each says whether another follows.
fn pass_sparse_headers(source: &mut (dyn SkipRead + '_), mut extended: u8) -> Result<(), ArchiveProblem> {
    const MAX_BLOCKS: u64 = MAX_EXTENDED_HEADER / BLOCK as u64;
    for _ in 0..MAX_BLOCKS {
        if extended == 0 {
            return Ok(());
        }
        let mut block = [0; BLOCK];
        if fill(source, &mut block)? < BLOCK {
            return Err(ArchiveProblem::Truncated);
        }
        extended = block[504];
    }
    Err(ArchiveProblem::Damaged("an extended header that is too long"))
}

/// The name, with the prefix before it.
fn header_name(block: &[u8; BLOCK]) -> Vec<u8> {
    let text = |field: &[u8]| field.split(|&byte| byte == 0).next().unwrap_or_default().to_vec();
    let name = text(&block[..100]);
    let prefix = text(&block[345..500]);
    // GNU uses the field of the ustar prefix for other data.
    if &block[257..263] != b"ustar\0" || prefix.is_empty() {
        return name;
    }
    [prefix, name].join(&b'/')
}

/// Reads the data of an extended header.
fn extended(source: &mut (dyn SkipRead + '_), size: u64) -> Result<Vec<u8>, ArchiveProblem> {
    if size > MAX_EXTENDED_HEADER {
        return Err(ArchiveProblem::Damaged("an extended header that is too long"));
    }
    let mut data = Vec::new();
    source.take(size).read_to_end(&mut data)?;
    let padding = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
    if (data.len() as u64) < size || source.skip(padding)? < padding {
        return Err(ArchiveProblem::Truncated);
    }
    Ok(data)
}

/// The pax records (POSIX.1-2001) that this reader uses.
#[derive(Default)]
struct Pax {
    path: Option<Vec<u8>>,
    size: Option<u64>,
    sparse: bool,
}

impl Pax {
    /// Parses records `length key=value\n`. The length counts the whole record.
    fn parse(mut records: &[u8]) -> Result<Self, ArchiveProblem> {
        const DAMAGED: ArchiveProblem = ArchiveProblem::Damaged("a pax record that is none");
        let mut pax = Self::default();
        while !records.is_empty() && records[0] != 0 {
            let space = records.iter().take(8).position(|&byte| byte == b' ').ok_or(DAMAGED)?;
            let (digits, _) = records.split_at(space);
            let length = decimal(digits).and_then(|length| usize::try_from(length).ok()).ok_or(DAMAGED)?;
            let record = records.get(space + 1..length).ok_or(DAMAGED)?;
            let record = record.strip_suffix(b"\n").ok_or(DAMAGED)?;
            records = records.get(length..).unwrap_or_default();
            let equals = record.iter().position(|&byte| byte == b'=').ok_or(DAMAGED)?;
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            match key {
                b"path" if value.len() <= 4 * MAX_NAME => pax.path = Some(value.to_vec()),
                b"size" => pax.size = Some(decimal(value).ok_or(DAMAGED)?),
                _ => pax.sparse |= key.starts_with(b"GNU.sparse."),
            }
        }
        Ok(pax)
    }
}

fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Parses a number: octal digits, or GNU binary if the first bit is set.
fn number(field: &[u8]) -> Option<u64> {
    if let Some((0x80, rest)) = field.split_first() {
        let (high, low) = rest.split_at_checked(rest.len().checked_sub(8)?)?;
        let low = low.first_chunk::<8>()?;
        return high.iter().all(|&byte| byte == 0).then(|| u64::from_be_bytes(*low));
    }
    let digits = field.iter().copied().skip_while(|byte| *byte == b' ').take_while(|byte| !matches!(byte, 0 | b' '));
    digits.into_iter().try_fold(0_u64, |number, digit| match digit {
        b'0'..=b'7' => Some(number.checked_mul(8)? + u64::from(digit - b'0')),
        _ => None,
    })
}

/// Whether the header checksum is correct. It is the sum of all bytes, with spaces in place of the
/// checksum itself. Some old writers added signed bytes.
fn checksum_holds(block: &[u8; BLOCK]) -> bool {
    let Some(expected) = number(&block[148..156]) else { return false };
    let rest = || block[..148].iter().chain(&block[156..]);
    let unsigned = rest().map(|&byte| i64::from(byte)).sum::<i64>() + 8 * 32;
    let signed = rest().map(|&byte| i64::from(byte.cast_signed())).sum::<i64>() + 8 * 32;
    i64::try_from(expected).is_ok_and(|expected| expected == unsigned || expected == signed)
}
