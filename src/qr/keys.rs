//! Keys as typed on the command line: `PatientName=SMITH*`, `0020000D=1.2.3`, `StudyDescription`.

use dicom_core::dictionary::{DataDictionary, DataDictionaryEntry};
use dicom_core::{Tag, VR};
use dicom_dictionary_std::StandardDataDictionary;
use dicom_dictionary_std::tags;

use super::identifier::{Identifier, vr_in_dictionary};
use super::parse::is_only_answered;
use crate::encoding::charset::CharacterSets;
use crate::encoding::tag::parse_tag;
use crate::encoding::vr::is_text;
use crate::model::attribute::{ATTRIBUTES, Attribute, KeyType, ValueSource};
use crate::model::declared::{DeclaredSet, SelectorStep, is_private_creator};
use crate::model::level::QueryRetrieveLevel;
use crate::model::matching::{KeyElement, KeyValue};
use crate::model::value;

/// Reason why a text is not a valid key. The message never contains the value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The name is neither a keyword nor a tag.
    #[error("`{name}` is neither a keyword of the DICOM data dictionary nor a tag{}", suggestion(.near))]
    UnknownName {
        /// The name as given.
        name: String,
        /// The attribute of the index that was probably meant.
        near: Option<&'static str>,
    },
    /// A dot follows an element that is not a sequence.
    #[error("`{0}` is not a sequence")]
    NotASequence(String),
    /// A value is given for a sequence itself.
    #[error("`{0}` is a sequence: name an attribute in it, as in `{0}.CodeValue=...`")]
    IsASequence(String),
    /// Two values are given for one attribute. One of them would be passed over.
    #[error("`{0}` is given twice: a key takes one value, a range, or values with a backslash between")]
    Twice(String),
}

fn suggestion(near: &Option<&'static str>) -> String {
    near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default()
}

/// Builds an Identifier from a level and keys.
///
/// A key is `KEY` (to be returned) or `KEY=VALUE` (to be matched and returned). KEY is a keyword,
/// eight hexadecimal digits, or `gggg,eeee`. Dots lead into sequences:
/// `ProcedureCodeSequence.CodeValue=X`.
///
/// # Errors
/// Fails if a text is not a valid key.
pub fn identifier<'a>(
    level: QueryRetrieveLevel,
    keys: impl IntoIterator<Item = &'a str>,
) -> Result<Identifier, KeyError> {
    identifier_with(level, keys, DeclaredSet::none())
}

/// Works as [`identifier`], and also knows the names of declared attributes.
///
/// # Errors
/// Fails if a text is not a valid key.
pub fn identifier_with<'a>(
    level: QueryRetrieveLevel,
    keys: impl IntoIterator<Item = &'a str>,
    declared: &DeclaredSet,
) -> Result<Identifier, KeyError> {
    let mut elements = vec![KeyElement {
        tag: tags::QUERY_RETRIEVE_LEVEL,
        vr: VR::CS,
        value: KeyValue::Text(level.as_str().to_owned()),
    }];
    for key in keys {
        let (path, value) = match key.split_once('=') {
            Some((path, value)) => (path, Some(value)),
            None => (key, None),
        };
        match declared.by_name(path.trim()) {
            Some(attribute) => add_declared(&mut elements, &attribute.path, attribute.vr, value)
                .map_err(|GivenTwice| KeyError::Twice(attribute.name.clone()))?,
            None => add(&mut elements, path, value)?,
        }
    }
    Ok(Identifier { elements, character_set: String::new() })
}

/// Returns the return keys for a query that names none.
///
/// They are the unique and required keys of the level and the levels above. The counts of related
/// entities and some descriptive attributes of the level are added.
#[must_use]
pub fn default_return_keys(level: QueryRetrieveLevel) -> Vec<&'static Attribute> {
    let worth_showing = |attribute: &&Attribute| {
        attribute.level <= level && matches!(attribute.key, KeyType::Unique | KeyType::Required)
            || attribute.level == level
                && attribute.keyword.starts_with("NumberOf")
                && attribute.source == ValueSource::Computed
            || attribute.level == level
                && matches!(
                    attribute.keyword,
                    "PatientBirthDate" | "PatientSex" | "StudyDescription" | "ModalitiesInStudy" | "SeriesDescription"
                )
    };
    ATTRIBUTES.iter().filter(worth_showing).collect()
}

/// Whether a value of this attribute narrows the answers.
#[must_use]
pub fn narrows(attribute: &Attribute) -> bool {
    attribute.source != ValueSource::AlwaysEmpty && !is_only_answered(attribute.id)
}

/// Returns the value representation of an element in the data dictionary. It is UN for an element
/// that the dictionary does not have.
#[must_use]
pub fn vr(tag: Tag) -> VR {
    vr_in_dictionary(tag)
}

