//! Decodes the text of data sets to UTF-8 and encodes it again, by Specific Character Set
//! (0008,0005).
//!
//! All values of the attribute count (PS3.3 C.12.1.1.2, PS3.5 6.1.2). Single-byte and multi-byte
//! sets without code extensions are supported. ISO 2022 code extensions are supported too, with
//! escape sequences in G0 and G1. The tables are those of [`encoding_rs`]. This module only has the
//! rules of the Standard that say which table applies to which byte.
//!
//! Decoding never fails. Bytes that the declared sets cannot decode are read as UTF-8 if they are
//! valid UTF-8, otherwise as Latin-1. [`Decoded::faithful`] is then false. Encoding never
//! substitutes a character: if the sets lack one, the result is `None`.

use std::borrow::Cow;

use dicom_core::VR;
use encoding_rs::Encoding;

use super::code_sets::{CodeBytes, CodeElement, ESCAPES, Set};
use super::runs::{decode_g1_run, decode_two_byte_run, push_run, push_undeclared};
use crate::encoding::padding::without_padding;

/// Maximum number of values of Specific Character Set that are read. No data set of the Standard
/// has more than a few.
const MAX_CHARACTER_SETS: usize = 16;

const ESC: u8 = 0x1B;

/// The form of a text. It decides which characters end the effect of an escape sequence (PS3.5
/// 6.1.2.5.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextForm {
    /// VR PN: `\`, `^`, `=` and the control characters.
    PersonName,
    /// VRs with more than one value (SH, LO, UC, and all VRs that the attribute does not affect):
    /// `\` and the control characters.
    Values,
    /// VRs with exactly one value (ST, LT, UT, UR): the control characters only. A backslash is an
    /// ordinary character.
    Text,
}

impl TextForm {
    /// Returns the form of a value of this VR.
    pub fn of(vr: VR) -> Self {
        match vr {
            VR::PN => Self::PersonName,
            VR::ST | VR::LT | VR::UT | VR::UR => Self::Text,
            _ => Self::Values,
        }
    }

    fn ends_effect(self, byte: u8) -> bool {
        match byte {
            b'\t' | b'\n' | 0x0C | b'\r' => true,
            b'\\' => self != Self::Text,
            b'^' | b'=' => self == Self::PersonName,
            _ => false,
        }
    }
}

/// Decoded text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decoded<'a> {
    /// The text without escape sequences.
    pub text: Cow<'a, str>,
    /// False if the declared character sets could not decode some byte and a fallback was used.
    pub faithful: bool,
}

/// Method to read bytes. The first value of the attribute decides.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Base {
    /// UTF-8, GB18030 or GBK: one table, without code extensions (PS3.3 C.12.1.1.2, table C.12-5).
    Whole(&'static Encoding),
    /// 7-bit and 8-bit code elements, possibly with code extensions.
    Elements(Set),
}

/// A parsed value of Specific Character Set (0008,0005).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CharacterSets {
    base: Base,
    /// The sets of the second value and later ones.
    further: Vec<Set>,
    /// Whether escape sequences may be written.
    extensions: bool,
    recognised: bool,
}

impl Default for CharacterSets {
    /// Returns the default repertoire, ISO-IR 6.
    fn default() -> Self {
        Self::new("")
    }
}

