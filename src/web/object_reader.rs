//! An object, opened at a location of the index, for a walk over its elements.

use std::io::{self, ErrorKind, Read};
use std::sync::Arc;

use hyper::StatusCode;
use tracing::debug;

use super::problem::Problem;
use crate::archive::Archives;
use crate::db::open::Reader;
use crate::db::{CorrectedValues, KnownLocation, Search};
use crate::deliver::decompress::DecompressError;
use crate::deliver::object::{DataSet, Identity, ObjectError, StoredObject};
use crate::deliver::rewrite::RewriteError;
use crate::encoding::syntax::NativeSyntax;
use crate::encoding::walk::{self, Walk};
use crate::ingest::limits::MAX_DEPTH;
use crate::model::location::Location;
use crate::model::uid::for_log;
use crate::qr::RetrievedInstance;
use crate::store::{Source, SpoolFile, Verified};

/// Bytes of an object.
pub(super) enum Bytes {
    /// As they are stored.
    Source(Source),
    /// A data set that is rewritten to Explicit VR Little Endian.
    DataSet(DataSet),
    /// Bytes of either kind, kept in a spool file for the next requests.
    Kept { file: Arc<SpoolFile>, position: u64 },
}

impl Read for Bytes {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Source(source) => source.read(buffer),
            Self::DataSet(data_set) => data_set.read(buffer),
            Self::Kept { file, position } => {
                let read = file.read_at(buffer, *position)?;
                *position += read as u64;
                Ok(read)
            }
        }
    }
}

impl Bytes {
    /// Whether any part can be read without the parts before it.
    pub(super) fn has_random_access(&self) -> bool {
        match self {
            Self::Source(source) => source.left().is_some(),
            Self::DataSet(_) => false,
            Self::Kept { .. } => true,
        }
    }

    /// Seeks from offset `from` to offset `to`. A rewritten data set only seeks forward.
    pub(super) fn go_to(&mut self, from: u64, to: u64) -> io::Result<()> {
        match self {
            Self::Source(source) => source.go_to(to),
            Self::Kept { position, .. } => {
                *position = to;
                Ok(())
            }
            Self::DataSet(_) => {
                let count = to.checked_sub(from).ok_or(ErrorKind::Unsupported)?;
                walk::Input::skip(self, count).map(drop)
            }
        }
    }
}

impl walk::Input for Bytes {
    fn skip(&mut self, count: u64) -> io::Result<u64> {
        match self {
            Self::Source(source) => walk::Input::skip(source, count),
            Self::Kept { file, position } => {
                let count = count.min(file.length().saturating_sub(*position));
                *position += count;
                Ok(count)
            }
            Self::DataSet(data_set) => walk::Input::skip(data_set, count),
        }
    }
}

/// An object, at the start of its data set.
pub(super) struct OpenObject {
    pub(super) walk: Walk<Bytes>,
    /// The transfer syntax of the stored object.
    pub(super) transfer_syntax: String,
    pub(super) location: Location,
}

impl OpenObject {
    /// Opens an instance at the first of its locations where it can be read.
    pub(super) fn open(
        reader: &mut Reader,
        verified: &Verified,
        instance: &RetrievedInstance<'_>,
        archives: &Archives,
    ) -> Result<Self, ObjectError> {
        let locations = Self::locations(reader, verified, instance)?.into_iter().map(|known| known.location);
        Self::first_of(locations, instance, archives)
    }

    /// Works as [`Self::open`]. Corrections replace their values, so the bytes are not those of the
    /// file.
    pub(super) fn open_corrected(
        reader: &mut Reader,
        verified: &Verified,
        instance: &RetrievedInstance<'_>,
        archives: &Archives,
    ) -> Result<Self, ObjectError> {
        let known = Self::locations(reader, verified, instance)?;
        let corrected = known.first().and_then(|known| known.corrected.clone());
        let locations = known.into_iter().map(|known| known.location);
        Self::first_readable(locations, instance, |location| Self::with(location, instance, archives, &corrected))
    }