/// Returns the keyword of an element. An element that the dictionary does not have is shown as
/// `gggg,eeee`.
#[must_use]
pub fn keyword(tag: Tag) -> String {
    match StandardDataDictionary.by_tag(tag) {
        Some(entry) if entry.tag() == tag => entry.alias().to_owned(),
        _ => format!("{:04X},{:04X}", tag.0, tag.1),
    }
}

/// Another value for a key that has one.
struct GivenTwice;

/// Gives a key its value. A key without one is answered and not matched.
fn give(text: &mut String, vr: VR, value: Option<&str>) -> Result<(), GivenTwice> {
    let value = value.map(|value| as_in_an_identifier(vr, value)).filter(|value| !value.is_empty());
    match value {
        Some(value) if text.is_empty() => *text = value,
        Some(value) if value != *text => return Err(GivenTwice),
        Some(_) | None => {}
    }
    Ok(())
}

/// The value of a key as a C-FIND has it: without padding, and with dates of old forms.
///
/// A value of padding and delimiters only stays as it is. It would become a key without a value.
fn as_in_an_identifier(vr: VR, value: &str) -> String {
    let mut text = String::new();
    if is_text(vr) {
        value::push_text(&mut text, vr, false, value.as_bytes(), &CharacterSets::new("ISO_IR 192"));
    }
    if text.is_empty() { value.to_owned() } else { text }
}

/// Adds a declared attribute to the elements of a data set.
fn add_declared(
    elements: &mut Vec<KeyElement>,
    path: &[SelectorStep],
    vr: VR,
    value: Option<&str>,
) -> Result<(), GivenTwice> {
    let Some((step, inner)) = path.split_first() else { return Ok(()) };
    let tag = match step {
        SelectorStep::Public(tag) => *tag,
        SelectorStep::Private { group, element, creator } => {
            let block = block_of(elements, *group, creator);
            Tag(*group, block << 8 | u16::from(*element))
        }
    };
    let own_vr = if inner.is_empty() { vr } else { VR::SQ };
    let at = elements.iter().position(|element| element.tag == tag).unwrap_or_else(|| {
        let value = if own_vr == VR::SQ { KeyValue::Items(Vec::new()) } else { KeyValue::Text(String::new()) };
        elements.push(KeyElement { tag, vr: own_vr, value });
        elements.len() - 1
    });
    match elements.get_mut(at).map(|element| &mut element.value) {
        Some(KeyValue::Items(items)) if !inner.is_empty() => {
            if items.is_empty() {
                items.push(Vec::new());
            }
            items.first_mut().map_or(Ok(()), |item| add_declared(item, inner, vr, value))
        }
        Some(KeyValue::Text(text)) => give(text, vr, value),
        Some(KeyValue::Items(_)) | None => Ok(()),
    }
}

/// Returns the block of a private creator in a data set. If the creator has none yet, it reserves
/// the next free block.
fn block_of(elements: &mut Vec<KeyElement>, group: u16, creator: &str) -> u16 {
    let mut block = 0x10;
    for element in elements.iter().filter(|element| element.tag.group() == group && is_private_creator(element.tag)) {
        if matches!(&element.value, KeyValue::Text(text) if text == creator) {
            return element.tag.element();
        }
        block = block.max(element.tag.element() + 1);
    }
    let value = KeyValue::Text(creator.to_owned());
    elements.push(KeyElement { tag: Tag(group, block), vr: VR::LO, value });
    block
}

/// Adds a key to the elements of a data set.
fn add(elements: &mut Vec<KeyElement>, path: &str, value: Option<&str>) -> Result<(), KeyError> {
    let (name, rest) = match path.split_once('.') {
        Some((name, rest)) => (name, Some(rest)),
        None => (path, None),
    };
    let tag = tag(name.trim())?;
    let vr = vr_in_dictionary(tag);
    let at = match elements.iter().position(|element| element.tag == tag) {
        Some(at) => at,
        None => {
            let value = if vr == VR::SQ { KeyValue::Items(Vec::new()) } else { KeyValue::Text(String::new()) };
            elements.push(KeyElement { tag, vr, value });
            elements.len() - 1
        }
    };
    let Some(element) = elements.get_mut(at) else { return Ok(()) };
    match (&mut element.value, rest, value) {
        (KeyValue::Items(items), Some(rest), value) => {
            if items.is_empty() {
                items.push(Vec::new());
            }
            items.first_mut().map_or(Ok(()), |item| add(item, rest, value))
        }
        (KeyValue::Text(_), Some(_), _) => Err(KeyError::NotASequence(name.to_owned())),
        (KeyValue::Items(_), None, Some(value)) if !value.is_empty() => Err(KeyError::IsASequence(name.to_owned())),
        (KeyValue::Text(text), None, value) => {
            give(text, vr, value).map_err(|GivenTwice| KeyError::Twice(name.to_owned()))
        }
        (KeyValue::Items(_), None, _) => Ok(()),
    }
}

