//! The query of a search (PS3.18 8.3.4): from text to keys and other parameters.
//!
//! The keys become the `Identifier` that a C-FIND would have sent. So both are matched alike.

use std::borrow::Cow;

use dicom_core::dictionary::{DataDictionary, DataDictionaryEntry};
use dicom_core::{Tag, VR};
use dicom_dictionary_std::{StandardDataDictionary, tags};

use crate::encoding::tag::parse_tag;
use crate::model::attribute::{ATTRIBUTES, Attribute, KeyType, ValueSource};
use crate::model::declared::DeclaredSet;
use crate::model::level::{InformationModel, QueryRetrieveLevel};
use crate::model::matching::{KeyElement, json_key};
use crate::model::uid::is_acceptable_uid;
use crate::qr::keys::{self, KeyError};
use crate::qr::{self, FindError, NegotiatedOptions, Query};

/// Maximum number of parameters of one query. OHIF sends eight.
const MAX_PARAMETERS: usize = 1_000;

/// Maximum number of attributes of all `includefield` together.
const MAX_INCLUDED: usize = 2_000;

/// Parameters that PS3.18 defines for all transactions. They name no attribute.
const NOT_KEYS: [&str; 3] = ["accept", "charset", "disabled"];

/// Elements that say how a C-FIND is meant. The path of a search says it.
const OF_FIND: [Tag; 2] = [tags::QUERY_RETRIEVE_LEVEL, tags::QUERY_RETRIEVE_VIEW];

/// Default attributes of answers (PS3.18 tables 10.6.3-3 to -5), without those of the service
/// itself. The last ones of a series are in Request Attributes Sequence.
const STUDY_ATTRIBUTES: &str = "StudyDate StudyTime AccessionNumber InstanceAvailability ModalitiesInStudy \
    ReferringPhysicianName TimezoneOffsetFromUTC PatientName PatientID PatientBirthDate PatientSex StudyInstanceUID \
    StudyID NumberOfStudyRelatedSeries NumberOfStudyRelatedInstances";
const SERIES_ATTRIBUTES: &str = "Modality TimezoneOffsetFromUTC SeriesDescription InstanceAvailability SeriesInstanceUID \
    SeriesNumber NumberOfSeriesRelatedInstances PerformedProcedureStepStartDate PerformedProcedureStepStartTime \
    RequestAttributesSequence.ScheduledProcedureStepID RequestAttributesSequence.RequestedProcedureID";
const INSTANCE_ATTRIBUTES: &str = "SOPClassUID SOPInstanceUID InstanceAvailability TimezoneOffsetFromUTC InstanceNumber \
    Rows Columns BitsAllocated NumberOfFrames";

/// Returns the default attributes of answers of this level.
pub fn default_attributes(level: QueryRetrieveLevel) -> impl Iterator<Item = &'static str> {
    let text = match level {
        QueryRetrieveLevel::Patient | QueryRetrieveLevel::Study => STUDY_ATTRIBUTES,
        QueryRetrieveLevel::Series => SERIES_ATTRIBUTES,
        QueryRetrieveLevel::Image => INSTANCE_ATTRIBUTES,
    };
    text.split_ascii_whitespace()
}

/// Values of the path beside the query.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'a> {
    /// The level of the answers.
    pub level: QueryRetrieveLevel,
    /// Study Instance UID, percent-encoded. It is empty if the path has none.
    pub study: &'a str,
    /// Series Instance UID, percent-encoded. It is empty if the path has none.
    pub series: &'a str,
}

/// A search, checked.
#[derive(Clone, Debug)]
pub struct SearchQuery {
    /// The query that a C-FIND makes too, without limit and offset.
    pub query: Query,
    /// Maximum number of results that the client wants.
    pub limit: Option<u64>,
    /// Number of results to leave out first.
    pub offset: u64,
    /// Keys that the client wanted to match, but that the index does not keep.
    pub ignored: Vec<Tag>,
}

