//! One object while it arrives: its data set comes in fragments, and it is stored at the end.
//!
//! While fragments arrive, the head of the data set goes to the header reader. All of it goes to a
//! file, or to nothing in metadata-only mode. Memory holds one batch that is being filled and one
//! that is being written, whatever the size of the object. Files are written on threads of their
//! own. Reading the header takes 2 to 3 µs, which is less than the change to another thread. So it
//! is done where the fragment arrives.

use std::sync::Arc;
use std::time::Instant;

use tokio::task::yield_now;

use super::error::ReceiveError;
use super::keep::{KeptInstance, keep};
use super::sink::FileSink;
use super::storage::Storage;
use crate::db::{Committed, ReceivedFrom};
use crate::encoding::padding::without_padding;
use crate::encoding::syntax::is_deflated;
use crate::ingest::limits::{MAX_VALUE, MAX_VALUES};
use crate::ingest::{HeaderParser, Need, Outcome};
use crate::model::attribute::AttributeId;
use crate::model::record::InstanceRecord;
use crate::model::uid::is_acceptable_uid;
use crate::shares::{CountedPeer, PeerMemory, Share};
use crate::store::FileMeta;
use crate::telemetry::metrics;

/// Bytes of the head of a data set that are not counted. Nearly all heads have less.
const UNASKED_HEAD: usize = 32 * 1024;

/// Maximum that the header reader keeps of a data set.
const MAX_HEAD: usize = MAX_VALUES + MAX_VALUE;

/// Compressed bytes of a deflated data set that are inflated before other tasks get their turn. At
/// deflate's best ratio of 1,032 they become some 4 MB.
const INFLATED_AT_A_TIME: usize = 4 * 1024;

/// Facts that are announced about an object before its data set is read. They come from a
/// C-STORE-RQ and its presentation context, or from the File Meta Information of a file.
#[derive(Clone, Debug)]
pub struct Announced {
    /// SOP Class UID.
    pub sop_class_uid: String,
    /// SOP Instance UID.
    pub sop_instance_uid: String,
    /// Transfer Syntax UID of the data set.
    pub transfer_syntax: String,
    /// The study to which it must belong, if the sender names one.
    pub study_instance_uid: Option<String>,
}

/// A stored object: its row is committed, and its bytes are as durable as the settings say.
#[derive(Debug)]
pub struct Arrived {
    /// Proof that its row is durable.
    pub committed: Committed,
    /// Whether it is a copy that differs. Services answer with another object of the instance.
    pub is_other: bool,
    /// Study Instance UID.
    pub study_instance_uid: String,
    /// Series Instance UID.
    pub series_instance_uid: String,
    /// Patient ID, for the audit trail. Empty if the object has none.
    pub patient_id: String,
}

/// An object that is arriving.
pub(crate) struct Arriving {
    storage: Arc<Storage>,
    announced: Arc<Announced>,
    sender: Arc<ReceivedFrom>,
    parser: HeaderParser<'static>,
    header: HeaderProgress,
    /// `None` in metadata-only mode, and after an error.
    file: Option<Box<FileSink>>,
    length: u64,
    memory: PeerMemory,
    /// The memory that is counted for the header reader.
    head: Option<Share>,
    error: Option<ReceiveError>,
}

/// The state of the header reader.
enum HeaderProgress {
    Reading,
    /// It reads, and each byte may become a thousand.
    Inflating,
    /// It has all that it keeps. It only looks for the end of the data set.
    Read,
}

