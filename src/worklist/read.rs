//! Items in files: Part 10, a bare data set, or JSON.

use dicom_dictionary_std::tags;
use serde_json::Value;

use super::item::{JsonItemError, WorklistItem};
use crate::encoding::padding::without_trailing_padding;
use crate::encoding::syntax::Encoding;
use crate::encoding::vr;
use crate::qr::{Identifier, IdentifierError, MAX_IDENTIFIER_LENGTH};

/// Maximum length of a file with an item, in bytes. Real ones have some kilobytes.
pub const MAX_ITEM_LENGTH: usize = MAX_IDENTIFIER_LENGTH;

/// Maximum number of elements of a data set, those of its items included.
const MAX_ELEMENTS: usize = 10_000;

/// Length of the preamble and of `DICM`.
const PREFIX: usize = 132;

/// Reason why bytes are no item. The message has no value of the item.
#[derive(Debug, thiserror::Error)]
pub enum ReadItemError {
    /// There are none.
    #[error("it is empty")]
    Empty,
    /// There are too many.
    #[error("it is longer than {MAX_ITEM_LENGTH} bytes")]
    TooLong,
    /// They are neither a data set nor JSON.
    #[error("it is neither a DICOM data set nor JSON")]
    NoDataSet,
    /// The data set has a transfer syntax for pixel data.
    #[error("its transfer syntax is none of a worklist item")]
    TransferSyntax,
    /// The data set is damaged.
    #[error("its data set is damaged: {0}")]
    DataSet(#[from] IdentifierError),
    /// The JSON is damaged.
    #[error("it is no JSON: line {0}, column {1}")]
    Json(usize, usize),
    /// The JSON is something else.
    #[error("it is JSON, but neither an object nor a list of objects")]
    OtherJson,
    /// The JSON object is no item.
    #[error(transparent)]
    Item(#[from] JsonItemError),
    /// It says nothing of a scheduled procedure step.
    #[error("it has neither a patient nor a scheduled procedure step")]
    NoItem,
}

/// Reads the items of a file. There is one for each scheduled procedure step.
///
/// # Errors
/// Fails if the bytes are no item: see [`ReadItemError`].
pub fn read_items(bytes: &[u8], assumed_character_set: &str) -> Result<Vec<WorklistItem>, ReadItemError> {
    if bytes.len() > MAX_ITEM_LENGTH {
        return Err(ReadItemError::TooLong);
    }
    let without_mark = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    let first = without_mark.iter().find(|byte| !byte.is_ascii_whitespace());
    let items = match first {
        None => return Err(ReadItemError::Empty),
        Some(b'{' | b'[') if !is_part_10(bytes) => of_json(without_mark)?,
        Some(_) => vec![of_data_set(bytes, assumed_character_set)?],
    };
    let mut items: Vec<_> = items.into_iter().flat_map(WorklistItem::by_step).collect();
    items.iter_mut().for_each(WorklistItem::gather_step);
    let says_something = |item: &WorklistItem| item.step().is_some() || !item.text(tags::PATIENT_ID).is_empty();
    if items.is_empty() || !items.iter().all(says_something) {
        return Err(ReadItemError::NoItem);
    }
    Ok(items)
}

fn is_part_10(bytes: &[u8]) -> bool {
    bytes.get(PREFIX - 4..PREFIX) == Some(b"DICM")
}

fn of_json(bytes: &[u8]) -> Result<Vec<WorklistItem>, ReadItemError> {
    let json: Value =
        serde_json::from_slice(bytes).map_err(|error| ReadItemError::Json(error.line(), error.column()))?;
    let one = |value: &Value| match value {
        Value::Object(object) => WorklistItem::from_json(object).map_err(ReadItemError::from),
        _ => Err(ReadItemError::OtherJson),
    };
    match &json {
        Value::Array(list) => list.iter().map(one).collect(),
        other => Ok(vec![one(other)?]),
    }
}

fn of_data_set(bytes: &[u8], assumed_character_set: &str) -> Result<WorklistItem, ReadItemError> {
    let (encoding, start) = if is_part_10(bytes) {
        let (syntax, start) = meta_information(bytes, PREFIX)?;
        let syntax = syntax.ok_or(ReadItemError::TransferSyntax)?;
        (Encoding::of_uid(&syntax).ok_or(ReadItemError::TransferSyntax)?, start)
    } else if bytes.starts_with(&[2, 0]) {
        // Some writers leave the preamble out.
        let (syntax, start) = meta_information(bytes, 0)?;
        let known = syntax.as_deref().and_then(Encoding::of_uid);
        (known.or_else(|| sniffed(bytes.get(start..)?)).ok_or(ReadItemError::NoDataSet)?, start)
    } else {
        (sniffed(bytes).ok_or(ReadItemError::NoDataSet)?, 0)
    };
    let rest = bytes.get(start..).unwrap_or_default();
    let identifier = Identifier::decode_up_to(rest, encoding, assumed_character_set, MAX_ELEMENTS)?;
    let Identifier { mut elements, character_set } = identifier;
    elements.retain(|element| element.tag.group() >= 0x0008);
    let character_set = if character_set.is_empty() { assumed_character_set.to_owned() } else { character_set };
    Ok(WorklistItem::new(elements, character_set))
}

/// Reads the File Meta Information (PS3.10 7.1), which is in Explicit VR Little Endian. Returns the
/// transfer syntax of the data set and where it begins.
fn meta_information(bytes: &[u8], mut at: usize) -> Result<(Option<String>, usize), ReadItemError> {
    let mut syntax = None;
    while bytes.get(at..).is_some_and(|rest| rest.starts_with(&[2, 0])) {
        let rest = bytes.get(at..).unwrap_or_default();
        let header = Encoding::ExplicitLittle.header(rest).map_err(|_| ReadItemError::NoDataSet)?;
        let length = usize::try_from(header.length).map_err(|_| ReadItemError::NoDataSet)?;
        let end = header.size.checked_add(length).ok_or(ReadItemError::NoDataSet)?;
        let value = rest.get(header.size..end).ok_or(ReadItemError::NoDataSet)?;
        if header.tag == crate::encoding::tag::tag_number(tags::TRANSFER_SYNTAX_UID) {
            syntax = Some(without_trailing_padding(&String::from_utf8_lossy(value)).to_owned());
        }
        at += end;
    }
    Ok((syntax, at))
}

/// Recognises the encoding of a bare data set by its first element. The groups of an item are
/// small, so one byte of the number is zero.
fn sniffed(bytes: &[u8]) -> Option<Encoding> {
    let [g0, g1, _, _, v0, v1, ..] = *bytes.first_chunk::<8>()?;
    let is_explicit = vr::of([v0, v1]).is_some();
    match (g0, g1) {
        (0x08..=0x50, 0) if is_explicit => Some(Encoding::ExplicitLittle),
        (0x08..=0x50, 0) => Some(Encoding::ImplicitLittle),
        (0, 0x08..=0x50) if is_explicit => Some(Encoding::ExplicitBig),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoding::data_set::push_element;
    use dicom_core::VR;

    fn data_set(encoding: Encoding) -> Vec<u8> {
        let mut bytes = Vec::new();
        push_element(encoding, &mut bytes, tags::SPECIFIC_CHARACTER_SET, VR::CS, b"ISO_IR 100");
        push_element(encoding, &mut bytes, tags::PATIENT_NAME, VR::PN, b"M\xFCller^J\xFCrgen");
        push_element(encoding, &mut bytes, tags::PATIENT_ID, VR::LO, b"P1");
        bytes
    }

    #[test]
    fn a_data_set_is_read_with_and_without_meta_information() {
        for encoding in Encoding::ALL {
            let bare = data_set(encoding);
            let mut meta = Vec::new();
            let uid = encoding.uid().as_bytes();
            push_element(Encoding::ExplicitLittle, &mut meta, tags::TRANSFER_SYNTAX_UID, VR::UI, uid);
            let part_10 = [&[0; 128], b"DICM".as_slice(), &meta, &bare].concat();
            let without_preamble = [meta.as_slice(), &bare].concat();
            for bytes in [&bare, &part_10, &without_preamble] {
                let items = read_items(bytes, "").unwrap();
                assert_eq!(items.len(), 1);
                assert_eq!(
                    (items[0].text(tags::PATIENT_NAME), items[0].text(tags::PATIENT_ID)),
                    ("Müller^Jürgen", "P1")
                );
                assert_eq!(items[0].character_set, "ISO_IR 100");
            }
        }
    }

    #[test]
    fn what_is_no_item_is_refused_with_its_reason() {
        let cut = &data_set(Encoding::ExplicitLittle)[..30];
        let mut meta = Vec::new();
        push_element(Encoding::ExplicitLittle, &mut meta, tags::TRANSFER_SYNTAX_UID, VR::UI, b"1.2.840.10008.1.2.4.50");
        let jpeg = [&[0; 128], b"DICM".as_slice(), &meta].concat();
        for (bytes, reason) in [
            (b"".as_slice(), "it is empty"),
            (b" \n", "it is empty"),
            (b"hello, world", "it is neither a DICOM data set nor JSON"),
            (b"{\"PatientID\": ", "it is no JSON: line 1, column 14"),
            (b"[1]", "it is JSON, but neither an object nor a list of objects"),
            (b"{}", "it has neither a patient nor a scheduled procedure step"),
            (b"[]", "it has neither a patient nor a scheduled procedure step"),
            (cut, "its data set is damaged: element (0010,0010) is cut off"),
            (&jpeg, "its transfer syntax is none of a worklist item"),
        ] {
            assert_eq!(read_items(bytes, "").unwrap_err().to_string(), reason);
        }
    }
}
