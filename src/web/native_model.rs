//! The Native DICOM Model in XML (PS3.19 annex A.1), made of the DICOM JSON Model (PS3.18 F.3).
//!
//! The text of our own writers is read and written again in one pass, without an object in memory.
//! So the XML says exactly what the JSON says.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::{self, Write as _};

use dicom_core::Tag;
use dicom_core::dictionary::{DataDictionary as _, DataDictionaryEntry as _};
use dicom_dictionary_std::StandardDataDictionary;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::encoding::tag::parse_tag;

/// The media type of one model.
pub(super) const MEDIA_TYPE: &str = "application/dicom+xml";

const START: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
    <NativeDicomModel xmlns=\"http://dicom.nema.org/PS3.19/models/NativeDICOM\" xml:space=\"preserve\">";

/// Components of a person name (PS3.19 table A.1.5-5), in the order of PS3.5 6.2.1.
const NAME_PARTS: [&str; 5] = ["FamilyName", "GivenName", "MiddleName", "NamePrefix", "NameSuffix"];

/// Appends the model of one data set with this JSON text.
///
/// # Errors
/// If the text is not one object of the DICOM JSON Model. Our writers make no such text.
pub(super) fn push(out: &mut String, json: &str) -> Result<(), serde_json::Error> {
    out.push_str(START);
    let mut reader = serde_json::Deserializer::from_str(json);
    // The walk over the object has a limit of its own.
    reader.disable_recursion_limit();
    DataSetXml { out }.deserialize(&mut reader)?;
    reader.end()?;
    out.push_str("</NativeDicomModel>\n");
    Ok(())
}

/// Appends text, and escapes the characters that XML reserves. Characters that XML cannot have are
/// replaced.
fn push_text(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            // A reader would replace these by spaces and line feeds.
            '\r' => out.push_str("&#13;"),
            '\t' => out.push_str("&#9;"),
            '\n' => out.push_str("&#10;"),
            '\0'..='\x1F' | '\u{FFFE}' | '\u{FFFF}' => out.push('\u{FFFD}'),
            c => out.push(c),
        }
    }
}

/// Writes the elements of a data set.
struct DataSetXml<'o> {
    out: &'o mut String,
}

impl<'de> DeserializeSeed<'de> for DataSetXml<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for DataSetXml<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a data set")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<(), M::Error> {
        // Private creators by group and block (PS3.5 7.8.1).
        let mut creators: HashMap<(u16, u16), String> = HashMap::new();
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            let tag = parse_tag(&key).ok_or_else(|| M::Error::custom("a key is no tag"))?;
            let is_private = !tag.0.is_multiple_of(2);
            let creator = creators.get(&(tag.0, tag.1 >> 8)).filter(|_| is_private).cloned();
            let first = map.next_value_seed(ElementXml { out: self.out, tag, creator })?;
            if is_private && (0x10..=0xFF).contains(&tag.1) {
                creators.extend(first.map(|first| ((tag.0, tag.1), first)));
            }
        }
        Ok(())
    }
}

/// Writes one element. Returns its first value, if that is a text.
struct ElementXml<'o> {
    out: &'o mut String,
    tag: Tag,
    creator: Option<String>,
}

impl<'de> DeserializeSeed<'de> for ElementXml<'_> {
    type Value = Option<String>;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Option<String>, D::Error> {
        reader.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for ElementXml<'_> {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an element")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Option<String>, M::Error> {
        let Self { out, tag, creator } = self;
        // Our writers begin with the VR, which decides how the values are read.
        let vr = match map.next_entry::<Cow<'de, str>, String>()? {
            Some((key, vr)) if key == "vr" => vr,
            _ => return Err(M::Error::custom("an element does not begin with its VR")),
        };
        // The creator stands for the block of a private element (PS3.19 Table A.1.5-2).
        let number = if creator.is_some() { tag.1 & 0xFF } else { tag.1 };
        let _ = write!(out, "<DicomAttribute tag=\"{:04X}{number:04X}\" vr=\"{vr}\"", tag.0);
        if let Some(entry) = StandardDataDictionary.by_tag(tag).filter(|_| tag.0.is_multiple_of(2)) {
            let _ = write!(out, " keyword=\"{}\"", entry.alias());
        }
        if let Some(creator) = creator {
            out.push_str(" privateCreator=\"");
            push_text(out, &creator);
            out.push('"');
        }
        out.push('>');
        let mut first = None;
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            match key.as_ref() {
                "Value" => map.next_value_seed(ValuesXml { out: &mut *out, vr: &vr, first: &mut first })?,
                "BulkDataURI" => {
                    out.push_str("<BulkData uri=\"");
                    push_text(out, &map.next_value::<Cow<'de, str>>()?);
                    out.push_str("\"/>");
                }
                "InlineBinary" => {
                    out.push_str("<InlineBinary>");
                    push_text(out, &map.next_value::<Cow<'de, str>>()?);
                    out.push_str("</InlineBinary>");
                }
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        out.push_str("</DicomAttribute>");
        Ok(first)
    }
}

/// Writes the values of one element.
struct ValuesXml<'o> {
    out: &'o mut String,
    vr: &'o str,
    first: &'o mut Option<String>,
}

impl<'de> DeserializeSeed<'de> for ValuesXml<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for ValuesXml<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("values")
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut values: S) -> Result<(), S::Error> {
        let Self { out, vr, first } = self;
        let mut number = 1;
        while values.next_element_seed(ValueXml { out: &mut *out, vr, number, first: &mut *first })?.is_some() {
            number += 1;
        }
        Ok(())
    }
}

