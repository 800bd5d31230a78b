//! Builds archives byte by byte, both intact and hostile ones.

use std::io::Write as _;

use flate2::write::{DeflateEncoder, GzEncoder};
use flate2::{Compression, Crc};

/// How a member of a [`Zip`] is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    Stored,
    Deflated,
    /// Deflated. Sizes and checksum follow the data, as in the output of streaming writers.
    Streamed,
    /// Stored. All numbers are in zip64 fields.
    Zip64,
}

/// A member's entry in the central directory.
#[derive(Clone, Debug)]
pub(crate) struct Central {
    pub(crate) name: Vec<u8>,
    pub(crate) flags: u16,
    pub(crate) method: u16,
    pub(crate) checksum: u32,
    pub(crate) compressed: u64,
    pub(crate) size: u64,
    pub(crate) local: u64,
    zip64: bool,
}

/// End of a [`Zip`], if it is not as short as possible.
#[derive(Clone, Debug, Default)]
pub(crate) struct End {
    /// Adds a zip64 end, although all numbers fit the ordinary one.
    pub(crate) zip64: bool,
    /// Number of bytes that extend the zip64 end.
    pub(crate) extended: usize,
    /// Number of bytes between directory and end.
    pub(crate) gap: usize,
    pub(crate) comment: Vec<u8>,
}

/// A zip archive under construction.
#[derive(Clone, Debug, Default)]
pub(crate) struct Zip {
    pub(crate) bytes: Vec<u8>,
    pub(crate) central: Vec<Central>,
}

impl Zip {
    pub(crate) fn with(mut self, name: &str, data: &[u8], keep: Keep) -> Self {
        self.add(name.as_bytes(), data, keep);
        self
    }

    pub(crate) fn add(&mut self, name: &[u8], data: &[u8], keep: Keep) {
        let mut crc = Crc::new();
        crc.update(data);
        let packed = match keep {
            Keep::Stored | Keep::Zip64 => data.to_vec(),
            Keep::Deflated | Keep::Streamed => {
                let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
                encoder.write_all(data).unwrap();
                encoder.finish().unwrap()
            }
        };
        let streamed = keep == Keep::Streamed;
        let entry = Central {
            name: name.to_vec(),
            flags: if streamed { 8 } else { 0 },
            method: if matches!(keep, Keep::Stored | Keep::Zip64) { 0 } else { 8 },
            checksum: crc.sum(),
            compressed: packed.len() as u64,
            size: data.len() as u64,
            local: self.bytes.len() as u64,
            zip64: keep == Keep::Zip64,
        };
        let (checksum, compressed, size) =
            if streamed { (0, 0, 0) } else { (entry.checksum, entry.compressed, entry.size) };
        self.bytes.extend_from_slice(b"PK\x03\x04\x2d\0");
        self.bytes.extend_from_slice(&entry.flags.to_le_bytes());
        self.bytes.extend_from_slice(&entry.method.to_le_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&checksum.to_le_bytes());
        let extra = zip64(&entry, &[size, compressed]);
        for number in [compressed, size] {
            self.bytes.extend_from_slice(&if entry.zip64 { u32::MAX } else { number as u32 }.to_le_bytes());
        }
        self.bytes.extend_from_slice(&(name.len() as u16).to_le_bytes());
        self.bytes.extend_from_slice(&(extra.len() as u16).to_le_bytes());
        self.bytes.extend_from_slice(name);
        self.bytes.extend_from_slice(&extra);
        self.bytes.extend_from_slice(&packed);
        if streamed {
            self.bytes.extend_from_slice(b"PK\x07\x08");
            for number in [entry.checksum, entry.compressed as u32, entry.size as u32] {
                self.bytes.extend_from_slice(&number.to_le_bytes());
            }
        }
        self.central.push(entry);
    }

    /// Returns the archive with its central directory.
    pub(crate) fn finish(&self) -> Vec<u8> {
        self.finish_as(&End::default())
    }

