//! Reads what the configuration declares in addition to the table of attributes.
//!
//! A declaration names a path of elements, a level and perhaps a creator, a VR and a name. What
//! cannot be declared is refused with its reason.

use std::str::FromStr;
use std::sync::Arc;

use dicom_core::dictionary::{DataDictionary, DataDictionaryEntry};
use dicom_core::{Tag, VR};
use dicom_dictionary_std::StandardDataDictionary;

use super::attribute::{ATTRIBUTES, Attribute, Multiplicity, ValueSource};
use super::declared::{Declared, DeclaredColumn, DeclaredSet, KeptNode, SelectorStep, Unit};
use super::level::QueryRetrieveLevel;
use super::matching::multiplicity_of;
use crate::encoding::tag::parse_tag;
use crate::encoding::vr::is_binary;

/// Maximum number of declared attributes. Each one costs a check of every object, and space in
/// every row that has a value.
pub const MAX_DECLARED: usize = 128;

/// Maximum number of sequences in a path.
pub const MAX_PATH: usize = 8;

/// Maximum number of characters of a private creator (LO, PS3.5 6.2).
const MAX_CREATOR: usize = 64;

/// A declaration as written in the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Declaration {
    /// Keyword, tag, or path into sequences: `Sequence[*].Element`.
    pub path: String,
    /// Private creator of the private elements in the path.
    pub creator: Option<String>,
    /// `PATIENT`, `STUDY`, `SERIES` or `IMAGE`.
    pub level: String,
    /// Value representation. It may be omitted if the dictionary has the element.
    pub vr: Option<String>,
    /// Name of the attribute. It may be omitted.
    pub name: Option<String>,
}