/// Writes one value. An empty value among others has a number and no element.
struct ValueXml<'o> {
    out: &'o mut String,
    vr: &'o str,
    number: usize,
    first: &'o mut Option<String>,
}

impl ValueXml<'_> {
    fn text(self, text: &str) {
        let _ = write!(self.out, "<Value number=\"{}\">", self.number);
        push_text(self.out, text);
        self.out.push_str("</Value>");
        if self.number == 1 {
            *self.first = Some(text.to_owned());
        }
    }
}

impl<'de> DeserializeSeed<'de> for ValueXml<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ValueXml<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.text(text);
        Ok(())
    }

    fn visit_u64<E>(self, number: u64) -> Result<(), E> {
        self.text(&number.to_string());
        Ok(())
    }

    fn visit_i64<E>(self, number: i64) -> Result<(), E> {
        self.text(&number.to_string());
        Ok(())
    }

    fn visit_f64<E>(self, number: f64) -> Result<(), E> {
        self.text(&number.to_string());
        Ok(())
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<(), M::Error> {
        let Self { out, vr, number, .. } = self;
        if vr != "PN" {
            let _ = write!(out, "<Item number=\"{number}\">");
            DataSetXml { out: &mut *out }.visit_map(map)?;
            out.push_str("</Item>");
            return Ok(());
        }
        let _ = write!(out, "<PersonName number=\"{number}\">");
        while let Some((group, name)) = map.next_entry::<String, String>()? {
            // Our writers only have the groups of F.2.2, which are the names in XML as well.
            let _ = write!(out, "<{group}>");
            for (part, text) in NAME_PARTS.iter().zip(name.split('^')).filter(|(_, text)| !text.is_empty()) {
                let _ = write!(out, "<{part}>");
                push_text(out, text);
                let _ = write!(out, "</{part}>");
            }
            let _ = write!(out, "</{group}>");
        }
        out.push_str("</PersonName>");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(json: &str) -> String {
        let mut out = String::new();
        push(&mut out, json).unwrap();
        out.strip_prefix(START).unwrap().strip_suffix("</NativeDicomModel>\n").unwrap().to_owned()
    }

    // PS3.19 A.1.6.
    #[test]
    fn elements_of_every_kind_are_written() {
        assert_eq!(
            model(r#"{"00080060":{"vr":"CS","Value":["CT",null,"MR"]},"00081030":{"vr":"LO"}}"#),
            "<DicomAttribute tag=\"00080060\" vr=\"CS\" keyword=\"Modality\"><Value number=\"1\">CT</Value>\
             <Value number=\"3\">MR</Value></DicomAttribute>\
             <DicomAttribute tag=\"00081030\" vr=\"LO\" keyword=\"StudyDescription\"></DicomAttribute>"
        );
        assert_eq!(
            model(r#"{"00100010":{"vr":"PN","Value":[{"Alphabetic":"A^B^^D","Ideographic":"山田^太郎"}]}}"#),
            "<DicomAttribute tag=\"00100010\" vr=\"PN\" keyword=\"PatientName\"><PersonName number=\"1\">\
             <Alphabetic><FamilyName>A</FamilyName><GivenName>B</GivenName><NamePrefix>D</NamePrefix></Alphabetic>\
             <Ideographic><FamilyName>山田</FamilyName><GivenName>太郎</GivenName></Ideographic>\
             </PersonName></DicomAttribute>"
        );
        assert_eq!(
            model(r#"{"00081140":{"vr":"SQ","Value":[{},{"00200013":{"vr":"IS","Value":[-7]}}]}}"#),
            "<DicomAttribute tag=\"00081140\" vr=\"SQ\" keyword=\"ReferencedImageSequence\"><Item number=\"1\"></Item>\
             <Item number=\"2\"><DicomAttribute tag=\"00200013\" vr=\"IS\" keyword=\"InstanceNumber\">\
             <Value number=\"1\">-7</Value></DicomAttribute></Item></DicomAttribute>"
        );
        assert_eq!(
            model(
                r#"{"7FE00010":{"vr":"OW","BulkDataURI":"http://a/b?c&d"},"00420011":{"vr":"OB","InlineBinary":"AA=="}}"#
            ),
            "<DicomAttribute tag=\"7FE00010\" vr=\"OW\" keyword=\"PixelData\"><BulkData uri=\"http://a/b?c&amp;d\"/>\
             </DicomAttribute><DicomAttribute tag=\"00420011\" vr=\"OB\" keyword=\"EncapsulatedDocument\">\
             <InlineBinary>AA==</InlineBinary></DicomAttribute>"
        );
    }

    #[test]
    fn private_elements_name_their_creator() {
        let json = r#"{"00290010":{"vr":"LO","Value":["A & B"]},"00291001":{"vr":"DS","Value":[1.5]}}"#;
        assert_eq!(
            model(json),
            "<DicomAttribute tag=\"00290010\" vr=\"LO\"><Value number=\"1\">A &amp; B</Value></DicomAttribute>\
             <DicomAttribute tag=\"00290001\" vr=\"DS\" privateCreator=\"A &amp; B\"><Value number=\"1\">1.5</Value>\
             </DicomAttribute>"
        );
    }

    #[test]
    fn text_cannot_break_out_of_its_element() {
        let mut out = String::new();
        push_text(&mut out, "</Value><script>\"\u{1}\r\n\u{FFFF}");
        assert_eq!(out, "&lt;/Value&gt;&lt;script&gt;&quot;\u{FFFD}&#13;&#10;\u{FFFD}");
    }
}