/// Errors of a query. The texts repeat no value.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// More than [`MAX_PARAMETERS`] parameters.
    #[error("more than {MAX_PARAMETERS} parameters")]
    TooManyParameters,
    /// More than [`MAX_INCLUDED`] attributes.
    #[error("includefield names more than {MAX_INCLUDED} attributes")]
    TooManyIncluded,
    /// A percent sign without two digits, or bytes that are not UTF-8.
    #[error("the query is not percent-encoded UTF-8")]
    Encoding,
    /// A parameter of the search with a value that is not allowed.
    #[error("{0} has to be {1}")]
    Parameter(&'static str, &'static str),
    /// A parameter of the search, or a key, that occurs twice (PS3.18 8.3.4.1).
    #[error("{0} occurs twice")]
    Twice(String),
    /// A name of an attribute with an equals sign in it.
    #[error("the name of an attribute has no equals sign")]
    EqualsSign,
    /// A name that is not an attribute, or an attribute with two values.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A UID of the path that is not valid.
    #[error("a UID of the path is not valid")]
    PathUid,
    /// A key that the path already has, with another value.
    #[error("{0} is in the path, with another value")]
    InPath(&'static str),
    /// An error that a C-FIND can have too.
    #[error(transparent)]
    Find(#[from] FindError),
}

/// Returns the pairs of a query, decoded as far as possible. Empty pairs are ignored: Weasis sends
/// `?&`.
pub fn pairs(query: &str) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    raw_pairs(query).map(|(name, value)| {
        let lossy = |text| decode(text).unwrap_or(Cow::Borrowed(text));
        (lossy(name), lossy(value))
    })
}

fn raw_pairs(query: &str) -> impl Iterator<Item = (&str, &str)> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

/// Decodes percent-encoding. `None` if it is damaged. A plus sign stays as it is.
#[must_use]
pub fn decode(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('%') {
        return Some(Cow::Borrowed(text));
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            out.push(*first);
            continue;
        }
        let ([high, low], after) = rest.split_first_chunk()?;
        let digit = |byte: u8| char::from(byte).to_digit(16);
        out.push((digit(*high)? << 4 | digit(*low)?) as u8);
        rest = after;
    }
    String::from_utf8(out).ok().map(Cow::Owned)
}

impl SearchQuery {
    /// Reads the query of a search.
    ///
    /// # Errors
    /// See [`QueryError`].
    pub fn parse(scope: &Scope<'_>, query: &str, options: &qr::Options) -> Result<Self, QueryError> {
        let mut reading = Reading::new(scope.level, &options.declared);
        for (number, (name, value)) in raw_pairs(query).enumerate() {
            if number == MAX_PARAMETERS {
                return Err(QueryError::TooManyParameters);
            }
            let name = decode(name).ok_or(QueryError::Encoding)?;
            reading.take(&name, value)?;
        }
        (reading.has_study, reading.has_series) = (!scope.study.is_empty(), !scope.series.is_empty());
        reading.path("StudyInstanceUID", scope.study)?;
        reading.path("SeriesInstanceUID", scope.series)?;
        reading.search(options)
    }
}

/// Parts of a query that is being read.
struct Reading<'d> {
    level: QueryRetrieveLevel,
    declared: &'d DeclaredSet,
    /// `KEY=VALUE`, with the key as it was written.
    keys: Vec<(String, String)>,
    included: Vec<String>,
    negotiated: NegotiatedOptions,
    limit: Option<u64>,
    offset: Option<u64>,
    seen: Vec<&'static str>,
    /// Whether the path names a study and a series.
    has_study: bool,
    has_series: bool,
}

impl<'d> Reading<'d> {
    fn new(level: QueryRetrieveLevel, declared: &'d DeclaredSet) -> Self {
        let negotiated = NegotiatedOptions {
            relational_queries: true,
            // PS3.18 8.3.4.1.1 requires it. This is the reverse of a C-FIND without negotiation.
            combined_date_time: true,
            ..NegotiatedOptions::default()
        };
        let (keys, included, seen) = (Vec::new(), Vec::new(), Vec::new());
        let (has_study, has_series) = (false, false);
        Self { level, declared, keys, included, negotiated, limit: None, offset: None, seen, has_study, has_series }
    }

