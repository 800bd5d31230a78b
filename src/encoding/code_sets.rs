//! The graphic character sets of PS3.3 tables C.12-2 to C.12-4: their escape sequences, and the
//! codes of their characters.

use std::collections::HashMap;
use std::sync::OnceLock;

use encoding_rs::Encoding;

/// A graphic character set that a code element (G0 or G1) can hold. A set whose G0 part is ASCII
/// has the name of its G1 part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Set {
    /// ISO-IR 6 in G0, nothing in G1.
    Ascii,
    /// ISO-IR 14 (romaji) in G0 and ISO-IR 13 (katakana) in G1.
    JisX0201,
    Latin1,
    Latin2,
    Latin3,
    Latin4,
    Latin5,
    Latin9,
    Cyrillic,
    Arabic,
    Greek,
    Hebrew,
    Thai,
    /// ISO-IR 87, two bytes in G0.
    JisX0208,
    /// ISO-IR 159, two bytes in G0.
    JisX0212,
    /// ISO-IR 149, two bytes in G1.
    KsX1001,
    /// ISO-IR 58, two bytes in G1.
    Gb2312,
}

/// ISO registration numbers of the defined terms, the number that is written first.
const REGISTRATIONS: [(&str, Set); 18] = [
    ("6", Set::Ascii),
    ("13", Set::JisX0201),
    ("14", Set::JisX0201),
    ("58", Set::Gb2312),
    ("87", Set::JisX0208),
    ("100", Set::Latin1),
    ("101", Set::Latin2),
    ("109", Set::Latin3),
    ("110", Set::Latin4),
    ("126", Set::Greek),
    ("127", Set::Arabic),
    ("138", Set::Hebrew),
    ("144", Set::Cyrillic),
    ("148", Set::Latin5),
    ("149", Set::KsX1001),
    ("159", Set::JisX0212),
    ("166", Set::Thai),
    ("203", Set::Latin9),
];

/// The code element that an escape sequence designates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CodeElement {
    G0,
    G1,
}

/// PS3.3 tables C.12-3 and C.12-4: escape sequence (without ESC), code element, set.
pub(super) const ESCAPES: [(&[u8], CodeElement, Set); 19] = [
    (b"(B", CodeElement::G0, Set::Ascii),
    (b"(J", CodeElement::G0, Set::JisX0201),
    (b")I", CodeElement::G1, Set::JisX0201),
    (b"$B", CodeElement::G0, Set::JisX0208),
    (b"$@", CodeElement::G0, Set::JisX0208), // the 1978 edition, which old Japanese modalities still write
    (b"$(D", CodeElement::G0, Set::JisX0212),
    (b"$)C", CodeElement::G1, Set::KsX1001),
    (b"$)A", CodeElement::G1, Set::Gb2312),
    (b"-A", CodeElement::G1, Set::Latin1),
    (b"-B", CodeElement::G1, Set::Latin2),
    (b"-C", CodeElement::G1, Set::Latin3),
    (b"-D", CodeElement::G1, Set::Latin4),
    (b"-F", CodeElement::G1, Set::Greek),
    (b"-G", CodeElement::G1, Set::Arabic),
    (b"-H", CodeElement::G1, Set::Hebrew),
    (b"-L", CodeElement::G1, Set::Cyrillic),
    (b"-M", CodeElement::G1, Set::Latin5),
    (b"-T", CodeElement::G1, Set::Thai),
    (b"-b", CodeElement::G1, Set::Latin9),
];

impl Set {
    /// Returns the set of an ISO registration number, as used in the defined terms.
    pub(super) fn of_registration(number: &str) -> Option<Self> {
        REGISTRATIONS.iter().find(|(known, _)| *known == number).map(|(_, set)| *set)
    }