    /// Asks for the locations of an instance.
    fn locations(
        reader: &mut Reader,
        verified: &Verified,
        instance: &RetrievedInstance<'_>,
    ) -> Result<Vec<KnownLocation>, ObjectError> {
        let known = reader.known_locations(instance.sop_instance_uid).map_err(|error| {
            tracing::warn!(%error, "the index cannot be asked for the locations of an instance");
            ObjectError::NotKept
        })?;
        not_damaged(known, verified)
    }

    /// Opens an instance at the first of these locations where it can be read.
    pub(super) fn first_of(
        locations: impl IntoIterator<Item = Location>,
        instance: &RetrievedInstance<'_>,
        archives: &Archives,
    ) -> Result<Self, ObjectError> {
        Self::first_readable(locations, instance, |location| Self::at(location, instance, archives))
    }

    fn first_readable(
        locations: impl IntoIterator<Item = Location>,
        instance: &RetrievedInstance<'_>,
        open: impl Fn(Location) -> Result<Self, ObjectError>,
    ) -> Result<Self, ObjectError> {
        let mut failure = ObjectError::NotKept;
        for location in locations {
            match open(location) {
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
        Self::with(location, instance, archives, &None)
    }

    fn with(
        location: Location,
        instance: &RetrievedInstance<'_>,
        archives: &Archives,
        corrected: &Option<Arc<CorrectedValues>>,
    ) -> Result<Self, ObjectError> {
        let identity = Identity {
            sop_instance_uid: instance.sop_instance_uid,
            sop_class_uid: Some(&instance.kind.sop_class_uid),
            transfer_syntax: None,
        };
        let object = StoredObject::open(&location, &identity, archives)?.corrected(corrected.clone());
        let transfer_syntax = object.transfer_syntax().to_owned();
        let walk = match NativeSyntax::of_uid(&transfer_syntax) {
            Some(NativeSyntax::ExplicitBig | NativeSyntax::Deflated) => {
                let data_set = object.rewritten(NativeSyntax::ExplicitLittle)?;
                Walk::new(Bytes::DataSet(data_set), 0, true, MAX_DEPTH)
            }
            _ if corrected.is_some() => {
                let explicit = object.encoding_as_stored().is_explicit();
                Walk::new(Bytes::DataSet(object.as_stored()?), 0, explicit, MAX_DEPTH)
            }
            Some(NativeSyntax::ImplicitLittle | NativeSyntax::ExplicitLittle) | None => {
                let explicit = object.encoding().is_explicit();
                let (mut source, offset) = object.into_source();
                source.go_to(offset).map_err(ObjectError::Read)?;
                Walk::new(Bytes::Source(source), offset, explicit, MAX_DEPTH)
            }
        };
        Ok(Self { walk, transfer_syntax, location })
    }
}

/// The locations of an instance without those whose objects differ or are known to be damaged.
pub(super) fn not_damaged(
    mut known: Vec<KnownLocation>,
    verified: &Verified,
) -> Result<Vec<KnownLocation>, ObjectError> {
    known.retain(|known| !known.differs);
    let are_some = !known.is_empty();
    known.retain(|known| known.checksum.is_none_or(|checksum| !verified.is_damaged(&known.location, checksum)));
    if known.is_empty() && are_some { Err(ObjectError::Damaged) } else { Ok(known) }
}

/// Returns the status for an object that cannot be read.
pub(super) fn lost(error: &ObjectError) -> Problem {
    match error {
        ObjectError::NotKept => Problem::not_found("the index knows it, and its object is not kept here"),
        ObjectError::Changed(_) | ObjectError::OtherClass => {
            Problem::not_found("another object lies where the index says; the next scan corrects the index")
        }
        ObjectError::Rewrite(RewriteError::Correcting(error)) => {
            Problem::new(StatusCode::NOT_ACCEPTABLE, error.to_string())
        }
        ObjectError::Rewrite(_) => {
            Problem::new(StatusCode::NOT_ACCEPTABLE, "the object cannot be brought into that transfer syntax")
        }
        ObjectError::Decompress(DecompressError::NoMemory) => Problem::decoders_are_busy(),
        ObjectError::Decompress(error) => Problem::not_decompressed(error),
        ObjectError::Store(_) if error.is_gone() => Problem::not_found("the index knows it, and its file is gone"),
        ObjectError::Store(_) | ObjectError::Read(_) | ObjectError::Damaged => Problem::ours(),
    }
}