    fn take(&mut self, name: &str, raw: &str) -> Result<(), QueryError> {
        match name {
            "includefield" => return self.include(raw),
            "fuzzymatching" => self.negotiated.fuzzy_names = self.flag("fuzzymatching", raw)?,
            "emptyvaluematching" => self.negotiated.empty_value = self.flag("emptyvaluematching", raw)?,
            "multiplevaluematching" => self.negotiated.multiple_value = self.flag("multiplevaluematching", raw)?,
            "limit" => self.limit = Some(self.number("limit", raw)?),
            "offset" => self.offset = Some(self.number("offset", raw)?),
            _ if NOT_KEYS.contains(&name) => {}
            // Unknown parameters, such as `token`, `orderby` and `_`, are ignored (PS3.18 8.3.4). A
            // misspelt attribute is not ignored, because the answer would be all studies.
            _ if !self.is_key(name) => {}
            _ => return self.key(name, raw),
        }
        Ok(())
    }

    fn is_key(&self, name: &str) -> bool {
        let first = name.split('.').next().unwrap_or_default();
        name.starts_with(|c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '(')
            || self.declared.by_name(name).is_some()
            || ATTRIBUTES.iter().any(|attribute| attribute.keyword.eq_ignore_ascii_case(first))
    }

    fn once(&mut self, name: &'static str) -> Result<(), QueryError> {
        if self.seen.contains(&name) {
            return Err(QueryError::Twice(name.to_owned()));
        }
        self.seen.push(name);
        Ok(())
    }

    fn flag(&mut self, name: &'static str, raw: &str) -> Result<bool, QueryError> {
        self.once(name)?;
        match decode(raw).as_deref() {
            Some("true") => Ok(true),
            Some("false") => Ok(false),
            _ => Err(QueryError::Parameter(name, "true or false")),
        }
    }

    fn number(&mut self, name: &'static str, raw: &str) -> Result<u64, QueryError> {
        self.once(name)?;
        let raw = decode(raw).ok_or(QueryError::Encoding)?;
        let is_number = raw.bytes().all(|byte| byte.is_ascii_digit());
        // A number beyond those of SQLite means all.
        let number = raw.parse::<u64>().ok().filter(|_| is_number).map(|number| number.min(i64::MAX as u64 / 2));
        number.ok_or(QueryError::Parameter(name, "a whole number"))
    }