    /// Returns the ISO registration number that the defined terms of the set have.
    pub(super) fn registration(self) -> Option<&'static str> {
        REGISTRATIONS.iter().find(|(_, set)| *set == self).map(|(number, _)| *number)
    }

    /// Whether a character of the set has two bytes. Such a set needs an escape sequence (PS3.3
    /// table C.12-4).
    pub(super) fn is_multi_byte(self) -> bool {
        matches!(self, Self::JisX0208 | Self::JisX0212 | Self::KsX1001 | Self::Gb2312)
    }

    /// Returns the table of the G1 part. `None` for ASCII, and for Latin-1, which needs no table.
    pub(super) fn encoding(self) -> Option<&'static Encoding> {
        Some(match self {
            Self::Ascii | Self::Latin1 => return None,
            Self::JisX0201 => encoding_rs::SHIFT_JIS,
            Self::Latin2 => encoding_rs::ISO_8859_2,
            Self::Latin3 => encoding_rs::ISO_8859_3,
            Self::Latin4 => encoding_rs::ISO_8859_4,
            // The upper halves (A0 to FF) of windows-1254 and windows-874 are ISO 8859-9 and TIS
            // 620.
            Self::Latin5 => encoding_rs::WINDOWS_1254,
            Self::Thai => encoding_rs::WINDOWS_874,
            Self::Latin9 => encoding_rs::ISO_8859_15,
            Self::Cyrillic => encoding_rs::ISO_8859_5,
            Self::Arabic => encoding_rs::ISO_8859_6,
            Self::Greek => encoding_rs::ISO_8859_7,
            Self::Hebrew => encoding_rs::ISO_8859_8,
            Self::JisX0208 | Self::JisX0212 => encoding_rs::EUC_JP,
            Self::KsX1001 => encoding_rs::EUC_KR,
            Self::Gb2312 => encoding_rs::GBK,
        })
    }

    /// Whether its characters have two bytes in G0 (PS3.3 table C.12-4).
    pub(super) fn is_two_byte_g0(self) -> bool {
        matches!(self, Self::JisX0208 | Self::JisX0212)
    }

    /// Whether it has characters in G1.
    pub(super) fn has_g1(self) -> bool {
        !matches!(self, Self::Ascii | Self::JisX0208 | Self::JisX0212)
    }

    /// The escape sequence that designates it to a code element. `None` if there is none.
    pub(super) fn escape(self, slot: CodeElement) -> Option<&'static [u8]> {
        ESCAPES.iter().find(|(_, s, set)| (*s, *set) == (slot, self)).map(|(sequence, _, _)| *sequence)
    }

    /// Returns the number of bytes of the character that starts with `bytes[0]` (≥ 0x80) in G1.
    pub(super) fn g1_unit(self, bytes: &[u8]) -> usize {
        let [lead, trail, ..] = *bytes else { return 1 };
        let two = match self {
            // Windows-949 and GBK extend their sets with trail bytes below 0x80. Old PC software
            // writes them.
            Self::KsX1001 | Self::Gb2312 => lead >= 0x81 && trail >= 0x41 && trail != b'\\' && trail != b'^',
            // Full Shift-JIS under the name ISO_IR 13 is common. Its trail byte may be a backslash.
            Self::JisX0201 => matches!(lead, 0x81..=0x9F | 0xE0..=0xFC) && matches!(trail, 0x40..=0x7E | 0x80..=0xFC),
            _ => false,
        };
        if two { 2 } else { 1 }
    }

    /// Encodes one character outside ASCII for the code element. `None` if the set lacks it.
    pub(super) fn encode_char(self, c: char) -> Option<CodeBytes> {
        if self == Self::Latin1 {
            let code = u8::try_from(u32::from(c)).ok()?;
            return (code >= 0xA0).then_some(CodeBytes::One(code));
        }
        if self == Self::JisX0212 {
            return jis_x_0212().get(&c).copied().map(CodeBytes::Two);
        }
        let mut utf8 = [0; 4];
        let c = if self == Self::JisX0208 { jis_twin(c) } else { c };
        let (bytes, _, unmappable) = self.encoding()?.encode(c.encode_utf8(&mut utf8));
        if unmappable {
            return None;
        }
        match (self, bytes.as_ref()) {
            // Only characters of the registered sets are used, not the additions of browser tables.
            (Self::JisX0201, &[b @ 0xA1..=0xDF]) => Some(CodeBytes::One(b)),
            (Self::JisX0208, &[row @ (0xA1..=0xA8 | 0xB0..=0xF4), cell @ 0xA1..=0xFE]) => {
                Some(CodeBytes::Two([row & 0x7F, cell & 0x7F]))
            }
            (Self::KsX1001, &[row @ 0xA1..=0xFE, cell @ 0xA1..=0xFE]) => Some(CodeBytes::Two([row, cell])),
            (Self::Gb2312, &[row, cell]) if is_gb2312(row, cell) => Some(CodeBytes::Two([row, cell])),
            (Self::JisX0201 | Self::JisX0208 | Self::KsX1001 | Self::Gb2312, _) => None,
            (_, &[b @ 0xA0..=0xFF]) => Some(CodeBytes::One(b)),
            _ => None,
        }
    }

    /// Returns the code element that holds the set's characters outside ASCII.
    pub(super) fn slot(self) -> CodeElement {
        if self.is_two_byte_g0() { CodeElement::G0 } else { CodeElement::G1 }
    }
}

