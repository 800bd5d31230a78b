//! Repository Query (PS3.4 C.6.4). It is the Study Root Information Model with record keys and with
//! the places of the files. By a record key, a query goes on after an earlier one.

use dicom_core::{Tag, VR};
use dicom_dictionary_std::tags;

use super::Options;
use super::error::FindError;
use super::identifier::Identifier;
use super::negotiation::NegotiatedOptions;
use super::parse::{Query, RepositoryKeys, parse};
use crate::encoding::data_set::DataSetWriter;
use crate::encoding::syntax::Encoding;
use crate::model::find::FindAnswer;
use crate::model::level::{InformationModel, QueryRetrieveLevel};
use crate::model::location::{Location, Place, uri_path};
use crate::model::matching::KeyValue;
use crate::model::record_key::{RecordKey, RecordOrder};

/// Checks the Identifier of a Repository Query, and builds a query from it.
///
/// # Errors
/// Those of [`parse`], and [`FindError::InvalidPriorRecordKey`].
pub fn parse_repository(
    identifier: &Identifier,
    negotiated: NegotiatedOptions,
    options: &Options,
) -> Result<Query, FindError> {
    let is_own = |tag: Tag| {
        [tags::RECORD_KEY, tags::PRIOR_RECORD_KEY, tags::FILE_ACCESS_SEQUENCE, tags::MAXIMUM_NUMBER_OF_RECORDS]
            .contains(&tag)
    };
    let has = |tag: Tag| identifier.elements.iter().any(|element| element.tag == tag);
    let mut rest = identifier.clone();
    rest.elements.retain(|element| !is_own(element.tag));
    let mut query = parse(InformationModel::StudyRoot, &rest, negotiated, options)?;
    let level = query.request.level;
    let after = match identifier.text(tags::PRIOR_RECORD_KEY).filter(|text| !text.is_empty()) {
        Some(text) => Some(RecordKey::parse(level, text).ok_or(FindError::InvalidPriorRecordKey)?),
        None => None,
    };
    query.request.record = Some(RecordOrder { after });
    let wants_file = level == QueryRetrieveLevel::Image && has(tags::FILE_ACCESS_SEQUENCE);
    query.request.wants_location = wants_file;
    if has(tags::FILE_ACCESS_SEQUENCE) && !wants_file {
        query.unsupported.push(tags::FILE_ACCESS_SEQUENCE);
    }
    // Both sides may set a limit (PS3.4 C.6.4). One more answer shows that there are more.
    let asked = identifier.elements.iter().find(|element| element.tag == tags::MAXIMUM_NUMBER_OF_RECORDS);
    let asked = asked.and_then(|element| match &element.value {
        KeyValue::Text(text) => text.trim().parse::<u64>().ok().filter(|limit| *limit > 0),
        KeyValue::Items(_) => None,
    });
    query.limit = [query.limit, asked].into_iter().flatten().min();
    query.request.limit = query.limit.map(|limit| limit.saturating_add(1));
    query.repository = Some(RepositoryKeys { record_key: has(tags::RECORD_KEY), file_access: wants_file });
    Ok(query)
}

/// Appends File Access Sequence (0008,041A) of an answer. It has no item if the file is not known.
pub(super) fn push_file_access(out: &mut Vec<u8>, encoding: Encoding, answer: &FindAnswer) {
    let access: Vec<FileAccess> = answer.location.as_deref().and_then(FileAccess::of).into_iter().collect();
    let mut writer = DataSetWriter::new(encoding);
    writer.sequence(tags::FILE_ACCESS_SEQUENCE, &access, |item, access| {
        item.text(tags::FILE_ACCESS_URI, VR::UR, &access.uri);
        if let Some((kind, member)) = &access.container {
            item.text(tags::CONTAINER_FILE_TYPE, VR::CS, kind);
            item.text(tags::FILENAME_IN_CONTAINER, VR::UR, member);
        }
    });
    out.extend(writer.finish());
}

/// Place of a file, for programs that do not speak DICOM (PS3.3 C.38.1).
struct FileAccess {
    uri: String,
    /// Kind of an archive file, and the member in it.
    container: Option<(&'static str, String)>,
}

impl FileAccess {
    /// `None` if no bytes are kept.
    fn of(location: &Location) -> Option<Self> {
        let file = location.file()?;
        let container = (location.place == Place::Archive).then(|| {
            let name = file.to_string_lossy().to_lowercase();
            let kind = match name.rsplit_once('.').map_or("", |(_, extension)| extension) {
                "tgz" => "TARGZIP",
                "gz" if name.ends_with(".tar.gz") => "TARGZIP",
                "gz" => "GZIP",
                "tar" => "TAR",
                _ => "ZIP",
            };
            (kind, uri_path(location.file_name.as_encoded_bytes()))
        });
        Some(Self { uri: format!("file://{}", uri_path(file.as_os_str().as_encoded_bytes())), container })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_a_uri_and_a_member_its_container() {
        let at = |place, directory: &str, name: &str| {
            let location =
                Location { place, directory: directory.into(), file_name: name.into(), size: 0, mtime_ms: 0 };
            FileAccess::of(&location).map(|access| (access.uri, access.container))
        };
        assert_eq!(at(Place::InPlace, "/a b", "\u{e4}.dcm"), Some(("file:///a%20b/%C3%A4.dcm".into(), None)));
        let member = at(Place::Archive, "/a.tar.gz", "b/c.dcm");
        assert_eq!(member, Some(("file:///a.tar.gz".into(), Some(("TARGZIP", "b/c.dcm".into())))));
        assert_eq!(at(Place::MetadataOnly, "", ""), None);
    }
}
