//! Query/Retrieve, C-GET and C-MOVE (PS3.4 C.4.2, C.4.3): an Identifier becomes a list of instances, and these become
//! C-STORE-RQs. [`crate::deliver`] reads the objects; `framing` makes PDUs of them.

pub(in crate::scp) mod contexts;
pub(in crate::scp) mod framing;
pub(in crate::scp) mod tally;

use crate::encoding::data_set::uid_list_data_set;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::spawn_blocking;
use tracing::{debug, warn};

use super::arriving::ArrivingIdentifier;
use crate::db::Search;
use crate::deliver::delivery::{Delivery, DeliveryOptions};
use crate::dimse::command_set::CommandField;
use crate::dimse::message::{DataSetPresence, RetrieveRequest, SubOperations};
use crate::dimse::pdata::put_message;
use crate::dimse::{Response, Status};
use crate::encoding::syntax::Encoding;
use crate::model::level::InformationModel;
use crate::model::sop_class::Service;
use crate::qr::{self, FindError, Hierarchy, Identifier, Instances, RetrieveError};
use crate::scp::negotiation::{Agreement, HeldSyntaxes};
use crate::shares::{CountedPeer, PeerMemory, Share};
use crate::ul::associate::PresentationContext;
use tally::{Ending, Going, Tally};

/// How long the list of held transfer syntaxes holds good.
const HELD_HOLDS: Duration = Duration::from_secs(60);

/// How long a node waits for that list before it begins to listen. It is there at once but in huge archives, where the
/// first associations do without.
const HELD_PATIENCE: Duration = Duration::from_secs(2);

/// Failed SOP Instance UID List.
const FAILED_SOP_INSTANCE_UID_LIST: dicom_core::Tag = dicom_core::Tag(0x0008, 0x0058);

/// What can be set about retrievals.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// What becomes of retrievals that break PS3.4 C.4.2.2.1; see [`Hierarchy`].
    pub hierarchy: Hierarchy,
    /// The Specific Character Set of requests that name none.
    pub assumed_character_set: String,
    /// Instances of one retrieval; more are refused with A701. Each takes some 70 bytes while it lasts.
    pub max_instances: usize,
    /// Time for a peer to answer a C-STORE-RQ of ours once it has all of it.
    pub response_timeout: Duration,
    /// Time for the file system to give the next bytes of an object.
    pub source_timeout: Duration,
    /// How long an object that was held against its checksum counts as sound while its file is untouched.
    pub verification_holds: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            hierarchy: Hierarchy::Lenient,
            assumed_character_set: String::new(),
            max_instances: 200_000,
            response_timeout: Duration::from_secs(60),
            source_timeout: Duration::from_secs(60),
            verification_holds: crate::store::DEFAULT_HOLDS,
        }
    }
}

/// What C-GET and C-MOVE need.
#[derive(Debug)]
pub struct Retrieve {
    delivery: Arc<Delivery>,
    options: Options,
    held: HeldSyntaxes,
    /// When the list of held transfer syntaxes was last asked for.
    held_since: Mutex<Option<Instant>>,
}

impl Retrieve {
    /// Sends what this index names.
    #[must_use]
    pub fn new(index: PathBuf, options: Options) -> Self {
        let Options { max_instances, source_timeout, verification_holds, .. } = options;
        let delivery = Delivery::new(index, DeliveryOptions { max_instances, source_timeout, verification_holds });
        let (held, held_since) = (HeldSyntaxes::default(), Mutex::new(None));
        Self { delivery: Arc::new(delivery), options, held, held_since }
    }

    /// What it has in common with other ways to get objects.
    #[must_use]
    pub fn delivery(&self) -> &Arc<Delivery> {
        &self.delivery
    }

    /// What can be set.
    pub(in crate::scp) fn options(&self) -> &Options {
        &self.options
    }

    /// The transfer syntaxes that are held; waits a little for the list, so that the first association has it.
    pub(in crate::scp) async fn held_before_first_association(self: &Arc<Self>) -> HeldSyntaxes {
        if let Some(asking) = self.refresh_held()
            && tokio::time::timeout(HELD_PATIENCE, asking).await.is_err()
        {
            debug!("the list of held transfer syntaxes is not there yet");
        }
        self.held.clone()
    }

    /// Asks for the list again, in the background, if it is old.
    pub(in crate::scp) fn refresh_held(self: &Arc<Self>) -> Option<tokio::task::JoinHandle<()>> {
        let mut since = self.held_since.lock().unwrap_or_else(PoisonError::into_inner);
        if since.is_some_and(|since| since.elapsed() < HELD_HOLDS) {
            return None;
        }
        *since = Some(Instant::now());
        let this = Arc::clone(self);
        Some(spawn_blocking(move || {
            let Ok(mut reader) = this.delivery.readers.take() else { return };
            match reader.held_transfer_syntaxes() {
                Ok(rows) => {
                    let mut held: HashMap<String, Vec<String>> = HashMap::new();
                    for (class, transfer_syntax) in rows {
                        held.entry(class).or_default().push(transfer_syntax);
                    }
                    this.held.replace(held);
                    this.delivery.readers.give_back(reader);
                }
                Err(error) => warn!(%error, "the index does not say which transfer syntaxes it holds"),
            }
        }))
    }
}