impl Arriving {
    /// Begins with the announcement.
    ///
    /// # Errors
    /// When the data set need not be read.
    pub(crate) fn begin(
        storage: &Arc<Storage>,
        announced: Arc<Announced>,
        sender: &Arc<ReceivedFrom>,
        memory: &PeerMemory,
    ) -> Result<Self, ReceiveError> {
        if !is_acceptable_uid(without_padding(&announced.sop_instance_uid)) {
            return Err(ReceiveError::InvalidInstanceUid);
        }
        let transfer_syntax = announced.transfer_syntax.as_str();
        let file = storage.objects.as_ref().map(|objects| {
            let meta = FileMeta {
                sop_class_uid: &announced.sop_class_uid,
                sop_instance_uid: &announced.sop_instance_uid,
                transfer_syntax,
                source_ae_title: &sender.calling_ae_title,
            };
            let sink = FileSink::new(objects, &storage.under_way, meta.encode(), memory);
            Box::new(sink.for_journal(storage.journal.as_ref()))
        });
        let deflated = is_deflated(transfer_syntax);
        Ok(Self {
            storage: Arc::clone(storage),
            sender: Arc::clone(sender),
            parser: HeaderParser::for_data_set(storage.wanted, transfer_syntax).reading_to_the_end(),
            header: if deflated { HeaderProgress::Inflating } else { HeaderProgress::Reading },
            file,
            length: 0,
            memory: memory.clone(),
            head: None,
            error: None,
            announced,
        })
    }

    /// Takes the next fragment of the data set. After an error, the rest is only counted.
    pub(crate) async fn accept(&mut self, fragment: &[u8]) {
        self.length += fragment.len() as u64;
        if self.error.is_some() {
            return;
        }
        if let Err(error) = self.read_header(fragment).await {
            self.error = Some(error);
            self.file = None;
        }
        if let Some(file) = &mut self.file
            && let Err(error) = file.accept(fragment).await
        {
            self.error = Some(error);
            self.file = None;
        }
    }

    async fn read_header(&mut self, fragment: &[u8]) -> Result<(), ReceiveError> {
        self.count_head(fragment)?;
        let need = match self.header {
            HeaderProgress::Read => {
                self.parser.feed(fragment);
                return Ok(());
            }
            HeaderProgress::Reading => self.parser.feed(fragment),
            HeaderProgress::Inflating => {
                let mut need = Need::More;
                for piece in fragment.chunks(INFLATED_AT_A_TIME) {
                    need = self.parser.feed(piece);
                    if need == Need::Done {
                        break;
                    }
                    yield_now().await;
                }
                need
            }
        };
        if need == Need::Done || self.parser.has_all_wanted() {
            self.header = HeaderProgress::Read;
            // The remaining record usually has a few kilobytes.
            self.head = None;
        }
        Ok(())
    }

    /// Counts what the header reader may keep: at most what it was given, and at most its own
    /// limit.
    fn count_head(&mut self, fragment: &[u8]) -> Result<(), ReceiveError> {
        let may_hold = match self.header {
            HeaderProgress::Read => return Ok(()),
            HeaderProgress::Reading => self.length.min(MAX_HEAD as u64) as usize,
            // Each byte may become a thousand.
            HeaderProgress::Inflating if self.length > (UNASKED_HEAD / 16) as u64 => MAX_HEAD,
            HeaderProgress::Inflating => return Ok(()),
        };
        // The usual head is in the first fragment.
        if may_hold <= UNASKED_HEAD || self.length == fragment.len() as u64 {
            return Ok(());
        }
        let granted = match &mut self.head {
            Some(share) => share.count() >= may_hold || share.grow(may_hold - share.count()),
            none => {
                *none = self.memory.take(may_hold);
                none.is_some()
            }
        };
        if granted { Ok(()) } else { Err(ReceiveError::TooMuchAtOnce) }
    }

    /// Stores the object at the end of the data set, and waits until its row is durable.
    ///
    /// The record is read before the future begins. Otherwise each future on the way would have
    /// room for the header reader, and copy it.
    ///
    /// # Errors
    /// The reason why it is not stored: the first error on the way, or the error of the store or of
    /// the index.
    pub(crate) fn finish(self) -> impl Future<Output = Result<Arrived, ReceiveError>> + Send {
        let begun = Instant::now();
        metrics::RECEIVED_DATA_SET_BYTES.add(self.length);
        let Self { storage, announced, sender, parser, file, length, memory, error, .. } = self;
        let record = error.map_or_else(|| read(&announced, parser, length), Err);
        async move {
            let arrived = match record {
                Ok(record) => keep_record(&storage, (record, &sender), file, (length, memory.peer())).await,
                Err(error) => Err(error),
            };
            metrics::STORE_SECONDS.observe(begun.elapsed());
            match &arrived {
                Ok(_) => metrics::INSTANCES_STORED.increment(),
                Err(error) => {
                    error.count();
                    // A conflict has its own line.
                    if !error.is_ours() && !matches!(error, ReceiveError::Duplicate) {
                        storage.log_refused(&sender, &announced.sop_instance_uid, &error.comment());
                    }
                }
            }
            arrived
        }
    }
}