    pub(crate) fn finish_as(&self, end: &End) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        let begins = bytes.len() as u64;
        for entry in &self.central {
            bytes.extend_from_slice(b"PK\x01\x02\x2d\0\x2d\0");
            bytes.extend_from_slice(&entry.flags.to_le_bytes());
            bytes.extend_from_slice(&entry.method.to_le_bytes());
            bytes.extend_from_slice(&[0; 4]);
            bytes.extend_from_slice(&entry.checksum.to_le_bytes());
            let extra = zip64(entry, &[entry.size, entry.compressed, entry.local]);
            let number = |number: u64| if entry.zip64 { u32::MAX } else { number as u32 };
            bytes.extend_from_slice(&number(entry.compressed).to_le_bytes());
            bytes.extend_from_slice(&number(entry.size).to_le_bytes());
            bytes.extend_from_slice(&(entry.name.len() as u16).to_le_bytes());
            bytes.extend_from_slice(&(extra.len() as u16).to_le_bytes());
            bytes.extend_from_slice(&[0; 10]);
            bytes.extend_from_slice(&number(entry.local).to_le_bytes());
            bytes.extend_from_slice(&entry.name);
            bytes.extend_from_slice(&extra);
        }
        let length = bytes.len() as u64 - begins;
        let count = self.central.len() as u64;
        let is_wide = self.central.iter().any(|entry| entry.zip64);
        bytes.extend(vec![b'-'; end.gap]);
        if is_wide || end.zip64 {
            let at = bytes.len() as u64;
            bytes.extend_from_slice(b"PK\x06\x06");
            bytes.extend_from_slice(&(44 + end.extended as u64).to_le_bytes());
            bytes.extend_from_slice(b"\x2d\0\x2d\0\0\0\0\0\0\0\0\0");
            for number in [count, count, length, begins] {
                bytes.extend_from_slice(&number.to_le_bytes());
            }
            bytes.extend(vec![b'+'; end.extended]);
            bytes.extend_from_slice(b"PK\x06\x07\0\0\0\0");
            bytes.extend_from_slice(&at.to_le_bytes());
            bytes.extend_from_slice(&1_u32.to_le_bytes());
        }
        bytes.extend_from_slice(b"PK\x05\x06\0\0\0\0");
        for _ in 0..2 {
            bytes.extend_from_slice(&if is_wide { u16::MAX } else { count as u16 }.to_le_bytes());
        }
        for number in [length, begins] {
            bytes.extend_from_slice(&if is_wide { u32::MAX } else { number as u32 }.to_le_bytes());
        }
        bytes.extend_from_slice(&(end.comment.len() as u16).to_le_bytes());
        bytes.extend_from_slice(&end.comment);
        bytes
    }
}

fn zip64(entry: &Central, numbers: &[u64]) -> Vec<u8> {
    if !entry.zip64 {
        return Vec::new();
    }
    let mut extra = vec![1, 0];
    extra.extend_from_slice(&(numbers.len() as u16 * 8).to_le_bytes());
    numbers.iter().for_each(|number| extra.extend_from_slice(&number.to_le_bytes()));
    extra
}

/// Builds a member of a tar archive: header and data, padded.
pub(crate) fn tar_member(name: &str, kind: u8, data: &[u8]) -> Vec<u8> {
    let mut block = [0; 512];
    block[..name.len().min(100)].copy_from_slice(&name.as_bytes()[..name.len().min(100)]);
    block[100..108].copy_from_slice(b"0000644\0");
    block[124..136].copy_from_slice(format!("{:011o}\0", data.len()).as_bytes());
    block[156] = kind;
    block[257..265].copy_from_slice(b"ustar\x0000");
    put_checksum(&mut block);
    let mut bytes = block.to_vec();
    bytes.extend_from_slice(data);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

/// Sets the checksum of a tar header.
pub(crate) fn put_checksum(block: &mut [u8]) {
    block[148..156].copy_from_slice(b"        ");
    let sum: u64 = block[..512].iter().map(|&byte| u64::from(byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

/// Builds a whole tar archive of files.
pub(crate) fn tar(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut bytes: Vec<u8> = members.iter().flat_map(|(name, data)| tar_member(name, b'0', data)).collect();
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

pub(crate) fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}