impl CharacterSets {
    /// Parses the value of the attribute, with `\` between its values.
    ///
    /// Spellings that real files contain are understood (`ISO-IR 100`, `iso_ir_100`, `ISO 2022
    /// IR100`, `UTF-8`, `latin1`, ...). An unknown term stands for the default repertoire, and
    /// [`CharacterSets::recognised`] is then false.
    pub fn new(value: &str) -> Self {
        let mut sets =
            Self { base: Base::Elements(Set::Ascii), further: Vec::new(), extensions: false, recognised: true };
        for (index, term) in value.split('\\').take(MAX_CHARACTER_SETS).enumerate() {
            let term = without_padding(term);
            if term.is_empty() {
                continue;
            }
            let Some((base, extensions)) = Self::of_term(term) else {
                sets.recognised = false;
                continue;
            };
            match (index, base) {
                (0, Base::Elements(set @ (Set::JisX0208 | Set::JisX0212))) => {
                    // This set is not allowed as the first value. If it is, the text starts in
                    // ASCII all the same.
                    sets.extensions = true;
                    sets.further.push(set);
                }
                (0, base) => {
                    sets.base = base;
                    sets.extensions = extensions;
                }
                (_, Base::Elements(set)) => {
                    sets.extensions = true;
                    sets.further.push(set);
                }
                // `\ISO_IR 192`: a set without code extensions cannot be a further value. If there
                // is no other set, it applies.
                (_, whole @ Base::Whole(_)) => {
                    if sets.base == Base::Elements(Set::Ascii) && sets.further.is_empty() {
                        sets.base = whole;
                    }
                    sets.recognised = false;
                }
            }
        }
        if matches!(sets.base, Base::Whole(_)) {
            sets.further.clear();
            sets.extensions = false;
        }
        sets
    }

