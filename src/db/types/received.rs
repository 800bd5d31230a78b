//! Arrivals at an index, and their outcomes.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use crate::db::error::Error;
use crate::model::attribute::AttributeId;
use crate::model::checksum::Checksum;
use crate::model::location::Location;
use crate::model::record::InstanceRecord;

/// Guarantee of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// A commit survives a power cut. For objects that nobody else keeps.
    Full,
    /// A commit survives the end of the process, and the index stays whole in a power cut. For
    /// scans, whose files are still there.
    Os,
}

/// Proof that a record is in a committed transaction, as durable as the writer was opened for. Only
/// an engine can make one.
#[must_use]
#[derive(Debug)]
pub struct Committed(pub(in crate::db) ());

/// Knowledge about a received object beside its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compared {
    /// There was no object under its name, or none is kept.
    Nothing,
    /// The same bytes lay under its name, and its location is theirs.
    Same,
    /// Other bytes lay under all names before its own.
    Other,
    /// The file that the index names ([`Stored::first`]) is no longer there.
    FirstIsGone,
    /// The file that the index names holds the same bytes, or nothing tells otherwise.
    FirstIsNotOther,
    /// The file that the index names holds other bytes.
    FirstIsOther,
}

/// An instance that was received.
#[derive(Debug)]
pub struct Received {
    /// The values of its data set.
    pub record: Box<InstanceRecord>,
    /// The location of its object.
    pub location: Location,
    /// The checksum of its data set, if its object is kept.
    pub checksum: Option<Checksum>,
    /// Sender of the instance.
    pub sender: Arc<ReceivedFrom>,
    /// Policy for the object if its instance is known.
    pub policy: ReceivePolicy,
    /// The result of comparing its object.
    pub compared: Compared,
    /// Its entry in the journal of the node. An instance that has one is durable before it comes to
    /// the index.
    pub journaled: Option<JournalEntryId>,
}

/// An entry of an arrival journal (docs/adr/0039).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalEntryId {
    /// The id of the journal.
    pub journal: [u8; 16],
    /// The number of the entry. A later entry has a higher one.
    pub number: u64,
}

impl Received {
    /// An instance of an unknown sender, compared with nothing, with the default policy.
    #[must_use]
    pub fn new(record: Box<InstanceRecord>, location: Location) -> Self {
        let (sender, policy) = (Arc::default(), ReceivePolicy::default());
        Self { record, location, checksum: None, sender, policy, compared: Compared::Nothing, journaled: None }
    }
}

/// Sender of an instance.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ReceivedFrom {
    /// The calling AE title.
    pub calling_ae_title: String,
    /// The address that the association came from.
    pub address: Option<IpAddr>,
}

/// AE title and address, for the log.
impl fmt::Display for ReceivedFrom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let title = match self.calling_ae_title.as_str() {
            "" => "a client over HTTP",
            title => title,
        };
        match self.address {
            Some(address) => write!(f, "{title} at {address}"),
            None => f.write_str(title),
        }
    }
}

/// A location of an instance with all that the index knows of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownLocation {
    /// The location.
    pub location: Location,
    /// The checksum of the data set, if the object was received.
    pub checksum: Option<Checksum>,
    /// Whether the object there is known to differ from the one at the first location.
    pub differs: bool,
    /// Values that corrections replace in the object when it is sent.
    pub corrected: Option<Arc<CorrectedValues>>,
}

/// Values that corrections replace in an object when it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CorrectedValues {
    /// The values that are replaced, in the order of their tags.
    pub values: Vec<(AttributeId, String)>,
    /// When the last of the rules was made, in milliseconds since 1970 UTC.
    pub made_ms: i64,
    /// AE title of the node where it was made.
    pub system: String,
}

/// Outcome for a record that was received.
#[derive(Debug)]
pub struct Stored {
    /// The proof of commit.
    pub committed: Committed,
    /// The change of the index.
    pub outcome: StoreOutcome,
    /// The object that the index keeps instead of the new one, if it lies under another name. Check
    /// that its file exists before you discard the new object.
    pub first: Option<KnownLocation>,
}

/// Receives the outcome of [`Arrivals::store`](crate::db::Arrivals::store).
pub type OnStored = Box<dyn FnOnce(Result<Stored, Error>) + Send>;

/// Relation of a received instance to the index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreOutcome {
    /// It was not known.
    New,
    /// It was known with the same content, as far as the index holds it. Nothing has changed, and
    /// the new object is not needed.
    Identical {
        /// The object that the index names, if the new one was not compared with it. Nothing is
        /// decided then: the record must be stored again with [`Compared::FirstIsNotOther`] or
        /// [`Compared::FirstIsOther`].
        uncompared: Option<Location>,
    },
    /// It was known from another place. The new object is kept as a further location.
    KeptCopy {
        /// Whether the new object differs from the first one, which is a conflict.
        differs: bool,
    },
    /// It was known with other content. The first object stays, the conflict is recorded, and the
    /// new object must be refused.
    KeptFirst,
    /// It was known with other content. The new object has replaced the first one.
    Replaced {
        /// The managed objects that the index no longer names.
        previous: Vec<PathBuf>,
    },
    /// It was known without its object (metadata only, or a file that was gone), which is now
    /// there.
    Completed,
}

impl StoreOutcome {
    /// Whether the index has an object that was received, or the description of one, that it had
    /// not before.
    pub(in crate::db) const fn brings_object(&self) -> bool {
        match self {
            Self::New | Self::Replaced { .. } | Self::Completed | Self::KeptCopy { .. } => true,
            Self::Identical { .. } | Self::KeptFirst => false,
        }
    }
}

/// Action if an arriving instance is known with other content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DuplicatePolicy {
    /// Keep both objects, the new one as a copy that differs.
    #[default]
    KeepBoth,
    /// Keep the first object, record the conflict, and refuse the new one.
    KeepFirst,
    /// Take the new object and record the conflict.
    Replace,
}

/// Action if an arriving instance is known with the same content from a scan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KnownPolicy {
    /// Keep an object of our own. The sender may delete its object, and the scanned file is not
    /// ours.
    #[default]
    KeepOwn,
    /// Keep no object, and trust the archive to keep its file.
    TrustArchive,
}

/// Actions for arriving instances that are known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReceivePolicy {
    /// The policy for instances with other content.
    pub duplicates: DuplicatePolicy,
    /// The policy for instances that are known from a file in place.
    pub known: KnownPolicy,
}