/// Returns the tag that a name stands for: a keyword, eight hexadecimal digits, or `gggg,eeee`.
///
/// # Errors
/// Fails if the name is neither a keyword nor a tag.
pub fn tag(name: &str) -> Result<Tag, KeyError> {
    let digits: String = name.trim_matches(['(', ')']).chars().filter(|c| *c != ',').collect();
    if let Some(tag) = parse_tag(&digits) {
        return Ok(tag);
    }
    if let Some(entry) = StandardDataDictionary.by_name(name) {
        return Ok(entry.tag());
    }
    let folded = name.to_ascii_lowercase();
    // If only the case differs, that keyword was meant. Otherwise the nearest keyword is suggested.
    if let Some(attribute) = ATTRIBUTES.iter().find(|attribute| attribute.keyword.to_ascii_lowercase() == folded) {
        return Ok(attribute.tag);
    }
    let near = ATTRIBUTES
        .iter()
        .map(|attribute| (edits(&folded, &attribute.keyword.to_ascii_lowercase()), attribute.keyword))
        .min()
        .filter(|(edits, keyword)| *edits <= 1 + keyword.len() / 6)
        .map(|(_, keyword)| keyword);
    Err(KeyError::UnknownName { name: name.to_owned(), near })
}

/// Returns the number of letters to change, add or remove to turn one word into the other
/// (Levenshtein).
fn edits(one: &str, other: &str) -> usize {
    let other = other.as_bytes();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (line, byte) in one.bytes().take(64).enumerate() {
        let mut diagonal = line;
        let mut left = line + 1;
        for (above, wanted) in row.iter_mut().skip(1).zip(other) {
            let value = (diagonal + usize::from(byte != *wanted)).min(left + 1).min(*above + 1);
            diagonal = *above;
            *above = value;
            left = value;
        }
        if let Some(first) = row.first_mut() {
            *first = line + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elements(keys: &[&str]) -> Vec<KeyElement> {
        identifier(QueryRetrieveLevel::Study, keys.iter().copied()).unwrap().elements.split_off(1)
    }

    fn element(tag: Tag, vr: VR, text: &str) -> KeyElement {
        KeyElement { tag, vr, value: KeyValue::Text(text.into()) }
    }

    #[test]
    fn a_key_is_a_keyword_or_a_tag() {
        let name = element(Tag(0x0010, 0x0010), VR::PN, "SMITH^*=x");
        for key in [
            "PatientName=SMITH^*=x",
            "patientname=SMITH^*=x",
            "00100010=SMITH^*=x",
            "0010,0010=SMITH^*=x",
            "(0010,0010)=SMITH^*=x",
        ] {
            assert!(elements(&[key]) == [name.clone()], "{key}");
        }
        assert_eq!(elements(&["StudyDate"]), [element(Tag(0x0008, 0x0020), VR::DA, "")]);
        assert_eq!(elements(&["00091001=x"]), [element(Tag(0x0009, 0x1001), VR::UN, "x")]);
    }

    #[test]
    fn dots_lead_into_sequences() {
        let keys = ["ProcedureCodeSequence.CodeValue=A", "ProcedureCodeSequence.CodeMeaning", "ProcedureCodeSequence"];
        let item = vec![element(Tag(0x0008, 0x0100), VR::SH, "A"), element(Tag(0x0008, 0x0104), VR::LO, "")];
        assert_eq!(
            elements(&keys),
            [KeyElement { tag: Tag(0x0008, 0x1032), vr: VR::SQ, value: KeyValue::Items(vec![item]) }]
        );
    }

    #[test]
    fn what_is_no_key_is_refused_with_a_hint() {
        let refused = |key| identifier(QueryRetrieveLevel::Study, [key]).unwrap_err().to_string();
        assert!(refused("PatientNam=SECRET").ends_with("did you mean `PatientName`?"));
        assert!(!refused("PatientNam=SECRET").contains("SECRET"));
        assert!(!refused("nonsense").contains("mean"));
        assert!(refused("PatientName.X=1").contains("is not a sequence"));
        assert!(refused("ProcedureCodeSequence=1").contains("is a sequence"));
        assert!(refused("ProcedureCodeSequence.X=1").contains("`X`"));
    }

    #[test]
    fn defaults_are_the_keys_of_the_level_and_those_above() {
        let keywords: Vec<_> =
            default_return_keys(QueryRetrieveLevel::Study).iter().map(|attribute| attribute.keyword).collect();
        for wanted in ["PatientID", "StudyInstanceUID", "StudyDate", "NumberOfStudyRelatedInstances"] {
            assert!(keywords.contains(&wanted), "{wanted}");
        }
        assert!(!keywords.contains(&"Modality") && !keywords.contains(&"NumberOfPatientRelatedStudies"));
    }
}
