//! The result of reading an object.

use std::io;

use dicom_core::Tag;
use dicom_dictionary_std::{tags, uids};

use super::fault::Fault;
use super::parsed::{Parsed, Verdict};
use crate::model::attribute::{ATTRIBUTES, AttributeId};
use crate::model::record::InstanceRecord;
use crate::model::uid::is_acceptable_uid;

/// The reason of [`Outcome::NotDicom`] for an object without bytes.
pub const EMPTY: &str = "empty";

/// The result of reading an object.
#[derive(Debug)]
pub enum Outcome {
    /// An instance. [`InstanceRecord::faults`] lists its faults.
    Instance(Box<InstanceRecord>),
    /// A DICOM object that lacks a UID that identifies an instance.
    Incomplete {
        /// The missing UIDs.
        missing: Vec<AttributeId>,
        /// The pixel data, or an element behind them, if wanted values were read up to there. UIDs
        /// behind it are not read.
        read_up_to: Option<Tag>,
    },
    /// A DICOMDIR (PS3.10 8.6).
    Dicomdir,
    /// Not a DICOM object.
    NotDicom {
        /// The kind of file, or the reason why it is not DICOM.
        reason: &'static str,
    },
    /// The object is damaged before its UIDs.
    Damaged {
        /// The fault that ended reading.
        fault: Fault,
    },
    /// The object could not be read. The file system or the stream failed, not the object.
    Unreadable {
        /// The error.
        error: io::Error,
    },
}

/// Attributes that every indexed instance needs: the unique keys below the patient (PS3.4 C.6.1.1),
/// and the SOP Class. Without the SOP Class no peer can be offered the instance.
pub(super) const IDENTIFYING: [AttributeId; 4] = [
    AttributeId::StudyInstanceUID,
    AttributeId::SeriesInstanceUID,
    AttributeId::SOPInstanceUID,
    AttributeId::SOPClassUID,
];

impl Outcome {
    /// Classifies an object whose header was parsed with [`Wanted::index`](super::Wanted::index) or
    /// [`Wanted::with_declared`](super::Wanted::with_declared).
    #[must_use]
    pub fn of(mut parsed: Parsed) -> Self {
        Self::decoded(&mut parsed)
    }

    pub(super) fn decoded(parsed: &mut Parsed) -> Self {
        match parsed.verdict() {
            Verdict::Object => {}
            Verdict::Dicomdir => return Self::Dicomdir,
            Verdict::NotDicom(reason) => return Self::NotDicom { reason },
        }
        let mut record = Box::new(InstanceRecord::new());
        parsed.decode(|slot, push| {
            if let Some(attribute) = ATTRIBUTES.get(usize::from(slot)) {
                record.set_with(attribute.id, |text| push(text));
            }
        });
        // Without File Meta Information, only the data set shows that this is a DICOMDIR. A node
        // would receive it like this, and it is not an instance.
        if record.value(AttributeId::SOPClassUID) == uids::MEDIA_STORAGE_DIRECTORY_STORAGE {
            return Self::Dicomdir;
        }
        if parsed.declared.is_some() {
            record.note_declared();
        }
        parsed.decode_declared(|unit, push| record.set_declared_with(unit, |text| push(text)));
        record.set(AttributeId::AvailableTransferSyntaxUID, parsed.transfer_syntax());
        for fault in parsed.faults() {
            record.add_fault(fault.coded());
        }
        let from_meta = [
            (AttributeId::SOPClassUID, parsed.media_storage_sop_class_uid()),
            (AttributeId::SOPInstanceUID, parsed.media_storage_sop_instance_uid()),
        ];
        for (id, uid) in from_meta {
            if record.value(id).is_empty() && !uid.is_empty() {
                record.set(id, uid);
                record.add_fault(Fault::UidFromMeta { tag: id.attribute().tag }.coded());
            }
        }
        let missing: Vec<_> = IDENTIFYING.into_iter().filter(|id| !is_acceptable_uid(record.value(*id))).collect();
        if missing.is_empty() {
            record.shrink_to_fit();
            return Self::Instance(record);
        }
        match parsed.faults().iter().find(|fault| fault.ended_reading()) {
            Some(fault) => Self::Damaged { fault: *fault },
            None => {
                let read_up_to = parsed.first_behind.filter(|tag| tag.group() >= tags::PIXEL_DATA.group());
                Self::Incomplete { missing, read_up_to }
            }
        }
    }
}
