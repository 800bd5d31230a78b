//! A list of objects to send, and the start of one object. An object is opened where it can be
//! read, and its first bytes are read.

use std::io;
use std::sync::Arc;

use tracing::{debug, warn};

use super::buffer::{Buffer, Spares};
use super::decoders::DecodingFor;
use super::delivery::Delivery;
use super::error::DeliverError;
use super::framing::{Framing, ObjectForm, SentForm};
use super::object::{DataSet, Identity, ObjectError, StoredObject};
use crate::archive::Archives;
use crate::db::KnownLocation;
use crate::db::Search;
use crate::db::open::Reader;
use crate::model::uid::for_log;
use crate::qr::{Instances, ObjectKind, RetrievedInstance};
use crate::shares::PeerMemory;

/// Decides whether objects of a kind are sent.
pub(crate) type Only = Arc<dyn Fn(&ObjectKind) -> bool + Send + Sync>;

/// The objects to send, and how to send them.
pub(crate) struct Sending {
    pub(crate) delivery: Arc<Delivery>,
    pub(crate) instances: Arc<Instances>,
    /// Flags of the instances that are already over, by their positions in the list. Positions past
    /// its end are not over.
    pub(crate) over: Vec<bool>,
    /// The kinds to send. `None` means all.
    pub(crate) only: Option<Only>,
    /// The format of the protocol.
    pub(crate) framing: Arc<dyn Framing>,
    /// The memory of the peer that asked.
    pub(crate) memory: PeerMemory,
}

/// The next part.
pub(crate) enum Piece {
    /// The beginning of an object: what precedes its data set, and data. `at` is its position in
    /// the list. `number` counts the objects that were begun or failed.
    Begin { at: usize, number: usize, bytes: Buffer, is_last: bool },
    /// More data of the object.
    More { bytes: Buffer, is_last: bool },
    /// The object cannot be read to its end.
    Broken(io::Error),
    /// An object that failed before it began.
    Failed { at: usize, error: DeliverError },
}

/// An object whose beginning was sent.
pub(super) struct Unfinished {
    pub(super) data_set: DataSet,
    pub(super) form: ObjectForm,
}

impl Sending {
    /// Opens the object, at the first of its locations where it can be read, and reads its first
    /// bytes. `number` counts the objects that are sent, from 1.
    ///
    /// # Errors
    /// The error of the first location that has an object.
    pub(super) fn begin(
        &self,
        reader: Option<&mut Reader>,
        archives: &Archives,
        (instance, number): (&RetrievedInstance<'_>, usize),
        (spares, piece_length): (&mut Spares, usize),
        decoding: &DecodingFor,
    ) -> Result<(Buffer, Option<Unfinished>), DeliverError> {
        let form = self.framing.choose(instance.kind)?;
        let known = reader.ok_or(DeliverError::Index)?.known_locations(instance.sop_instance_uid).map_err(|error| {
            warn!(%error, "the index cannot be asked for the locations of an instance");
            DeliverError::Index
        })?;
        let mut bytes = spares.buffer();
        let mut before = Vec::with_capacity(256);
        self.framing.begin(form, instance, number, &mut before);
        let mut failure = None;
        for known in known.iter().filter(|known| !known.differs) {
            let opened = self.open(known, instance, (form.sent, decoding), archives).and_then(|mut data_set| {
                bytes.reset();
                bytes.put(&before);
                let is_last =
                    self.framing.fill(form, &mut data_set, &mut bytes, piece_length).map_err(ObjectError::Read)?;
                Ok((data_set, is_last))
            });
            match opened {
                Ok((_, true)) => return Ok((bytes, None)),
                Ok((data_set, false)) => return Ok((bytes, Some(Unfinished { data_set, form }))),
                Err(error) => {
                    let instance = for_log(instance.sop_instance_uid);
                    debug!(instance, place = ?known.location.place, "an object cannot be had from where the index says: {error}");
                    // Of several reasons, the first one counts that is not only "gone".
                    if failure.is_none() || matches!(failure, Some(ObjectError::NotKept)) {
                        failure = Some(error);
                    }
                }
            }
        }
        // `None`: it was dropped from the index since the request.
        Err(failure.map_or(DeliverError::Object(ObjectError::NotKept), DeliverError::Object))
    }

    fn open(
        &self,
        known: &KnownLocation,
        instance: &RetrievedInstance<'_>,
        (sent, decoding): (SentForm, &DecodingFor),
        archives: &Archives,
    ) -> Result<DataSet, ObjectError> {
        let identity = Identity {
            sop_instance_uid: instance.sop_instance_uid,
            sop_class_uid: Some(&instance.kind.sop_class_uid),
            transfer_syntax: Some(&instance.kind.transfer_syntax),
        };
        let object = StoredObject::open(&known.location, &identity, archives)?;
        let object = object.expecting(known.checksum, self.delivery.verified())?.corrected(known.corrected.clone());
        match sent {
            SentForm::AsStored => object.as_stored(),
            SentForm::Rewritten(to) => object.rewritten(to),
            SentForm::Decompressed(to) => object.decompressed(to, decoding.clone()),
        }
    }
}