    fn include(&mut self, raw: &str) -> Result<(), QueryError> {
        let decoded = decode(raw).ok_or(QueryError::Encoding)?;
        for name in decoded.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            if self.included.len() == MAX_INCLUDED {
                return Err(QueryError::TooManyIncluded);
            }
            self.included.push(attribute_name(name)?.to_owned());
        }
        Ok(())
    }

    fn key(&mut self, name: &str, raw: &str) -> Result<(), QueryError> {
        if self.keys.iter().any(|(known, _)| known == name) {
            return Err(QueryError::Twice(name.to_owned()));
        }
        let vr = self.vr(attribute_name(name)?);
        // Forms and Python's requests write a space as a plus sign.
        let raw = if vr == Some(VR::DT) { with_zones(raw) } else { raw.replace('+', "%20") };
        let value = decode(&raw).ok_or(QueryError::Encoding)?;
        let value = if vr.is_some_and(has_no_comma) { value.replace(',', "\\") } else { value.into_owned() };
        self.keys.push((name.to_owned(), value));
        Ok(())
    }

    /// Returns the VR of the last attribute of a path of names.
    fn vr(&self, name: &str) -> Option<VR> {
        if let Some(declared) = self.declared.by_name(name) {
            return Some(declared.vr);
        }
        let last = name.rsplit('.').next()?;
        let entry = match parse_tag(last) {
            Some(tag) => StandardDataDictionary.by_tag(tag),
            None => StandardDataDictionary.by_name(last),
        };
        entry.map(|entry| entry.vr().relaxed())
    }

    /// Narrows the answers by a UID of the path.
    fn path(&mut self, keyword: &'static str, raw: &str) -> Result<(), QueryError> {
        if raw.is_empty() {
            return Ok(());
        }
        let uid = decode(raw).filter(|uid| is_acceptable_uid(uid));
        let uid = uid.ok_or(QueryError::PathUid)?;
        let tag = keys::tag(keyword);
        let is_same_key = |name: &str| keys::tag(name.trim()) == tag;
        if self.keys.iter().any(|(name, value)| is_same_key(name) && !value.is_empty() && *value != uid) {
            return Err(QueryError::InPath(keyword));
        }
        self.keys.retain(|(name, _)| !is_same_key(name));
        self.keys.push((keyword.to_owned(), uid.into_owned()));
        Ok(())
    }

    /// Takes out the keys that would change the meaning of the others. Returns all keys with a
    /// value that never narrow the answers.
    fn without_match(&mut self) -> Vec<Tag> {
        let mut told = Vec::new();
        self.keys.retain(|(name, value)| {
            let Ok(tag) = keys::tag(name.trim()) else { return true };
            let is_of_find = OF_FIND.contains(&tag);
            let is_matched = !is_no_attribute(tag) && Attribute::by_tag(tag).is_none_or(keys::narrows);
            if !value.is_empty() && (is_of_find || !is_matched) && !told.contains(&tag) {
                told.push(tag);
            }
            !is_of_find
        });
        told
    }

    fn search(mut self, options: &qr::Options) -> Result<SearchQuery, QueryError> {
        let level = self.level;
        let without_match = self.without_match();
        let mut texts: Vec<String> = self.keys.iter().map(|(name, value)| format!("{name}={value}")).collect();
        // A part of a sequence beside the whole sequence would leave only the part. A key in the
        // sequence leaves only parts anyway.
        let is_wanted = |name: &&str| {
            let Some((sequence, _)) = name.split_once('.') else { return true };
            let tag = Attribute::by_keyword(sequence).map(|attribute| json_key(attribute.tag));
            let is_sequence = |name: &str| name == sequence || Some(name) == tag.as_deref();
            let has_key = self.keys.iter().any(|(name, _)| name.split_once('.').is_some_and(|(of, _)| is_sequence(of)));
            has_key || !self.included.iter().any(|name| name == "all" || is_sequence(name))
        };
        let of_level = defaults(level, self.has_study, self.has_series);
        texts.extend(of_level.filter(is_wanted).map(str::to_owned));
        for name in &self.included {
            if name == "all" {
                texts.extend(all_attributes(level).map(|attribute| attribute.keyword.to_owned()));
                texts.extend(self.declared.attributes().iter().map(|declared| declared.name.clone()));
            } else if !is_below(name, level) {
                texts.push(name.clone());
            }
        }
        let identifier = keys::identifier_with(level, texts.iter().map(String::as_str), self.declared)?;
        let options = qr::Options { limit: None, retrieve_ae_title: String::new(), ..options.clone() };
        let query = qr::parse(InformationModel::StudyRoot, &identifier, self.negotiated, &options)?;
        let mut ignored: Vec<Tag> = query.unsupported.clone();
        ignored.retain(|tag| !query.is_matched(*tag) && has_value(&identifier.elements, *tag));
        ignored.extend(without_match.into_iter().filter(|tag| !query.unsupported.contains(tag)));
        Ok(SearchQuery { query, limit: self.limit, offset: self.offset.unwrap_or(0), ignored })
    }
}

/// Returns a name of an attribute. It has no equals sign, which would begin a value.
fn attribute_name(name: &str) -> Result<&str, QueryError> {
    if name.contains('=') { Err(QueryError::EqualsSign) } else { Ok(name) }
}

/// Whether a tag belongs to no data set, or only to its encoding.
fn is_no_attribute(tag: Tag) -> bool {
    tag.group() < 0x0008 || tag.element() == 0 || tag == tags::SPECIFIC_CHARACTER_SET
}

/// Whether an attribute belongs to a lower level than the answers. It is left out silently (PS3.18
/// 10.6.1.2.2). OHIF asks for Modality of studies in each of its lists.
fn is_below(name: &str, level: QueryRetrieveLevel) -> bool {
    let root = name.split('.').next().unwrap_or(name);
    let attribute = match parse_tag(root) {
        Some(tag) => Attribute::by_tag(tag),
        None => Attribute::by_keyword(root),
    };
    attribute.is_some_and(|attribute| attribute.level > level && attribute.source != ValueSource::Computed)
}

/// Whether an unsupported key has a value, either at the root or in an item. It is only reported if
/// it has one.
fn has_value(elements: &[KeyElement], tag: Tag) -> bool {
    elements.iter().find(|element| element.tag == tag).is_none_or(|element| element.value.has_text())
}