/// The bytes of one character.
#[derive(Debug, Clone, Copy)]
pub(super) enum CodeBytes {
    One(u8),
    Two([u8; 2]),
}

/// Replaces a character of JIS X 0208 by its form in the tables of Windows and browsers, which this
/// module uses.
///
/// Some characters have two code points in Unicode: one by the mapping of JIS X 0208 itself, and
/// one by these tables. Both are the same bytes: 0x2141 is 〜 as well as ～.
pub(super) fn jis_twin(c: char) -> char {
    match c {
        '\u{301C}' => '\u{FF5E}',
        '\u{2016}' => '\u{2225}',
        '\u{2014}' => '\u{2015}',
        '\u{A2}' => '\u{FFE0}',
        '\u{A3}' => '\u{FFE1}',
        '\u{AC}' => '\u{FFE2}',
        other => other,
    }
}

/// Whether GB 2312-80 has a character from the upper right quarter of GBK.
fn is_gb2312(row: u8, cell: u8) -> bool {
    match row {
        0xA1 | 0xA3 | 0xB0..=0xD6 | 0xD8..=0xF7 => matches!(cell, 0xA1..=0xFE),
        0xA2 => matches!(cell, 0xB1..=0xE2 | 0xE5..=0xEE | 0xF1..=0xFC),
        0xA4 => matches!(cell, 0xA1..=0xF3),
        0xA5 => matches!(cell, 0xA1..=0xF6),
        0xA6 => matches!(cell, 0xA1..=0xB8 | 0xC1..=0xD8),
        0xA7 => matches!(cell, 0xA1..=0xC1 | 0xD1..=0xF1),
        0xA8 => matches!(cell, 0xA1..=0xBA | 0xC5..=0xE9),
        0xA9 => matches!(cell, 0xA4..=0xEF),
        0xD7 => matches!(cell, 0xA1..=0xF9),
        _ => false,
    }
}

/// Returns the codes of JIS X 0212 by character. The table of EUC-JP can decode this set but not
/// encode it, so it is inverted once.
fn jis_x_0212() -> &'static HashMap<char, [u8; 2]> {
    static MAP: OnceLock<HashMap<char, [u8; 2]>> = OnceLock::new();
    MAP.get_or_init(|| {
        let mut map = HashMap::new();
        for row in 0x21..=0x7E_u8 {
            for cell in 0x21..=0x7E_u8 {
                let euc = [0x8F, row | 0x80, cell | 0x80];
                let (text, faulty) = encoding_rs::EUC_JP.decode_without_bom_handling(&euc);
                let mut characters = text.chars();
                if let (false, Some(c), None) = (faulty, characters.next(), characters.next()) {
                    map.entry(c).or_insert([row, cell]);
                }
            }
        }
        map
    })
}
