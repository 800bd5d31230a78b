//! An object, opened where the index says, for a walk over its elements.

use std::io::{self, ErrorKind, Read};

use tracing::debug;

use crate::archive::Archives;
use crate::db::Search;
use crate::db::open::Reader;
use crate::deliver::object::{DataSet, Identity, ObjectError, StoredObject};
use crate::encoding::syntax::NativeSyntax;
use crate::encoding::walk::{self, Walk};
use crate::ingest::limits::MAX_DEPTH;
use crate::model::location::Location;
use crate::model::uid::for_log;
use crate::qr::RetrievedInstance;
use crate::store::Source;

/// Bytes of an object: as they lie, or a data set that was rewritten to Explicit VR Little Endian.
pub(super) enum Bytes {
    Source(Source),
    DataSet(DataSet),
}

impl Read for Bytes {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Source(source) => source.read(buffer),
            Self::DataSet(data_set) => data_set.fill(buffer).map(|filled| filled.count),
        }
    }
}

impl Bytes {
    /// Goes to a place of the walk. Of a data set that was rewritten only forward.
    pub(super) fn go_to(&mut self, from: u64, to: u64) -> io::Result<()> {
        match self {
            Self::Source(source) => source.go_to(to),
            Self::DataSet(_) => {
                let count = to.checked_sub(from).ok_or(ErrorKind::Unsupported)?;
                walk::Input::pass(self, count)
            }
        }
    }
}

impl walk::Input for Bytes {
    fn pass(&mut self, count: u64) -> io::Result<()> {
        let passed = match self {
            Self::Source(source) => source.pass(count)?,
            Self::DataSet(_) => 0,
        };
        io::copy(&mut self.take(count - passed), &mut io::sink()).map(drop)
    }
}

/// An object at the beginning of its data set.
pub(super) struct OpenObject {
    pub(super) walk: Walk<Bytes>,
    /// The transfer syntax that it lies in.
    pub(super) transfer_syntax: String,
    pub(super) location: Location,
}

impl OpenObject {
    /// Opens an instance at the first of its locations where it can be read.
    pub(super) fn open(
        reader: &mut Reader,
        instance: &RetrievedInstance<'_>,
        archives: &Archives,
    ) -> Result<Self, ObjectError> {
        let known = reader.known_locations(instance.sop_instance_uid).map_err(|error| {
            tracing::warn!(%error, "the index does not say where an instance lies");
            ObjectError::NotKept
        })?;
        let mut failure = ObjectError::NotKept;
        for known in known.into_iter().filter(|known| !known.differs) {
            match Self::at(known.location, instance, archives) {
                Ok(opened) => return Ok(opened),
                Err(error) => {
                    let instance = for_log(instance.sop_instance_uid);
                    debug!(instance, "an object cannot be had from where the index says: {error}");
                    if matches!(failure, ObjectError::NotKept) {
                        failure = error;
                    }
                }
            }
        }
        Err(failure)
    }

    /// Opens an instance at one of its locations.
    pub(super) fn at(
        location: Location,
        instance: &RetrievedInstance<'_>,
        archives: &Archives,
    ) -> Result<Self, ObjectError> {
        let identity = Identity {
            sop_instance_uid: instance.sop_instance_uid,
            sop_class_uid: &instance.kind.sop_class_uid,
            transfer_syntax: None,
        };
        let object = StoredObject::open(&location, &identity, archives)?;
        let transfer_syntax = object.transfer_syntax().to_owned();
        let walk = match NativeSyntax::of_uid(&transfer_syntax) {
            Some(NativeSyntax::ExplicitBig | NativeSyntax::Deflated) => {
                let data_set = object.rewritten(NativeSyntax::ExplicitLittle)?;
                Walk::new(Bytes::DataSet(data_set), 0, true, MAX_DEPTH)
            }
            native @ (Some(NativeSyntax::ImplicitLittle | NativeSyntax::ExplicitLittle) | None) => {
                let (mut source, offset) = object.into_source();
                source.go_to(offset).map_err(ObjectError::Read)?;
                let explicit = native != Some(NativeSyntax::ImplicitLittle);
                Walk::new(Bytes::Source(source), offset, explicit, MAX_DEPTH)
            }
        };
        Ok(Self { walk, transfer_syntax, location })
    }
}