/// A key of VR DT, with %20 for each plus sign that stands for a space. One between a digit and
/// four digits is the sign of a time zone.
fn with_zones(raw: &str) -> String {
    let mut text = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some((before, after)) = rest.split_once('+') {
        text.push_str(before);
        let digits = after.bytes().take_while(u8::is_ascii_digit).count();
        let is_zone = digits == 4 && before.ends_with(|last: char| last.is_ascii_digit());
        text.push_str(if is_zone { "+" } else { "%20" });
        rest = after;
    }
    text + rest
}

/// Whether a value of this VR cannot have a comma, so that a comma separates values. PS3.18 8.3.4.1
/// has this for UIDs. OHIF also sends it for Modalities in Study.
fn has_no_comma(vr: VR) -> bool {
    matches!(vr, VR::UI | VR::CS | VR::IS | VR::DS | VR::US | VR::SS | VR::UL | VR::SL)
}

/// Default attributes of the answers of a search (PS3.18 10.6.3.3). These are the attributes of the
/// level, and of the levels above that the path does not name.
fn defaults(level: QueryRetrieveLevel, has_study: bool, has_series: bool) -> impl Iterator<Item = &'static str> {
    use QueryRetrieveLevel::{Image, Series, Study};
    let of = move |wanted: QueryRetrieveLevel, is_wanted: bool| is_wanted.then(|| default_attributes(wanted));
    let above_study = of(Study, level > Study && !has_study);
    let above_series = of(Series, level == Image && !has_series);
    let own = of(level, true);
    above_study.into_iter().flatten().chain(above_series.into_iter().flatten()).chain(own.into_iter().flatten())
}