/// An Identifier that is arriving.
pub(in crate::scp) struct Receiving {
    asked: Asked,
    model: InformationModel,
    relational: bool,
    identifier: ArrivingIdentifier,
}

/// A retrieval that was asked for.
#[derive(Clone, Debug)]
pub(in crate::scp) struct Asked {
    pub(in crate::scp) context_id: u8,
    pub(in crate::scp) request: RetrieveRequest,
    encoding: Encoding,
}

impl Receiving {
    /// Begins with the command; `None` when its SOP Class is not that of the context.
    pub(in crate::scp) fn begin(
        context_id: u8,
        request: &RetrieveRequest,
        context: &PresentationContext,
        agreement: &Agreement,
        memory: &PeerMemory,
    ) -> Option<Self> {
        let model = match (context.service, request.field) {
            (Service::Get(model), CommandField::C_GET_RQ) | (Service::Move(model), CommandField::C_MOVE_RQ) => model,
            _ => return None,
        };
        let identifier = ArrivingIdentifier::begin(&request.affected_sop_class_uid, context, memory)?;
        let relational = agreement.extended(context.service).is_some_and(|bytes| bytes.first() == Some(&1));
        let asked = Asked { context_id, request: request.clone(), encoding: identifier.encoding };
        Some(Self { asked, model, relational, identifier })
    }

    /// Takes the next fragment of the Identifier.
    pub(in crate::scp) fn accept(&mut self, fragment: &[u8]) {
        self.identifier.accept(fragment);
    }

    /// What was asked for.
    pub(in crate::scp) fn asked(&self) -> &Asked {
        &self.asked
    }

    /// The Identifier is complete: which instances these are, found within `time_limit`; with what is counted for the list.
    pub(in crate::scp) async fn instances(
        self,
        retrieve: &Arc<Retrieve>,
        peer: &CountedPeer,
        time_limit: Duration,
    ) -> (Asked, Result<(Instances, Share), RetrieveError>) {
        let Self { asked, model, relational, identifier } = self;
        let (service, encoding) = (Arc::clone(retrieve), asked.encoding);
        let question = move || {
            let options = service.options();
            let bytes = identifier.finish()?;
            let identifier = Identifier::decode(bytes.as_slice(), encoding, &options.assumed_character_set)
                .map_err(FindError::Identifier)?;
            qr::parse_retrieval(model, &identifier, relational, options.hierarchy)
        };
        let instances = retrieve.delivery.instances(peer, time_limit, question).await;
        (asked, instances)
    }
}

impl Asked {
    /// A response that says how far the sub-operations are (PS3.7 tables 9.3-7 and 9.3-10).
    pub(in crate::scp) fn response(&self, status: Status) -> Response {
        Response::new(self.request.field, self.request.message_id, status)
            .with_sop_class(Some(&self.request.affected_sop_class_uid))
    }

    /// The refusal of a retrieval that cannot begin.
    pub(in crate::scp) fn refusal(&self, error: &RetrieveError) -> Response {
        let failure = error.failure();
        self.response(Status(failure.status))
            .with_comment(&failure.comment)
            .with_offending_elements(&failure.offending_elements)
    }

    /// Appends a pending response as it is sent.
    pub(in crate::scp) fn put_pending(&self, out: &mut Vec<u8>, numbers: SubOperations, peer_max_length: u32) {
        let response = self.response(Status::PENDING).with_sub_operations(numbers);
        put_message(out, self.context_id, &response.command_set(DataSetPresence::Absent), None, peer_max_length);
    }

    /// The last response, and its Identifier where some sub-operations failed (PS3.4 C.4.2.1.4.2, C.4.3.1.3.2).
    pub(in crate::scp) fn last_response(
        &self,
        tally: &Tally,
        instances: &Instances,
        ending: Ending,
    ) -> (Response, Option<Vec<u8>>) {
        let (status, going) = match ending {
            Ending::Cancelled => (Status::CANCEL, Going::On),
            Ending::Complete => (tally.status(), Going::Ended),
        };
        let response = self.response(status).with_sub_operations(tally.numbers(going)).with_comment(&tally.comment());
        let uids = tally.failed().iter().filter_map(|at| instances.get(*at)).map(|instance| instance.sop_instance_uid);
        let identifier = (!tally.failed().is_empty()).then(|| self.failed_list(uids));
        (response, identifier)
    }

    fn failed_list<'i>(&self, uids: impl Iterator<Item = &'i str>) -> Vec<u8> {
        uid_list_data_set(self.encoding, FAILED_SOP_INSTANCE_UID_LIST, uids)
    }
}