async fn keep_record(
    storage: &Arc<Storage>,
    (record, sender): (Box<InstanceRecord>, &Arc<ReceivedFrom>),
    file: Option<Box<FileSink>>,
    (length, peer): (u64, &CountedPeer),
) -> Result<Arrived, ReceiveError> {
    let [study_instance_uid, series_instance_uid, patient_id] =
        [AttributeId::StudyInstanceUID, AttributeId::SeriesInstanceUID, AttributeId::PatientID]
            .map(|id| record.value(id).to_owned());
    let KeptInstance { committed, is_other } =
        keep(storage, (record, Arc::clone(sender)), file, (length, peer)).await?;
    Ok(Arrived { committed, is_other, study_instance_uid, series_instance_uid, patient_id })
}

/// Reads the record, and compares the data set of so many bytes with the announcement.
fn read(
    announced: &Announced,
    parser: HeaderParser<'static>,
    length: u64,
) -> Result<Box<InstanceRecord>, ReceiveError> {
    let mut parsed = parser.finish();
    parsed.note_length(length);
    // A scan indexes a damaged file as far as possible, because there is nothing else. A sender has
    // the whole object, so it is told and can send the object again.
    if let Some(fault) = parsed.faults().iter().find(|fault| fault.ended_reading()) {
        return Err(ReceiveError::NotUnderstood(fault.to_string()));
    }
    let record = match Outcome::of(parsed) {
        Outcome::Instance(record) => record,
        Outcome::Incomplete { missing, .. } => {
            return Err(ReceiveError::MissingUid(missing.into_iter().map(|id| id.attribute().tag).collect()));
        }
        Outcome::Dicomdir => return Err(ReceiveError::NotUnderstood("data set is a Media Storage Directory".into())),
        Outcome::NotDicom { reason } => return Err(ReceiveError::NotUnderstood(reason.into())),
        Outcome::Damaged { fault } => return Err(ReceiveError::NotUnderstood(fault.to_string())),
        Outcome::Unreadable { error } => return Err(ReceiveError::NotUnderstood(error.to_string())),
    };
    if record.value(AttributeId::SOPInstanceUID) != announced.sop_instance_uid {
        return Err(ReceiveError::OtherInstance);
    }
    if record.value(AttributeId::SOPClassUID) != announced.sop_class_uid {
        return Err(ReceiveError::OtherClass);
    }
    let study = record.value(AttributeId::StudyInstanceUID);
    if announced.study_instance_uid.as_deref().is_some_and(|expected| expected != study) {
        return Err(ReceiveError::OtherStudy);
    }
    let unusable: Vec<_> = [AttributeId::StudyInstanceUID, AttributeId::SeriesInstanceUID]
        .into_iter()
        .filter(|id| !is_acceptable_uid(without_padding(record.value(*id))))
        .map(|id| id.attribute().tag)
        .collect();
    if unusable.is_empty() { Ok(record) } else { Err(ReceiveError::MissingUid(unusable)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::open::{Writer, WriterOptions};
    use crate::model::peer::CountedAs;
    use crate::shares::Shares;
    use crate::store::{Objects, Options};

    const CT_IMAGE_STORAGE: &str = "1.2.840.10008.5.1.4.1.1.2";

    fn data_set() -> Vec<u8> {
        let uids = [
            (0x0008, 0x0016, CT_IMAGE_STORAGE),
            (0x0008, 0x0018, "1.2.3.4"),
            (0x0020, 0x000D, "1.2.3"),
            (0x0020, 0x000E, "1.2.3.9"),
        ];
        let mut bytes = Vec::new();
        for (group, element, uid) in uids {
            let padded = format!("{uid}{}", if uid.len() % 2 == 1 { "\0" } else { "" });
            bytes.extend_from_slice(&u16::to_le_bytes(group));
            bytes.extend_from_slice(&u16::to_le_bytes(element));
            bytes.extend_from_slice(&(padded.len() as u32).to_le_bytes());
            bytes.extend_from_slice(padded.as_bytes());
        }
        bytes
    }

    // This is what STOW-RS needs: an object without an association, for a study that the request
    // names.
    #[tokio::test]
    async fn an_object_without_an_association_is_stored_in_the_study_that_was_announced() {
        let directory = tempfile::tempdir().unwrap();
        let writer = Writer::open(&directory.path().join("index.db"), WriterOptions::default()).unwrap();
        let objects = Objects::open(&Options::new(directory.path().join("objects"))).unwrap();
        let storage = Arc::new(Storage::new(Some(Arc::new(objects)), writer.handle()));
        let peer = Arc::new(CountedAs::address([10, 0, 0, 1].into()));
        let memory = PeerMemory::new(&Shares::new(1 << 20, 0, &metrics::MEMORY_REFUSED), &peer);
        let arrive = async |instance: &str, study: &str| {
            let announced = Arc::new(Announced {
                sop_class_uid: CT_IMAGE_STORAGE.into(),
                sop_instance_uid: instance.into(),
                transfer_syntax: "1.2.840.10008.1.2".into(),
                study_instance_uid: Some(study.into()),
            });
            let mut arriving = Arriving::begin(&storage, announced, &Arc::default(), &memory).unwrap();
            for fragment in data_set().chunks(7) {
                arriving.accept(fragment).await;
            }
            arriving.finish().await
        };
        assert!(matches!(arrive("1.2.3.4", "1.2.999").await, Err(ReceiveError::OtherStudy)));
        assert!(matches!(arrive("1.2.3.5", "1.2.3").await, Err(ReceiveError::OtherInstance)));
        let stored = directory.path().join("objects/1.2.3/1.2.3.9/1.2.3.4.dcm");
        assert!(!stored.exists());
        let arrived = arrive("1.2.3.4", "1.2.3").await.unwrap();
        assert_eq!((&*arrived.study_instance_uid, &*arrived.series_instance_uid), ("1.2.3", "1.2.3.9"));
        assert!(std::fs::read(stored).unwrap().ends_with(&data_set()));
        storage.under_way.ended().await;
        writer.close().unwrap();
    }

    // The head of a deflated data set is counted with its possible size after inflating, for each
    // of these transfer syntaxes.
    #[tokio::test]
    async fn each_deflated_transfer_syntax_counts_the_memory_that_its_head_may_become() {
        use std::io::Write as _;

        let directory = tempfile::tempdir().unwrap();
        let writer = Writer::open(&directory.path().join("index.db"), WriterOptions::default()).unwrap();
        let storage = Arc::new(Storage::new(None, writer.handle()));
        // A value before all UIDs that cannot be compressed.
        let mut seed = 1_u32;
        let noise = std::iter::repeat_with(|| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 24) as u8
        });
        let noise: Vec<u8> = noise.take(8 << 10).collect();
        let mut bytes = b"\x08\0\x01\0UN\0\0".to_vec();
        bytes.extend_from_slice(&(noise.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&noise);
        let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&bytes).unwrap();
        let deflated = encoder.finish().unwrap();
        let peer = Arc::new(CountedAs::address([10, 0, 0, 1].into()));
        let none_left = PeerMemory::new(&Shares::new(0, 0, &metrics::MEMORY_REFUSED), &peer);
        for transfer_syntax in ["1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"] {
            let announced = Arc::new(Announced {
                sop_class_uid: CT_IMAGE_STORAGE.into(),
                sop_instance_uid: "1.2.3.4".into(),
                transfer_syntax: transfer_syntax.into(),
                study_instance_uid: None,
            });
            let mut arriving = Arriving::begin(&storage, announced, &Arc::default(), &none_left).unwrap();
            for fragment in deflated.chunks(1000) {
                arriving.accept(fragment).await;
            }
            assert!(matches!(arriving.finish().await, Err(ReceiveError::TooMuchAtOnce)), "{transfer_syntax}");
        }
        writer.close().unwrap();
    }
}