/// Returns all attributes that answers of this level can have.
fn all_attributes(level: QueryRetrieveLevel) -> impl Iterator<Item = &'static Attribute> {
    ATTRIBUTES.iter().filter(move |attribute| {
        attribute.level <= level && attribute.source != ValueSource::AlwaysEmpty
            || attribute.key == KeyType::Unique && attribute.level == level
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::declaration::Declaration;
    use crate::model::matching::Matching;
    use QueryRetrieveLevel::{Image, Series, Study};

    fn parse(level: QueryRetrieveLevel, query: &str) -> Result<SearchQuery, QueryError> {
        SearchQuery::parse(&Scope { level, study: "", series: "" }, query, &qr::Options::default())
    }

    fn matched(search: &SearchQuery) -> Vec<(&'static str, &'static str)> {
        let keys = search.query.request.matching_keys.iter();
        keys.map(|key| (key.attribute.attribute().keyword, key.matching.type_name())).collect()
    }

    fn returned(search: &SearchQuery) -> Vec<&'static str> {
        search.query.request.return_keys.iter().map(|key| key.attribute.attribute().keyword).collect()
    }

    /// Whether the only key of a query matches this value.
    fn matches(level: QueryRetrieveLevel, query: &str, value: &str) -> bool {
        let search = parse(level, query).unwrap();
        let [key] = search.query.request.matching_keys.as_slice() else { panic!("{query}: not one key") };
        key.matching.matches(value)
    }

    #[test]
    fn keys_are_keywords_tags_and_paths() {
        for query in ["PatientID=P1", "00100020=P1", "00100020=P%31"] {
            assert!(matches(Study, query, "P1"), "{query}");
        }
        let search = parse(Series, "RequestAttributesSequence.ScheduledProcedureStepID=S1").unwrap();
        assert_eq!(matched(&search), [("RequestAttributesSequence", "sequence")]);
        let search = parse(Series, "00400275.00400009=S1&Modality=CT").unwrap();
        assert_eq!(matched(&search).len(), 2);
    }

    #[test]
    fn values_are_decoded_in_every_script() {
        assert!(matches(Study, "PatientName=M%C3%9CLLER%5EJ*", "Müller^Jan"));
        assert!(matches(Study, "PatientName=%E5%B1%B1%E7%94%B0*", "山田^太郎"));
        assert!(matches(Study, "StudyDescription=Knee+left", "Knee left"));
        assert!(matches(Study, "StudyDescription=a%2Bb", "a+b"));
        for bad in ["PatientName=%", "PatientName=%4", "PatientName=%zz", "PatientName=%ff", "%zz=1"] {
            assert!(matches!(parse(Study, bad), Err(QueryError::Encoding)), "{bad}");
        }
    }

    #[test]
    fn a_comma_separates_where_no_value_can_have_one() {
        for list in ["StudyInstanceUID=1.2,1.3", "StudyInstanceUID=1.2%5C1.3", "0020000D=1.2%2C1.3"] {
            assert!(matches(Study, list, "1.3") && !matches(Study, list, "1.4"), "{list}");
        }
        assert!(matches(Study, "ModalitiesInStudy=CT,MR", "MR"));
        assert!(matches(Study, "StudyDescription=a,b", "a,b"));
    }

    // PS3.18 8.3.4.1.1.
    #[test]
    fn a_date_and_a_time_are_one_range() {
        let search = parse(Study, "StudyDate=20240101-20240103&StudyTime=1200-1300").unwrap();
        assert_eq!(search.query.request.date_time_keys.len(), 1);
        assert_eq!(matched(&search), [("StudyDate", "range")]);
    }

    // PS3.18 tables 10.6.3-3 to -5.
    #[test]
    fn answers_have_their_default_attributes_and_those_of_the_levels_above() {
        let study = parse(Study, "").unwrap();
        for keyword in default_attributes(Study) {
            assert!(returned(&study).contains(&keyword), "{keyword}");
        }
        assert!(!returned(&study).contains(&"Modality"));
        let all_series = parse(Series, "").unwrap();
        assert!(returned(&all_series).contains(&"PatientName") && returned(&all_series).contains(&"SeriesNumber"));
        let scope = Scope { level: Series, study: "1.2", series: "" };
        let of_study = SearchQuery::parse(&scope, "", &qr::Options::default()).unwrap();
        assert!(!returned(&of_study).contains(&"PatientName") && returned(&of_study).contains(&"StudyInstanceUID"));
        let scope = Scope { level: Image, study: "1.2", series: "" };
        let instances = SearchQuery::parse(&scope, "", &qr::Options::default()).unwrap();
        assert!(returned(&instances).contains(&"Modality") && returned(&instances).contains(&"Rows"));
    }

    #[test]
    fn more_attributes_are_answered_when_they_are_asked_for() {
        let has = |query: &str, keyword: &str| returned(&parse(Study, query).unwrap()).contains(&keyword);
        for query in [
            "includefield=StudyDescription",
            "includefield=00081030%2C00080060",
            "includefield=00081030&includefield=PatientAge",
            "includefield=all",
            "StudyDescription=*",
        ] {
            assert!(has(query, "StudyDescription"), "{query}");
        }
        // Of a lower level: not answered, and no error.
        assert!(!has("includefield=Modality", "Modality"));
        assert!(matches!(parse(Study, "includefield=StudyDescripton"), Err(QueryError::Key(_))));
    }

    // PS3.18 8.3.4.3.
    #[test]
    fn a_whole_sequence_beside_a_key_in_it_takes_no_default_attribute_away() {
        let items = |query: &str| {
            let search = parse(Series, query).unwrap();
            let keys = &search.query.request.return_keys;
            keys.iter()
                .find(|key| key.attribute.attribute().keyword == "RequestAttributesSequence")
                .unwrap()
                .items
                .len()
        };
        let key = "RequestAttributesSequence.ScheduledProcedureStepID=X";
        assert_eq!(items(key), 2);
        for name in ["RequestAttributesSequence", "00400275", "all"] {
            assert_eq!(items(&format!("{key}&includefield={name}")), 2, "{name}");
        }
    }

    #[test]
    fn parameters_of_the_search_are_checked() {
        assert_eq!(parse(Study, "limit=%31&fuzzymatching=tru%65").unwrap().limit, Some(1));
        let search = parse(Study, "limit=101&offset=0&fuzzymatching=false&").unwrap();
        assert_eq!((search.limit, search.offset), (Some(101), 0));
        for bad in [
            "limit=-1",
            "limit=",
            "limit=1e3",
            "limit=99999999999999999999999",
            "offset=+1",
            "fuzzymatching=yes",
            "limit=1&limit=2",
            "PatientID=1&PatientID=2",
            "PatientNam=X",
            "12345678901=X",
            "PatientID.PatientName=X",
            "RequestAttributesSequence=X",
            "StudyDate=last-week",
        ] {
            assert!(parse(Study, bad).is_err(), "{bad}");
        }
        for fine in ["", "&", "&&", "token=abc", "_=123", "orderby=-StudyDate", "accept=application/json", "limit=0"] {
            assert!(parse(Study, fine).is_ok(), "{fine}");
        }
        let fuzzy = parse(Study, "PatientName=smith&fuzzymatching=true").unwrap();
        assert!(fuzzy.query.request.matching_keys[0].matching.matches("Jones^Smyth"));
        let many: Vec<_> = (0..=MAX_PARAMETERS).map(|number| format!("a{number}=1")).collect();
        assert!(matches!(parse(Study, &many.join("&")), Err(QueryError::TooManyParameters)));
    }

    #[test]
    fn a_key_that_the_index_does_not_keep_is_told() {
        let search = parse(Study, "RequestingPhysician=X&PatientID=P1").unwrap();
        assert_eq!(search.ignored, [Tag(0x0032, 0x1032)]);
        assert!(parse(Study, "RequestingPhysician=").unwrap().ignored.is_empty());
    }

    #[test]
    fn a_declared_attribute_that_nobody_gave_as_a_key_is_not_told() {
        let path = "ContentSequence[*].ConceptCodeSequence[*].CodeMeaning".to_owned();
        let declaration = Declaration { path, level: "IMAGE".into(), ..Declaration::default() };
        let declared = Arc::new(DeclaredSet::new(&[declaration], |_, error| panic!("{error}")));
        let options = qr::Options { declared, ..qr::Options::default() };
        let scope = Scope { level: Study, study: "", series: "" };
        let ignored = |query| SearchQuery::parse(&scope, query, &options).unwrap().ignored;
        assert_eq!(ignored("includefield=all&PatientID=V1"), []);
        assert_eq!(ignored("RequestingPhysician=X&includefield=all"), [Tag(0x0032, 0x1032)]);
    }

    #[test]
    fn a_key_that_never_narrows_is_told_and_leaves_the_level_of_the_path() {
        for (query, tag) in [
            ("QueryRetrieveLevel=SERIES", Tag(0x0008, 0x0052)),
            ("00080052=PATIENT", Tag(0x0008, 0x0052)),
            ("queryretrievelevel=IMAGE&QueryRetrieveLevel=IMAGE", Tag(0x0008, 0x0052)),
            ("QueryRetrieveView=CLASSIC", Tag(0x0008, 0x0053)),
            ("SpecificCharacterSet=ISO_IR%20100", Tag(0x0008, 0x0005)),
            ("TimezoneOffsetFromUTC=%2B0100", Tag(0x0008, 0x0201)),
            ("00080000=1", Tag(0x0008, 0x0000)),
            ("TransferSyntaxUID=1.2", Tag(0x0002, 0x0010)),
        ] {
            let search = parse(Study, query).unwrap();
            assert_eq!((search.query.request.level, search.ignored), (Study, vec![tag]), "{query}");
        }
        assert!(parse(Study, "QueryRetrieveLevel=").unwrap().ignored.is_empty());
        assert_eq!(parse(Study, "includefield=QueryRetrieveLevel").unwrap().query.request.level, Study);
    }

    #[test]
    fn the_path_narrows_and_contradicts_no_key() {
        let scope = |study| Scope { level: Series, study, series: "" };
        let ask = |study, query: &str| SearchQuery::parse(&scope(study), query, &qr::Options::default());
        assert_eq!(matched(&ask("1.2", "").unwrap())[0].0, "StudyInstanceUID");
        assert!(ask("1.2", "StudyInstanceUID=1.2").is_ok());
        assert!(matches!(ask("1.2", "0020000D=1.3"), Err(QueryError::InPath(_))));
        for bad in ["%", "%00", "1.2%5C1.3", "1.*", "%0a", &"1".repeat(200)] {
            assert!(matches!(ask(bad, ""), Err(QueryError::PathUid)), "{bad}");
        }
    }

    #[test]
    fn no_text_repeats_a_value() {
        for bad in ["limit=SECRET", "StudyDate=SECRET-1", "PatientName=SECRET%", "fuzzymatching=SECRET"] {
            let told = parse(Study, bad).unwrap_err().to_string();
            assert!(!told.contains("SECRET"), "{told}");
        }
        let matching = &parse(Study, "PatientID=*").unwrap().query.request.matching_keys;
        assert!(!matching.iter().any(|key| matches!(key.matching, Matching::Universal)));
    }
}
