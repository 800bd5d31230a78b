//! Opens an object for `dcmdex copy`: for what a DICOMDIR says of it, and for a file that is not
//! the one that lies there.

use std::io::{Cursor, Read};
use std::sync::Arc;

use crate::archive::Archives;
use crate::cohort::record_keys::ObjectKeys;
use crate::db::CorrectedValues;
use crate::deliver::object::{Identity, ObjectError, StoredObject};
use crate::model::location::Location;
use crate::store::FileMeta;

/// An object that is placed.
#[derive(Clone, Copy)]
pub(super) struct CopySource<'a> {
    pub(super) location: &'a Location,
    pub(super) sop_class_uid: &'a str,
    pub(super) sop_instance_uid: &'a str,
    pub(super) corrected: Option<&'a Arc<CorrectedValues>>,
}

/// Facts about an object that a DICOMDIR needs.
#[derive(Default)]
pub(super) struct MediaFacts {
    pub(super) keys: ObjectKeys,
    /// Its file has no File Meta Information, or that of another instance.
    pub(super) lacks_meta: bool,
}

impl CopySource<'_> {
    fn open(self, archives: &Archives) -> Result<StoredObject, ObjectError> {
        let identity = Identity {
            sop_instance_uid: self.sop_instance_uid,
            sop_class_uid: Some(self.sop_class_uid),
            transfer_syntax: None,
        };
        let object = StoredObject::open(self.location, &identity, archives)?;
        Ok(object.corrected(self.corrected.cloned()))
    }

    /// Reads what a DICOMDIR says of it. An object that cannot be read has nothing: the attempt to
    /// place it says why.
    pub(super) fn facts(self, archives: &Archives) -> MediaFacts {
        let Ok(object) = self.open(archives) else { return MediaFacts::default() };
        let lacks_meta = !object.has_own_meta();
        let keys = object.walk().map(|mut walk| ObjectKeys::read(self.sop_class_uid, &mut walk));
        MediaFacts { keys: keys.unwrap_or_default(), lacks_meta }
    }

    /// Opens its file with corrected values, or with new File Meta Information (PS3.10 7.1).
    pub(super) fn file(self, lacks_meta: bool, archives: &Archives) -> Result<Box<dyn Read>, String> {
        let file = self.open(archives).and_then(|object| {
            if !lacks_meta {
                return object.whole_file().map(|file| Box::new(file) as Box<dyn Read>);
            }
            let transfer_syntax = object.transfer_syntax().to_owned();
            let meta = FileMeta {
                sop_class_uid: self.sop_class_uid,
                sop_instance_uid: self.sop_instance_uid,
                transfer_syntax: &transfer_syntax,
                source_ae_title: "",
            };
            Ok(Box::new(Cursor::new(meta.encode()).chain(object.as_stored()?)) as Box<dyn Read>)
        });
        file.map_err(|error| error.to_string())
    }
}