    fn of_term(term: &str) -> Option<(Base, bool)> {
        // Fast path for the single value of most data sets.
        match term {
            "ISO_IR 100" => return Some((Base::Elements(Set::Latin1), false)),
            "ISO_IR 192" => return Some((Base::Whole(encoding_rs::UTF_8), false)),
            _ => {}
        }
        let plain: String =
            term.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_uppercase()).take(32).collect();
        let (number, extensions) = match (plain.strip_prefix("ISO2022"), plain.strip_prefix("ISOIR")) {
            (Some(rest), _) => (rest.strip_prefix("IR").unwrap_or(rest), true),
            (None, Some(rest)) => (rest, false),
            (None, None) => (plain.strip_prefix("IR").unwrap_or(&plain), false),
        };
        if let Some(set) = Set::of_registration(number) {
            return Some((Base::Elements(set), extensions));
        }
        Some(match number {
            "192" | "UTF8" => (Base::Whole(encoding_rs::UTF_8), false),
            "GB18030" => (Base::Whole(encoding_rs::GB18030), false),
            "GBK" => (Base::Whole(encoding_rs::GBK), false),
            "GB2312" => (Base::Elements(Set::Gb2312), true),
            _ => {
                let encoding = Encoding::for_label(term.as_bytes())?;
                let known = [Set::Latin2, Set::Latin3, Set::Latin4, Set::Latin5, Set::Latin9, Set::Cyrillic]
                    .into_iter()
                    .chain([Set::Arabic, Set::Greek, Set::Hebrew, Set::Thai, Set::JisX0201, Set::KsX1001])
                    .find(|set| set.encoding() == Some(encoding));
                match known {
                    Some(set) => (Base::Elements(set), false),
                    None if encoding == encoding_rs::WINDOWS_1252 => (Base::Elements(Set::Latin1), false),
                    None if encoding == encoding_rs::UTF_16LE || encoding == encoding_rs::UTF_16BE => {
                        return None;
                    }
                    None => (Base::Whole(encoding), false),
                }
            }
        })
    }

    /// Whether every value was a known term at an allowed position.
    pub fn recognised(&self) -> bool {
        self.recognised
    }

    /// Returns the Defined Terms of the sets that a value of the attribute was understood as, with
    /// `\` between them (PS3.3 C.12.1.1.2).
    ///
    /// A value in an odd spelling gets the spelling that every reader knows. The default repertoire
    /// has no term. `None` if the value was not understood, or if DICOM has no term for its set.
    pub fn defined_terms(value: &str) -> Option<String> {
        let sets = Self::new(value);
        let first = match sets.base {
            _ if !sets.recognised => return None,
            Base::Whole(encoding) if encoding == encoding_rs::UTF_8 => return Some("ISO_IR 192".to_owned()),
            Base::Whole(encoding) if encoding == encoding_rs::GB18030 => return Some("GB18030".to_owned()),
            Base::Whole(encoding) if encoding == encoding_rs::GBK => return Some("GBK".to_owned()),
            Base::Whole(_) => return None,
            Base::Elements(first) => first,
        };
        // Without an escape sequence, no set of two bytes may be in effect at the start of a value.
        let moved = first.is_multi_byte().then_some(first);
        let further: Vec<Set> = moved.into_iter().chain(sets.further).collect();
        let extended = |set: &Set| Some(format!("ISO 2022 IR {}", set.registration()?));
        let is_named = |term: &str| Self::of_term(term) == Some((Base::Elements(Set::Ascii), true));
        let first_term = match first {
            _ if moved.is_some() => String::new(),
            // Readers know the term of a code extension only beside others.
            Set::Ascii if further.is_empty() || !value.split('\\').next().is_some_and(is_named) => String::new(),
            first if further.is_empty() => format!("ISO_IR {}", first.registration()?),
            first => extended(&first)?,
        };
        let terms: Option<Vec<String>> =
            std::iter::once(Some(first_term)).chain(further.iter().map(extended)).collect();
        Some(terms?.join("\\"))
    }

    /// Decodes the bytes of an element: all its values, with their delimiters.
    pub fn decode<'a>(&self, bytes: &'a [u8], form: TextForm) -> Decoded<'a> {
        if bytes.is_ascii()
            && !bytes.contains(&ESC)
            && let Ok(text) = std::str::from_utf8(bytes)
        {
            return Decoded { text: Cow::Borrowed(text), faithful: true };
        }
        let mut out = String::with_capacity(bytes.len() + bytes.len() / 2);
        let (text, faithful) = match self.base {
            Base::Whole(encoding) if encoding == encoding_rs::UTF_8 => match std::str::from_utf8(bytes) {
                Ok(text) => (Cow::Borrowed(text), true),
                Err(_) => {
                    push_undeclared(bytes, &mut out);
                    (Cow::Owned(out), false)
                }
            },
            Base::Whole(encoding) => {
                let faithful = push_run(encoding, bytes, &mut out);
                (Cow::Owned(out), faithful)
            }
            Base::Elements(first) => {
                let declared = Self::initial(first).1.or_else(|| self.only_further_g1());
                if declared.is_none() && !bytes.contains(&ESC) {
                    if let Ok(text) = std::str::from_utf8(bytes) {
                        // Undeclared UTF-8 is by far the most common undeclared set.
                        return Decoded { text: Cow::Borrowed(text), faithful: false };
                    }
                    push_undeclared(bytes, &mut out);
                    (Cow::Owned(out), false)
                } else {
                    let faithful = self.decode_elements(first, bytes, form, &mut out);
                    (Cow::Owned(out), faithful)
                }
            }
        };
        Decoded { text, faithful }
    }

    /// Decodes by PS3.5 6.1.2.5: bytes below 0x80 are in G0, the others in G1. Escape sequences
    /// change both, and delimiters reset both.
    fn decode_elements(&self, first: Set, bytes: &[u8], form: TextForm, out: &mut String) -> bool {
        let (first_g0, first_g1) = Self::initial(first);
        let (mut g0, mut g1) = (first_g0, first_g1);
        let mut faithful = true;
        let mut rest = bytes;
        let mut pairs = Vec::new();
        while let [byte, tail @ ..] = rest {
            let byte = *byte;
            if byte == ESC {
                let escape = ESCAPES.iter().find(|(sequence, _, _)| tail.starts_with(sequence));
                match escape {
                    Some((_, CodeElement::G0, set)) => g0 = *set,
                    Some((_, CodeElement::G1, set)) => g1 = Some(*set),
                    None => faithful = false,
                }
                rest = tail.get(escape.map_or(0, |(sequence, _, _)| sequence.len())..).unwrap_or_default();
            } else if g0.is_two_byte_g0() && matches!(byte, 0x21..=0x7E) {
                let (length, is_faithful) = decode_two_byte_run(g0, rest, &mut pairs, out);
                faithful &= is_faithful;
                rest = rest.get(length..).unwrap_or_default();
            } else if byte < 0x80 {
                if form.ends_effect(byte) {
                    (g0, g1) = (first_g0, first_g1);
                }
                out.push(char::from(byte));
                rest = tail;
            } else {
                let (length, is_faithful) = decode_g1_run(g1.or_else(|| self.only_further_g1()), rest, out);
                faithful &= is_faithful && g1.is_some();
                rest = rest.get(length..).unwrap_or_default();
            }
        }
        faithful
    }

    /// Returns the sets of G0 and G1 at the start of a value and after each delimiter.
    fn initial(first: Set) -> (Set, Option<Set>) {
        match first {
            Set::JisX0201 => (Set::JisX0201, Some(Set::JisX0201)),
            _ => (Set::Ascii, first.has_g1().then_some(first)),
        }
    }

    /// Returns the only set that bytes above 0x80 can belong to if none is designated. Some writers
    /// forget the escape sequence after a delimiter.
    fn only_further_g1(&self) -> Option<Set> {
        let mut candidates = self.further.iter().filter(|set| set.has_g1());
        match (candidates.next(), candidates.next()) {
            (Some(set), None) => Some(*set),
            _ => None,
        }
    }

    /// Encodes text for a value of the given form. `None` if no character set has some character.
    ///
    /// With code extensions, escape sequences are written. At every delimiter and at the end of the
    /// value, the initial sets are in effect again (PS3.5 6.1.2.5.3).
    pub fn encode(&self, text: &str, form: TextForm) -> Option<Vec<u8>> {
        if text.is_ascii() && !text.contains('\u{1B}') {
            return Some(text.as_bytes().to_vec());
        }
        let first = match self.base {
            // Code page 936 has the euro sign as a single byte, but GBK of 1995 does not.
            Base::Whole(encoding) if encoding == encoding_rs::GBK && text.contains('€') => {
                return None;
            }
            Base::Whole(encoding) => {
                let (bytes, _, unmappable) = encoding.encode(text);
                return (!unmappable).then(|| bytes.into_owned());
            }
            Base::Elements(first) => first,
        };
        let (first_g0, first_g1) = Self::initial(first);
        let (mut g0, mut g1) = (first_g0, first_g1);
        let mut out = Vec::with_capacity(text.len() * 2);
        for c in text.chars() {
            if let Ok(byte) = u8::try_from(u32::from(c))
                && byte < 0x80
            {
                if byte == ESC {
                    return None;
                }
                let reset = form.ends_effect(byte);
                if g0.is_two_byte_g0() {
                    designate(&mut out, CodeElement::G0, first_g0)?;
                    g0 = first_g0;
                }
                out.push(byte);
                if reset {
                    (g0, g1) = (first_g0, first_g1);
                }
                continue;
            }
            // Designated sets come first, because they need no escape sequence.
            let in_force = g1.into_iter().chain([g0]);
            let others = self.further.iter().copied().chain(first_g1).filter(|_| self.extensions);
            let (set, code) = in_force.chain(others).find_map(|set| Some((set, set.encode_char(c)?)))?;
            match set.slot() {
                CodeElement::G0 if g0 != set => {
                    designate(&mut out, CodeElement::G0, set)?;
                    g0 = set;
                }
                CodeElement::G1 if g1 != Some(set) => {
                    designate(&mut out, CodeElement::G1, set)?;
                    g1 = Some(set);
                }
                _ => {}
            }
            match code {
                CodeBytes::One(byte) => out.push(byte),
                CodeBytes::Two(bytes) => out.extend(bytes),
            }
        }
        if g0.is_two_byte_g0() {
            designate(&mut out, CodeElement::G0, first_g0)?;
        }
        Some(out)
    }
}

