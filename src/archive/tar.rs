//! Tar archives: v7, ustar, GNU long names and numbers, pax.

use crate::archive::source::fill;
use std::io::Read;

use super::limits::{MAX_EXTENDED_HEADER, MAX_NAME};
use super::problem::Problem;
use super::source::SkipRead;

/// Headers and data stand in blocks of this size.
pub(crate) const BLOCK: usize = 512;

/// A member.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) name: Vec<u8>,
    /// Bytes of data that follow.
    pub(crate) size: u64,
    pub(crate) kind: EntryKind,
}

/// What a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EntryKind {
    File,
    Directory,
    Link,
    /// A device or a FIFO.
    Special,
    /// A file with holes that are left out.
    Sparse,
    /// The rest of a file that began in another volume.
    Continued,
}

impl Entry {
    /// Bytes from the start of the data to the next header.
    pub(crate) fn padded(&self) -> u64 {
        self.size.div_ceil(BLOCK as u64).saturating_mul(BLOCK as u64)
    }
}

/// Whether these are the first bytes of a tar archive: a header whose checksum holds.
pub(crate) fn is_header(bytes: &[u8]) -> bool {
    bytes.first_chunk::<BLOCK>().is_some_and(|block| block[0] != 0 && checksum_holds(block))
}

/// The next member; `None` at the end of the archive. What precedes it (the data of the member before) has to be passed over
/// by the caller.
pub(crate) fn next(source: &mut (dyn SkipRead + '_)) -> Result<Option<Entry>, Problem> {
    let mut long_name = None;
    let mut pax = Pax::default();
    loop {
        let mut block = [0; BLOCK];
        match fill(source, &mut block)? {
            // Some writers leave out the blocks of zeros at the end.
            0 if long_name.is_none() => return Ok(None),
            BLOCK => {}
            _ => return Err(Problem::Truncated),
        }
        if block.iter().all(|&byte| byte == 0) {
            return Ok(None);
        }
        if !checksum_holds(&block) {
            return Err(Problem::Damaged("no tar header where one should be"));
        }
        let size = number(&block[124..136]).ok_or(Problem::Damaged("a size that is no number"))?;
        match block[156] {
            b'L' => long_name = Some(extended(source, size)?),
            b'x' => pax = Pax::parse(&extended(source, size)?)?,
            // What holds for all members is no name and no size; the target of a link does not matter.
            b'g' | b'K' => {
                extended(source, size)?;
            }
            // The label of the volume.
            b'V' => {}
            kind => {
                let mut entry = Entry { name: header_name(&block), size, kind: entry_kind(kind) };
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
                    // v7 marks a directory by the slash alone.
                    EntryKind::File if entry.name.ends_with(b"/") => entry.kind = EntryKind::Directory,
                    // They have no data, whatever size they were given.
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
        // POSIX: what is not known is taken for a file.
        _ => EntryKind::File,
    }
}

/// GNU: where the holes are, as long as the header (and each block after it) says that more follows.
fn pass_sparse_headers(source: &mut (dyn SkipRead + '_), mut extended: u8) -> Result<(), Problem> {
    const MAX_BLOCKS: u64 = MAX_EXTENDED_HEADER / BLOCK as u64;
    for _ in 0..MAX_BLOCKS {
        if extended == 0 {
            return Ok(());
        }
        let mut block = [0; BLOCK];
        if fill(source, &mut block)? < BLOCK {
            return Err(Problem::Truncated);
        }
        extended = block[504];
    }
    Err(Problem::Damaged("an extended header that is too long"))
}

/// Name and prefix.
fn header_name(block: &[u8; BLOCK]) -> Vec<u8> {
    let text = |field: &[u8]| field.split(|&byte| byte == 0).next().unwrap_or_default().to_vec();
    let name = text(&block[..100]);
    let prefix = text(&block[345..500]);
    // GNU has other things where ustar has the prefix.
    if &block[257..263] != b"ustar\0" || prefix.is_empty() {
        return name;
    }
    [prefix, name].join(&b'/')
}

/// The data of a header that says more than fits into one block.
fn extended(source: &mut (dyn SkipRead + '_), size: u64) -> Result<Vec<u8>, Problem> {
    if size > MAX_EXTENDED_HEADER {
        return Err(Problem::Damaged("an extended header that is too long"));
    }
    let mut data = Vec::new();
    source.take(size).read_to_end(&mut data)?;
    let padding = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
    if (data.len() as u64) < size || source.pass(padding)? < padding {
        return Err(Problem::Truncated);
    }
    Ok(data)
}

/// The pax records (POSIX.1-2001) that matter here.
#[derive(Default)]
struct Pax {
    path: Option<Vec<u8>>,
    size: Option<u64>,
    sparse: bool,
}

impl Pax {
    /// Records `length key=value\n`, where the length counts all of the record.
    fn parse(mut records: &[u8]) -> Result<Self, Problem> {
        const DAMAGED: Problem = Problem::Damaged("a pax record that is none");
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

/// A number: octal digits, or (GNU) binary after a first bit that is set.
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

/// The sum of all bytes, those of the sum itself taken for spaces; some old writers took the bytes for signed ones.
fn checksum_holds(block: &[u8; BLOCK]) -> bool {
    let Some(expected) = number(&block[148..156]) else { return false };
    let rest = || block[..148].iter().chain(&block[156..]);
    let unsigned = rest().map(|&byte| i64::from(byte)).sum::<i64>() + 8 * 32;
    let signed = rest().map(|&byte| i64::from(byte.cast_signed())).sum::<i64>() + 8 * 32;
    i64::try_from(expected).is_ok_and(|expected| expected == unsigned || expected == signed)
}