/// Reason why a declaration cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeclarationError {
    /// A step of the path is not a known element.
    #[error("`{step}` is neither a keyword nor a tag (gggg,eeee; private: ggggxxee){}", suggestion(.near))]
    UnknownStep {
        /// The step as given.
        step: String,
        /// The keyword that was probably meant.
        near: Option<String>,
    },
    /// A private element has no creator, or a creator is given without a private element.
    #[error("{0}")]
    Creator(&'static str),
    /// A private element is given with a fixed block.
    #[error("`{0}` is private: its block differs from object to object, so write it as `{1}` with its creator")]
    FixedBlock(String, String),
    /// The element is not an attribute of an object, or the header reader does not reach it.
    #[error("`{0}` cannot be declared: {1}")]
    NotAllowed(String, &'static str),
    /// The path leads through an element that is not a sequence.
    #[error("`{0}` is not a sequence")]
    NotASequence(String),
    /// The level is unknown.
    #[error("`{0}` is not a level; use PATIENT, STUDY, SERIES or IMAGE")]
    UnknownLevel(String),
    /// The VR is unknown, or it cannot be searched.
    #[error("`{0}` is not a value representation that can be searched")]
    UnknownVr(String),
    /// The VR is missing, and the dictionary does not have the element.
    #[error("`vr` is missing: the dictionary does not have `{0}`")]
    MissingVr(String),
    /// The VR differs from that of the dictionary.
    #[error("`{0}` is {1} in the dictionary, not {2}")]
    OtherVr(String, String, String),
    /// The attribute is already in the table.
    #[error("`{0}` needs no declaration: the index already keeps it at the {1} level")]
    InTable(String, QueryRetrieveLevel),
    /// Its sequence belongs to another level.
    #[error("the index keeps `{0}` at the {1} level: declare it there")]
    OtherLevel(String, QueryRetrieveLevel),
    /// The same path is declared twice.
    #[error("`{0}` is declared twice")]
    Twice(String),
    /// Another attribute has the name.
    #[error("the name `{0}` is taken; set another `name`")]
    NameTaken(String),
    /// The name has invalid characters.
    #[error("`{0}` is not a valid name: use a letter, then letters, digits and `_`, at most 64 in all")]
    InvalidName(String),
    /// There are more than [`MAX_DECLARED`] declarations.
    #[error("more than {MAX_DECLARED} attributes are declared")]
    TooMany,
}

fn suggestion(near: &Option<String>) -> String {
    near.as_ref().map(|near| format!("; did you mean `{near}`?")).unwrap_or_default()
}

impl DeclaredSet {
    /// Checks the declarations. Each one that cannot be used is passed to `refuse` with its number.
    pub fn new(declarations: &[Declaration], mut refuse: impl FnMut(usize, DeclarationError)) -> Self {
        let mut attributes: Vec<Declared> = Vec::new();
        for (number, declaration) in declarations.iter().enumerate() {
            if number >= MAX_DECLARED {
                refuse(number, DeclarationError::TooMany);
                break;
            }
            match declared(declaration, &attributes) {
                Ok(attribute) => attributes.push(attribute),
                Err(error) => refuse(number, error),
            }
        }
        let units = units(&mut attributes);
        Self::of_units(attributes, units)
    }
}

/// Checks one declaration. `before` are those that were declared before it.
fn declared(declaration: &Declaration, before: &[Declared]) -> Result<Declared, DeclarationError> {
    use DeclarationError as Error;
    let level =
        QueryRetrieveLevel::parse(&declaration.level).ok_or_else(|| Error::UnknownLevel(declaration.level.clone()))?;
    let creator = creator_of(declaration)?;
    let (path, dictionary) = path_of(declaration, creator)?;
    let vr = vr_of(declaration, dictionary)?;
    let shown = path.iter().map(ToString::to_string).collect::<Vec<_>>().join(".");
    let kept = place_of(&path, &shown, level)?;
    if before.iter().any(|other| other.path == path) {
        return Err(Error::Twice(shown));
    }
    let other_level = before.iter().find(|other| other.path.first() == path.first() && other.level != level);
    if let Some(other) = other_level {
        return Err(Error::OtherLevel(shown, other.level));
    }
    let name = name_of(declaration, &path, before)?;
    Ok(Declared { name, path, level, vr, kept })
}

/// Returns the private creator of a declaration.
fn creator_of(declaration: &Declaration) -> Result<Option<&str>, DeclarationError> {
    use DeclarationError as Error;
    match declaration.creator.as_deref().map(|text| text.trim_matches(' ')) {
        Some("") => Err(Error::Creator("`creator` is empty")),
        Some(text)
            if text.contains('\\') || !text.bytes().all(|b| matches!(b, b' '..=b'~')) || text.len() > MAX_CREATOR =>
        {
            Err(Error::Creator(
                "`creator` is not a valid private creator: it has at most 64 ASCII characters and no backslash",
            ))
        }
        other => Ok(other),
    }
}

/// Returns the path of a declaration, and the VR that the dictionary has for its last element.
fn path_of(
    declaration: &Declaration,
    creator: Option<&str>,
) -> Result<(Vec<SelectorStep>, Option<VR>), DeclarationError> {
    use DeclarationError as Error;
    let texts: Vec<&str> = declaration.path.split('.').map(str::trim).collect();
    if texts.len() > MAX_PATH + 1 {
        return Err(Error::NotAllowed(declaration.path.clone(), "its path is too long"));
    }
    let mut path = Vec::new();
    let mut dictionary = None;
    for (at, text) in texts.iter().enumerate() {
        let is_last = at + 1 == texts.len();
        let bare = text.strip_suffix("[*]").unwrap_or(text);
        let (step, vr) = step(bare, creator)?;
        if !is_last && vr.is_some_and(|vr| vr != VR::SQ) {
            return Err(Error::NotASequence(bare.to_owned()));
        }
        dictionary = vr;
        path.push(step);
    }
    if creator.is_some() && !has_private_step(&path) {
        return Err(Error::Creator("`creator` is given, but the path has no private element"));
    }
    Ok((path, dictionary))
}

fn has_private_step(path: &[SelectorStep]) -> bool {
    path.iter().any(|step| matches!(step, SelectorStep::Private { .. }))
}

/// Returns the VR of a declaration. It must be that of the dictionary, if the dictionary has one.
fn vr_of(declaration: &Declaration, dictionary: Option<VR>) -> Result<VR, DeclarationError> {
    use DeclarationError as Error;
    let vr = match (&declaration.vr, dictionary) {
        (None, Some(vr)) => vr,
        (None, None) => return Err(Error::MissingVr(declaration.path.clone())),
        (Some(text), dictionary) => {
            let vr = VR::from_str(&text.to_ascii_uppercase()).map_err(|_| Error::UnknownVr(text.clone()))?;
            if let Some(own) = dictionary.filter(|own| *own != vr) {
                let own = own.to_string().to_owned();
                return Err(Error::OtherVr(declaration.path.clone(), own, vr.to_string().to_owned()));
            }
            vr
        }
    };
    if is_binary(vr) { Err(Error::UnknownVr(vr.to_string().to_owned())) } else { Ok(vr) }
}

/// Returns where the index keeps the values of a path.
fn place_of(path: &[SelectorStep], shown: &str, level: QueryRetrieveLevel) -> Result<DeclaredColumn, DeclarationError> {
    use DeclarationError as Error;
    let root = match path.first() {
        Some(SelectorStep::Public(tag)) => Attribute::by_tag(*tag),
        Some(SelectorStep::Private { .. }) | None => None,
    };
    match root {
        // The number is set once all units are known.
        None => Ok(DeclaredColumn::Unit(usize::MAX)),
        Some(attribute) if path.len() == 1 => Err(Error::InTable(shown.to_owned(), attribute.level)),
        Some(attribute) if attribute.source != ValueSource::DataSet => {
            Err(Error::NotAllowed(shown.to_owned(), "the node computes its value"))
        }
        Some(_) if has_private_step(path) => Err(Error::NotAllowed(
            shown.to_owned(),
            "private elements cannot be told apart in a sequence that is kept as a whole",
        )),
        Some(attribute) if attribute.level != level => Err(Error::OtherLevel(shown.to_owned(), attribute.level)),
        Some(attribute) => Ok(DeclaredColumn::InTable(attribute.id)),
    }
}

/// Returns the name of a declaration. No other attribute may have it.
fn name_of(declaration: &Declaration, path: &[SelectorStep], before: &[Declared]) -> Result<String, DeclarationError> {
    use DeclarationError as Error;
    let name = match &declaration.name {
        Some(name) => name.clone(),
        None => default_name(path),
    };
    let mut letters = name.chars();
    if !letters.next().is_some_and(|first| first.is_ascii_alphabetic())
        || !letters.all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
        || name.len() > 64
    {
        return Err(Error::InvalidName(name));
    }
    let is_keyword = |name: &str| ATTRIBUTES.iter().any(|attribute| attribute.keyword.eq_ignore_ascii_case(name));
    if before.iter().any(|other| other.name.eq_ignore_ascii_case(&name)) || is_keyword(&name) {
        return Err(Error::NameTaken(name));
    }
    Ok(name)
}

/// Returns the name for a declaration without one: the keywords of the path. A private element is
/// named by its creator, group and element.
fn default_name(path: &[SelectorStep]) -> String {
    let text = |step: &SelectorStep| match step {
        SelectorStep::Public(tag) if StandardDataDictionary.by_tag(*tag).is_none() => {
            format!("Tag{:04X}{:04X}", tag.0, tag.1)
        }
        SelectorStep::Public(_) => step.to_string(),
        SelectorStep::Private { group, element, creator } => {
            let creator: String = creator.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
            format!("P_{creator}_{group:04X}xx{element:02X}")
        }
    };
    let name = path.iter().map(text).collect::<Vec<_>>().join("_");
    // Several keywords can be too long. The last one is the most specific.
    if name.len() <= 64 { name } else { path.last().map(text).unwrap_or_default().chars().take(64).collect() }
}

/// Parses one step of a path. Returns its VR as well, if the dictionary has it.
fn step(text: &str, creator: Option<&str>) -> Result<(SelectorStep, Option<VR>), DeclarationError> {
    use DeclarationError as Error;
    let unknown = |near| Error::UnknownStep { step: text.to_owned(), near };
    let digits: String = text.trim_matches(['(', ')']).chars().filter(|c| !matches!(c, ',' | ' ')).collect();
    let lower = digits.to_ascii_lowercase();
    if digits.len() == 8 && lower.is_char_boundary(4) && lower.is_char_boundary(6) && lower.get(4..6) == Some("xx") {
        let group = lower.get(..4).and_then(|text| u16::from_str_radix(text, 16).ok()).ok_or_else(|| unknown(None))?;
        let element = lower.get(6..).and_then(|text| u8::from_str_radix(text, 16).ok()).ok_or_else(|| unknown(None))?;
        if group % 2 == 0 {
            return Err(Error::NotAllowed(text.to_owned(), "the group of a private element is odd"));
        }
        not_past_the_header(group, text)?;
        let creator = creator.ok_or(Error::Creator("a private element needs its `creator`"))?.to_owned();
        return Ok((SelectorStep::Private { group, element, creator }, None));
    }
    let tag = if let Some(tag) = parse_tag(&digits) {
        tag
    } else if let Some(entry) = StandardDataDictionary.by_name(text) {
        entry.tag()
    } else {
        let lower = text.to_ascii_lowercase();
        let near = ATTRIBUTES
            .iter()
            .map(|attribute| (strsim::damerau_levenshtein(&lower, &attribute.keyword.to_ascii_lowercase()), attribute))
            .min_by_key(|(edits, _)| *edits)
            .filter(|(edits, attribute)| *edits <= 1 + attribute.keyword.len() / 6)
            .map(|(_, attribute)| attribute.keyword.to_owned())
            .or_else(|| nearly_a_keyword(text));
        return Err(unknown(near));
    };
    if tag.group() % 2 == 1 {
        let block = format!("{:04X}xx{:02X}", tag.group(), tag.element() & 0xFF);
        return Err(Error::FixedBlock(text.to_owned(), block));
    }
    let not_an_attribute = tag.group() < 0x0008
        || tag.element() == 0
        || matches!(tag, Tag(0x0008, 0x0001 | 0x0005 | 0x0006 | 0x0052 | 0x0053));
    if not_an_attribute {
        return Err(Error::NotAllowed(text.to_owned(), "it is not an attribute of an entity"));
    }
    not_past_the_header(tag.group(), text)?;
    Ok((SelectorStep::Public(tag), StandardDataDictionary.by_tag(tag).map(|entry| entry.vr().relaxed())))
}

/// Looks for a keyword that differs from the given text only in case or in one letter.
///
/// The letter may be missing, added, wrong or swapped with its neighbour. The dictionary has no
/// list of its keywords, so each candidate is looked up.
fn nearly_a_keyword(text: &str) -> Option<String> {
    if text.len() > 64 || !text.is_ascii() {
        return None;
    }
    let known = |candidate: String| StandardDataDictionary.by_name(&candidate).map(|entry| entry.alias().to_owned());
    let left_out = (0..text.len()).map(|at| format!("{}{}", &text[..at], &text[at + 1..]));
    let letters = || (b'a'..=b'z').chain(b'A'..=b'Z').map(char::from);
    let changed =
        (0..text.len()).flat_map(|at| letters().map(move |c| format!("{}{c}{}", &text[..at], &text[at + 1..])));
    let added = (0..=text.len()).flat_map(|at| letters().map(move |c| format!("{}{c}{}", &text[..at], &text[at..])));
    let swapped = (1..text.len()).map(|at| {
        let (head, tail) = (&text[..at - 1], &text[at + 1..]);
        format!("{head}{}{}{tail}", &text[at..=at], &text[at - 1..at])
    });
    left_out.chain(changed).chain(added).chain(swapped).find_map(known)
}

fn not_past_the_header(group: u16, text: &str) -> Result<(), DeclarationError> {
    // The header reader stops at the pixel data.
    if group < 0x7FE0 {
        return Ok(());
    }
    Err(DeclarationError::NotAllowed(text.to_owned(), "it stands after the pixel data, which are not read"))
}

/// Groups the attributes into units and sets the unit number of each attribute.
fn units(attributes: &mut [Declared]) -> Vec<Arc<Unit>> {
    let mut roots: Vec<(SelectorStep, QueryRetrieveLevel, VR, Vec<KeptNode>, bool)> = Vec::new();
    for attribute in attributes.iter_mut() {
        let DeclaredColumn::Unit(unit) = &mut attribute.kept else { continue };
        let Some((root, inner)) = attribute.path.split_first() else { continue };
        let at = roots.iter().position(|known| known.0 == *root).unwrap_or_else(|| {
            let vr = if inner.is_empty() { attribute.vr } else { VR::SQ };
            roots.push((root.clone(), attribute.level, vr, Vec::new(), false));
            roots.len() - 1
        });
        *unit = at;
        let Some((.., nodes, whole)) = roots.get_mut(at) else { continue };
        *whole |= inner.is_empty();
        add(nodes, inner, attribute.vr);
    }
    let unit = |(number, (root, level, vr, mut items, whole)): (usize, (SelectorStep, _, VR, Vec<KeptNode>, bool))| {
        if whole {
            items.clear();
        }
        // The key of a unit must not depend on the order of the configuration.
        sort(&mut items);
        let tag = match &root {
            SelectorStep::Public(tag) => Some(*tag),
            SelectorStep::Private { .. } => None,
        };
        let multiplicity = if vr == VR::SQ { Multiplicity::One } else { multiplicity_of(tag, vr) };
        let definition = format!("{root:?} {level} {} {items:?}", vr.to_string());
        let label: String = root.to_string().chars().filter(char::is_ascii_alphanumeric).collect();
        let key = format!("+{label}_{:016x}", xxhash_rust::xxh3::xxh3_64(definition.as_bytes()));
        Arc::new(Unit { number, root, level, vr, multiplicity, items, key })
    };
    roots.into_iter().enumerate().map(unit).collect()
}

fn add(nodes: &mut Vec<KeptNode>, path: &[SelectorStep], vr: VR) {
    let Some((step, inner)) = path.split_first() else { return };
    let at = nodes.iter().position(|node| node.step == *step);
    match at.and_then(|at| nodes.get_mut(at)) {
        // The whole element is already kept.
        Some(known) if known.items.is_empty() => {}
        Some(known) if inner.is_empty() => known.items.clear(),
        Some(known) => add(&mut known.items, inner, vr),
        None => {
            let mut items = Vec::new();
            add(&mut items, inner, vr);
            let vr = if inner.is_empty() { vr } else { VR::SQ };
            nodes.push(KeptNode { step: step.clone(), vr, items });
        }
    }
}

fn sort(nodes: &mut [KeptNode]) {
    nodes.sort_by(|one, other| one.step.cmp(&other.step));
    for node in nodes {
        sort(&mut node.items);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::matching::{MatchPolicy, Matching, SeveralValues};

    fn declaration(path: &str, level: &str) -> Declaration {
        Declaration { path: path.into(), level: level.into(), ..Declaration::default() }
    }

    fn private(path: &str, creator: &str, vr: &str) -> Declaration {
        Declaration { creator: Some(creator.into()), vr: Some(vr.into()), ..declaration(path, "SERIES") }
    }

    // PS3.4 C.2.2.2.8.
    #[test]
    fn only_an_attribute_that_may_have_several_values_is_asked_for_all_of_them() {
        let set = set(&[declaration("LongCodeValue", "IMAGE"), declaration("ScanOptions", "IMAGE")]);
        let all = MatchPolicy { several_values: SeveralValues::AllOf, ..MatchPolicy::default() };
        let matches = |unit: usize, stored: &str| {
            Matching::compile(set.units()[unit].comparison(), "A\\B", &all).unwrap().matches(stored)
        };
        assert!(matches(0, "a") && matches(0, "B"), "one value at most: any of them");
        assert!(!matches(1, "A") && matches(1, "B\\A"));
    }

    #[track_caller]
    fn set(declarations: &[Declaration]) -> DeclaredSet {
        DeclaredSet::new(declarations, |number, error| panic!("{number}: {error}"))
    }

    #[track_caller]
    fn refused(declarations: &[Declaration]) -> String {
        let mut told = Vec::new();
        DeclaredSet::new(declarations, |_, error| told.push(error.to_string()));
        assert_eq!(told.len(), 1, "{told:?}");
        told.remove(0)
    }

    #[test]
    fn an_attribute_is_named_by_keyword_tag_creator_or_path() {
        let set = set(&[
            declaration("ContrastBolusAgent", "series"),
            declaration("0018,9345", "IMAGE"),
            private("0019xx0a", "ACME 1.1", "DS"),
            declaration("RequestAttributesSequence[*].ScheduledProcedureStepID", "SERIES"),
            declaration("ReferencedImageSequence[*].ReferencedSOPInstanceUID", "IMAGE"),
            declaration("ReferencedImageSequence.PurposeOfReferenceCodeSequence.CodeValue", "IMAGE"),
        ]);
        let names: Vec<_> = set.attributes().iter().map(|attribute| attribute.name.as_str()).collect();
        assert_eq!(names[..3], ["ContrastBolusAgent", "CTDIvol", "P_ACME_1_1_0019xx0A"]);
        assert_eq!(
            set.attributes()[3].kept,
            DeclaredColumn::InTable(crate::model::attribute::AttributeId::RequestAttributesSequence)
        );
        assert_eq!(set.units().len(), 4, "what lies in one sequence is one unit");
        assert_eq!(set.units()[3].items.len(), 2);
        assert_eq!(set.unit(Tag(0x0019, 0x120A), Some("ACME 1.1 ")).unwrap().number, 2);
        assert!(set.unit(Tag(0x0019, 0x120A), Some("OTHER")).is_none());
        assert!(set.unit(Tag(0x0019, 0x120A), None).is_none());
    }

    #[test]
    fn what_was_read_with_more_covers_what_asks_for_less() {
        let one = declaration("ContrastBolusAgent", "SERIES");
        let other = declaration("0018,9345", "IMAGE");
        let (first, both) = (set(std::slice::from_ref(&one)), set(&[one.clone(), other.clone()]));
        assert_eq!(both.mark(), set(&[other, one]).mark());
        assert!(first.is_covered_by(both.mark()) && !both.is_covered_by(first.mark()));
        assert!(!first.is_covered_by("") && DeclaredSet::none().is_covered_by(""));
        let elsewhere = set(&[declaration("ContrastBolusAgent", "IMAGE")]);
        assert!(!elsewhere.is_covered_by(first.mark()), "another level is another declaration");
    }

    #[test]
    fn what_cannot_be_declared_is_refused_with_the_reason() {
        for (declaration, reason) in [
            (declaration("ContrastBolusAgnt", "SERIES"), "did you mean `ContrastBolusAgent`?"),
            (declaration("PatientNam", "SERIES"), "did you mean `PatientName`?"),
            (declaration("gibberish", "SERIES"), "neither a keyword nor a tag"),
            (declaration("", "SERIES"), "neither a keyword nor a tag"),
            (declaration("0019\u{e9}xx0a", "SERIES"), "neither a keyword nor a tag"),
            (declaration("00191010", "SERIES"), "write it as `0019xx10`"),
            (declaration("0019xx10", "SERIES"), "needs its `creator`"),
            (private("0018xx10", "ACME", "DS"), "is odd"),
            (private("0019xx10", " ", "DS"), "is empty"),
            (private("0019xx10", "A\\B", "DS"), "not a valid private creator"),
            (private("0019xx10", "ACME", "OB"), "can be searched"),
            (private("0019xx10", "ACME", "QQ"), "can be searched"),
            (Declaration { vr: None, ..private("0019xx10", "ACME", "") }, "`vr` is missing"),
            (private("ContrastBolusAgent", "ACME", "LO"), "the path has no private element"),
            (Declaration { vr: Some("DS".into()), ..declaration("ContrastBolusAgent", "SERIES") }, "not DS"),
            (declaration("SeriesDescription", "SERIES"), "already keeps it at the SERIES level"),
            (declaration("RequestAttributesSequence.ScheduledProcedureStepID", "IMAGE"), "declare it there"),
            (declaration("ContrastBolusAgent[*].CodeValue", "SERIES"), "is not a sequence"),
            (declaration("PixelData", "IMAGE"), "after the pixel data"),
            (declaration("00020010", "IMAGE"), "not an attribute"),
            (declaration("SpecificCharacterSet", "IMAGE"), "not an attribute"),
            (declaration("ContrastBolusAgent", "ROOM"), "is not a level"),
            (
                Declaration { name: Some("a b".into()), ..declaration("ContrastBolusAgent", "STUDY") },
                "is not a valid name",
            ),
            (Declaration { name: Some("patientid".into()), ..declaration("ContrastBolusAgent", "STUDY") }, "is taken"),
            (declaration(&["ReferencedImageSequence"; 10].join("."), "IMAGE"), "too long"),
        ] {
            let told = refused(std::slice::from_ref(&declaration));
            assert!(told.contains(reason), "{declaration:?}: {told}");
        }
        let agent = declaration("ContrastBolusAgent", "SERIES");
        assert!(refused(&[agent.clone(), agent.clone()]).contains("twice"));
        assert!(refused(&[agent.clone(), Declaration { level: "IMAGE".into(), ..agent }]).contains("twice"));
        let many: Vec<_> = (0..=MAX_DECLARED).map(|n| private(&format!("0019xx{n:02x}"), "ACME", "LO")).collect();
        assert!(refused(&many).contains("more than 128"));
    }
}