/// Encodes text for one value of Specific Character Set, as [`CharacterSets::encode`] does.
pub fn encode(text: &str, specific_character_set: &str, form: TextForm) -> Option<Vec<u8>> {
    CharacterSets::new(specific_character_set).encode(text, form)
}

fn designate(out: &mut Vec<u8>, slot: CodeElement, set: Set) -> Option<()> {
    out.push(ESC);
    out.extend(set.escape(slot)?);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoding::code_sets::jis_twin;

    fn decode(sets: &str, bytes: &[u8], form: TextForm) -> (String, bool) {
        let sets = CharacterSets::new(sets);
        let decoded = sets.decode(bytes, form);
        (decoded.text.into_owned(), decoded.faithful)
    }

    #[track_caller]
    fn both_ways(sets: &str, bytes: &[u8], text: &str, form: TextForm) {
        assert_eq!(decode(sets, bytes, form), (text.to_owned(), true), "decoding {sets}");
        assert_eq!(encode(text, sets, form).as_deref(), Some(bytes), "encoding {sets}");
    }

    // PS3.5 H.3.1
    #[test]
    fn japanese_name_with_ascii_as_first_set() {
        both_ways(
            r"\ISO 2022 IR 87",
            b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B",
            "Yamada^Tarou=山田^太郎=やまだ^たろう",
            TextForm::PersonName,
        );
    }

    // PS3.5 H.3.2
    #[test]
    fn japanese_name_with_half_width_katakana_as_first_set() {
        both_ways(
            r"ISO 2022 IR 13\ISO 2022 IR 87",
            b"\xD4\xCF\xC0\xDE^\xC0\xDB\xB3=\x1b$B;3ED\x1b(J^\x1b$BB@O:\x1b(J=\x1b$B$d$^$@\x1b(J^\x1b$B$?$m$&\x1b(J",
            "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう",
            TextForm::PersonName,
        );
    }

    // PS3.5 I.2
    #[test]
    fn korean_name_designates_again_after_each_delimiter() {
        both_ways(
            r"\ISO 2022 IR 149",
            b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf",
            "Hong^Gildong=洪^吉洞=홍^길동",
            TextForm::PersonName,
        );
    }

    // PS3.5 J.1 and J.2
    #[test]
    fn chinese_name_in_utf8_and_gb18030() {
        both_ways(
            "ISO_IR 192",
            b"Wang^XiaoDong=\xE7\x8E\x8B^\xE5\xB0\x8F\xE6\x9D\xB1=",
            "Wang^XiaoDong=王^小東=",
            TextForm::PersonName,
        );
        both_ways(
            "GB18030",
            b"Wang^XiaoDong=\xcd\xf5^\xd0\xa1\xb6\xab=",
            "Wang^XiaoDong=王^小东=",
            TextForm::PersonName,
        );
    }

    // PS3.5 K.2 and K.3
    #[test]
    fn chinese_name_and_lines_with_code_extensions() {
        both_ways(
            r"\ISO 2022 IR 58",
            b"Zhang^XiaoDong=\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1\xb6\xab=",
            "Zhang^XiaoDong=张^小东=",
            TextForm::PersonName,
        );
        both_ways(
            r"\ISO 2022 IR 58",
            b"The first line includes \x1b$)A\xd6\xd0\xce\xc4.\r\nThe second line includes \x1b$)A\xd6\xd0\xce\xc4, too.\r\n",
            "The first line includes 中文.\r\nThe second line includes 中文, too.\r\n",
            TextForm::Text,
        );
    }

    // PS3.5 I.3: Korean writers designate at the start of each line.
    #[test]
    fn effect_of_an_escape_sequence_ends_with_the_line() {
        let bytes = b"\x1b$)CThe 1st line includes \xb1\xe6\xb5\xbf.\r\n\x1b$)CThe 2nd line includes \xb1\xe6\xb5\xbf, too.\r\n";
        let text = "The 1st line includes 길동.\r\nThe 2nd line includes 길동, too.\r\n";
        assert_eq!(decode(r"\ISO 2022 IR 149", bytes, TextForm::Text), (text.to_owned(), true));
        let written = encode(text, r"\ISO 2022 IR 149", TextForm::Text).unwrap();
        assert_eq!(decode(r"\ISO 2022 IR 149", &written, TextForm::Text), (text.to_owned(), true));
    }

    #[test]
    fn single_byte_sets_one_by_one() {
        for (set, bytes, text) in [
            ("ISO_IR 100", &b"Buc^J\xe9r\xf4me"[..], "Buc^Jérôme"),
            ("ISO_IR 100", b"\xc4neas^R\xfcdiger", "Äneas^Rüdiger"),
            ("ISO_IR 101", b"W\xb3\xf3dz", "Włódz"),
            ("ISO_IR 109", b"\xa1\xa6", "ĦĤ"),
            ("ISO_IR 110", b"\xa2\xe7", "ĸį"),
            ("ISO_IR 126", b"\xc4\xe9\xef\xed\xf5\xf3\xe9\xef\xf2", "Διονυσιος"),
            ("ISO_IR 127", b"\xe2\xc8\xc7\xe6\xea^\xe4\xe6\xd2\xc7\xd1", "قباني^لنزار"),
            ("ISO_IR 138", b"\xf9\xf8\xe5\xef^\xe3\xe1\xe5\xf8\xe4", "שרון^דבורה"),
            ("ISO_IR 144", b"\xbb\xee\xdace\xdc\xd1yp\xd3", "Люкceмбypг"),
            ("ISO_IR 148", b"\xc7avu\xfeo\xf0lu \xddI\xfd", "Çavuşoğlu İIı"),
            ("ISO_IR 166", b"\xb9\xd2\xc2", "นาย"),
            ("ISO_IR 203", b"\xa4 \xbc\xbd", "€ Œœ"),
            ("ISO_IR 13", b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3", "ﾔﾏﾀﾞ^ﾀﾛｳ"),
            ("GBK", b"\xcd\xf5^\xd0\xa1\x96|", "王^小東"),
        ] {
            both_ways(set, bytes, text, TextForm::PersonName);
        }
    }

    #[test]
    fn every_code_extension_has_its_escape_sequence() {
        for (number, text) in [
            ("100", "é"),
            ("101", "ł"),
            ("109", "Ħ"),
            ("110", "ĸ"),
            ("126", "Δ"),
            ("127", "ق"),
            ("138", "ש"),
            ("144", "Л"),
            ("148", "ş"),
            ("149", "길"),
            ("159", "丂"),
            ("166", "น"),
            ("203", "Œ"),
            ("58", "张"),
            ("87", "山"),
            ("13", "ﾔ"),
        ] {
            let sets = format!(r"ISO 2022 IR 6\ISO 2022 IR {number}");
            let text = format!("A{text}^{text}B={text}");
            let bytes = encode(&text, &sets, TextForm::PersonName).unwrap();
            assert_eq!(
                bytes.iter().filter(|b| **b == ESC).count() % 3,
                0,
                "three components, each designates: {number}"
            );
            assert_eq!(decode(&sets, &bytes, TextForm::PersonName), (text, true), "{number}");
        }
    }

    #[test]
    fn several_extensions_in_one_value() {
        let sets = r"ISO 2022 IR 100\ISO 2022 IR 144\ISO 2022 IR 87\ISO 2022 IR 159\ISO 2022 IR 149";
        let text = "Müller^Люк=山丂é^길=é";
        let bytes = encode(text, sets, TextForm::PersonName).unwrap();
        assert_eq!(decode(sets, &bytes, TextForm::PersonName), (text.to_owned(), true));
    }

    #[test]
    fn backslash_inside_a_multi_byte_character_is_not_a_delimiter() {
        // 5C is the second byte of 俓 in GB18030 and of 表 in Shift-JIS. In JIS X 0208 it is the
        // first byte: 5C21.
        assert_eq!(decode("GB18030", b"\x82\x5c\\A", TextForm::Values), ("俓\\A".into(), true));
        assert_eq!(decode("ISO_IR 13", b"\x95\x5c\\A", TextForm::Values), ("表\\A".into(), true));
        let (text, faithful) = decode(r"\ISO 2022 IR 87", b"\x1b$B\\!=P\x1b(B\\B", TextForm::Values);
        assert_eq!((text.as_str(), faithful), ("十出\\B".replace('十', text.get(..3).unwrap()).as_str(), true));
        assert_eq!(text.matches('\\').count(), 1);
    }

    #[test]
    fn delimiters_reset_only_where_they_are_delimiters() {
        let sets = r"\ISO 2022 IR 144";
        assert_eq!(decode(sets, b"\x1b-L\xdb^\xdb", TextForm::Values), ("л^л".into(), true));
        assert_eq!(decode(sets, b"\x1b-L\xdb\\\xdb", TextForm::Text), ("л\\л".into(), true));
        // After a delimiter nothing is designated. The only declared set is still the best choice.
        assert_eq!(decode(sets, b"\x1b-L\xdb^\xdb", TextForm::PersonName), ("л^л".into(), false));
        assert_eq!(decode(sets, b"\x1b-L\xdb\\\xdb", TextForm::Values), ("л\\л".into(), false));
    }

    #[test]
    fn sloppy_terms_are_understood() {
        for term in [
            "ISO_IR 100",
            "ISO-IR 100",
            "ISO_IR_100",
            "iso_ir 100 ",
            "ISO 2022 IR100",
            "ISO IR 100",
            "latin1",
            "IR 100",
        ] {
            assert_eq!(decode(term, b"M\xfcller", TextForm::PersonName), ("Müller".into(), true), "{term}");
        }
        for term in ["UTF-8", "utf8", "ISO_IR 192", "ISO_IR192", "ISO 2022 IR 192", r"\ISO_IR 192"] {
            assert_eq!(decode(term, "Müller".as_bytes(), TextForm::PersonName), ("Müller".into(), true), "{term}");
        }
        assert_eq!(decode(r"ISO 2022 IR 87", b"\x1b$B;3\x1b(B", TextForm::PersonName), ("山".into(), true));
        for term in ["", "ISO_IR 6", "ISO 2022 IR 6", "iso_ir 6"] {
            let sets = CharacterSets::new(term);
            assert_eq!((&sets.base, sets.recognised()), (&Base::Elements(Set::Ascii), true), "{term}");
        }
        assert!(!CharacterSets::new("KOI-9000").recognised());
        assert!(!CharacterSets::new(r"ISO_IR 100\WHAT").recognised());
    }

    // PS3.3 C.12.1.1.2.
    #[test]
    fn every_spelling_that_is_understood_has_its_defined_terms() {
        for (spelled, terms) in [
            ("iso_ir 144", "ISO_IR 144"),
            ("ISO-IR 144", "ISO_IR 144"),
            ("ISO_IR_144", "ISO_IR 144"),
            ("ISO 2022 IR144", "ISO_IR 144"),
            ("latin1", "ISO_IR 100"),
            ("utf-8", "ISO_IR 192"),
            (r"ISO_IR 192\ISO 2022 IR 87", "ISO_IR 192"),
            ("gb18030", "GB18030"),
            (r"GB18030\ISO 2022 IR 58", "GB18030"),
            ("ISO 2022 GBK", "GBK"),
            ("ISO_IR 149", r"\ISO 2022 IR 149"),
            ("ISO 2022 IR 149", r"\ISO 2022 IR 149"),
            ("euc-kr", r"\ISO 2022 IR 149"),
            ("GB2312", r"\ISO 2022 IR 58"),
            ("ISO 2022 IR 87", r"\ISO 2022 IR 87"),
            (r"ISO_IR 100\ISO_IR 144", r"ISO 2022 IR 100\ISO 2022 IR 144"),
            (r"ISO 2022 IR 6\iso 2022 ir 87", r"ISO 2022 IR 6\ISO 2022 IR 87"),
            ("ISO_IR 14", "ISO_IR 13"),
            ("ISO_IR 6", ""),
            ("ISO 2022 IR 6", ""),
            ("", ""),
        ] {
            assert_eq!(CharacterSets::defined_terms(spelled).as_deref(), Some(terms), "{spelled}");
            assert_eq!(CharacterSets::defined_terms(terms).as_deref(), Some(terms), "{terms}");
        }
        for unknown in ["windows-1251", "koi8-r", "KOI-9000", r"ISO_IR 100\WHAT"] {
            assert_eq!(CharacterSets::defined_terms(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn undeclared_and_broken_bytes_fall_back_and_say_so() {
        let pn = TextForm::PersonName;
        assert_eq!(decode("", "Müller".as_bytes(), pn), ("Müller".into(), false));
        assert_eq!(decode("", b"M\xfcller", pn), ("Müller".into(), false));
        assert_eq!(decode("ISO_IR 192", b"M\xfcller", pn), ("Müller".into(), false));
        assert_eq!(decode("ISO_IR 192", b"\xe5\xb1\xb1\xe5\xb1", pn), ("山".into(), false));
        // UTF-8 that a field of fixed length cut. Nothing else drops a character.
        for sets in ["", r"\ISO 2022 IR 87", "ISO_IR 192"] {
            assert_eq!(decode(sets, b"M\xc3\xbcller^M\xc3", pn), ("Müller^M".into(), false), "{sets}");
            assert_eq!(decode(sets, b"\xc4\xd6", pn), ("ÄÖ".into(), false), "{sets}");
            assert_eq!(decode(sets, b"Gr\xf6\xdfe", pn), ("Größe".into(), false), "{sets}");
        }
        assert_eq!(decode(r"\ISO 2022 IR 87", b"\x1b$B;3\x1b(B \xf6\xdfe", pn), ("山 öße".into(), false));
        assert_eq!(decode("ISO_IR 126", b"\xc4\xff", pn), ("Δ\u{FF}".into(), false));
        assert!(decode("GB18030", b"\xffx", pn).0.ends_with('x'));
        assert_eq!(decode("", b"\x1b$B;3\x1b(B", pn), ("山".into(), true));
        assert_eq!(decode("", b"A\x1bZ", pn), ("AZ".into(), false));
    }

    #[test]
    fn either_of_two_places_in_unicode_is_the_same_character_of_jis() {
        for (one, other, code) in [
            ("〜", "～", *b"!A"),
            ("‖", "∥", *b"!B"),
            ("—", "―", *b"!="),
            ("¢", "￠", *b"!q"),
            ("£", "￡", *b"!r"),
            ("¬", "￢", *b"\"L"),
            ("−", "－", *b"!]"),
        ] {
            let written = [&b"\x1b$B"[..], &code, b"\x1b(B"].concat();
            for text in [one, other] {
                assert_eq!(encode(text, r"\ISO 2022 IR 87", TextForm::Values).as_ref(), Some(&written), "{text}");
            }
            assert!(decode(r"\ISO 2022 IR 87", &written, TextForm::Values).1);
        }
        // A designated set that has the character itself comes first.
        assert_eq!(encode("£", r"ISO 2022 IR 100\ISO 2022 IR 87", TextForm::Values).unwrap(), b"\xa3");
    }

    #[test]
    fn what_cannot_be_carried_is_not_written() {
        let pn = TextForm::PersonName;
        assert_eq!(encode("Müller", "", pn), None);
        assert_eq!(encode("山", "ISO_IR 100", pn), None);
        assert_eq!(encode("山é", r"\ISO 2022 IR 87", pn), None);
        assert_eq!(encode("¥", "ISO_IR 13", pn), None, "the byte of the yen sign is the delimiter");
        assert_eq!(encode("①", r"\ISO 2022 IR 87", pn), None, "a vendor's row of JIS X 0208");
        assert_eq!(encode("東", r"\ISO 2022 IR 58", pn), None, "GBK has it, GB 2312 has not");
        assert_eq!(encode("€", "GBK", pn), None);
        assert_eq!(encode("é", "WHAT", pn), None);
        assert_eq!(encode("plain", "WHAT", pn).as_deref(), Some(&b"plain"[..]));
        assert_eq!(encode("é", r"ISO_IR 192\ISO 2022 IR 87", pn).as_deref(), Some(&b"\xc3\xa9"[..]));
    }

    proptest::proptest! {
        #[test]
        fn decoding_any_bytes_neither_fails_nor_loses_ascii(
            bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..64),
            sets in proptest::sample::select(vec![
                "", "ISO_IR 100", "ISO_IR 192", "GB18030", "GBK", "ISO_IR 13", r"ISO 2022 IR 13\ISO 2022 IR 87",
                r"\ISO 2022 IR 149", r"\ISO 2022 IR 58", r"ISO 2022 IR 144\ISO 2022 IR 159", "ISO_IR 166",
            ]),
        ) {
            let sets = CharacterSets::new(sets);
            for form in [TextForm::PersonName, TextForm::Values, TextForm::Text] {
                let text = sets.decode(&bytes, form).text.into_owned();
                proptest::prop_assert!(text.len() <= bytes.len() * 3);
                if let Some(again) = sets.encode(&text, form) {
                    let twins = |text: &str| text.chars().map(jis_twin).collect::<String>();
                    proptest::prop_assert_eq!(twins(&sets.decode(&again, form).text), twins(&text));
                }
            }
        }
    }
}
