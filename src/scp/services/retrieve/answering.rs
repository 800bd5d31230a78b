//! C-GET and C-MOVE on an association, from the Identifier to the last response (PS3.4 C.4.2,
//! C.4.3).

use std::collections::HashSet;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

use super::asked::Asked;
use super::retrieval::Retrieval;
use super::retriever::Retrieve;
use super::tally::{Ending, RetrievalTally};
use super::{get, move_to};
use crate::audit::{AuditEvent, AuditOutcome, AuditRecord, AuditedQuery, AuditedStudies, AuditedStudy, Participant};
use crate::dimse::command_set::CommandField;
use crate::dimse::message::RetrieveRequest;
use crate::model::ae_title::AeTitle;
use crate::model::level::InformationModel;
use crate::model::status::Status;
use crate::qr::{self, FindError, Identifier, Instances, RetrieveError};
use crate::scp::services::audited;
use crate::scp::services::incoming_identifier::ArrivingIdentifier;
use crate::scp::services::service::{
    ArrivedCommand, Begin, Boxed, End, Operation, QueuedCommand, Session, sop_class_not_supported,
};
use crate::shares::{CountedPeer, Share};
use crate::telemetry::metrics;
use crate::ul::pdu_io::PduReader;
use crate::ul::tls::PeerRoute;

/// Begins with a C-GET-RQ or C-MOVE-RQ. `models` are the SOP Classes of that message.
pub(super) fn begin(
    service: Option<&Arc<Retrieve>>,
    models: &[(&str, InformationModel)],
    request: &RetrieveRequest,
    command: &ArrivedCommand<'_>,
    session: &Session,
) -> Begin {
    match service.and_then(|service| RetrieveReceiving::begin(service, models, request, command, session)) {
        Some(receiving) if command.has_data_set => Begin::Receive(Box::new(receiving)),
        Some(receiving) => Begin::Respond(receiving.asked.refusal(&FindError::MissingLevel.into())),
        None => {
            let uid = &request.affected_sop_class_uid;
            Begin::Respond(sop_class_not_supported(request.field, request.message_id, uid))
        }
    }
}

/// An Identifier that is arriving.
struct RetrieveReceiving {
    service: Arc<Retrieve>,
    asked: Asked,
    model: InformationModel,
    relational: bool,
    identifier: ArrivingIdentifier,
    /// The keys, for the audit trail.
    keys: Arc<OnceLock<Vec<String>>>,
    /// Whether the audit trail wants to know whose objects go out.
    is_audited: bool,
}

impl RetrieveReceiving {
    /// `None` if the SOP Class of the command is not that of the context.
    fn begin(
        service: &Arc<Retrieve>,
        models: &[(&str, InformationModel)],
        request: &RetrieveRequest,
        command: &ArrivedCommand<'_>,
        session: &Session,
    ) -> Option<Self> {
        let context = command.context;
        let (_, model) = *models.iter().find(|(uid, _)| *uid == context.abstract_syntax)?;
        let identifier = ArrivingIdentifier::begin(&request.affected_sop_class_uid, context, &session.memory)?;
        let agreed = session.agreement.extended(&context.abstract_syntax);
        let relational = agreed.is_some_and(|bytes| bytes.first() == Some(&1));
        let asked = Asked { context_id: command.context_id, request: request.clone(), encoding: identifier.encoding };
        let (keys, is_audited) = (Arc::default(), session.node.audit.is_on());
        Some(Self { service: Arc::clone(service), asked, model, relational, identifier, keys, is_audited })
    }

    /// Finds the instances within a time limit. Their memory is counted.
    async fn instances(
        self,
        peer: &CountedPeer,
        time_limit: Duration,
    ) -> (Arc<Retrieve>, Asked, Result<(Instances, Share), RetrieveError>) {
        let Self { service, asked, model, relational, identifier, keys, is_audited } = self;
        let (retrieve, encoding) = (Arc::clone(&service), asked.encoding);
        let question = move || {
            let options = retrieve.options();
            let bytes = identifier.finish()?;
            let identifier = Identifier::decode(bytes.as_slice(), encoding, &options.assumed_character_set)
                .map_err(FindError::Identifier)?;
            // It is set once.
            let _first = keys.set(audited::keys(&identifier));
            let question = qr::parse_retrieval(model, &identifier, relational, options.hierarchy)?;
            Ok(if is_audited { qr::with_owners(question) } else { question })
        };
        let instances = service.delivery().instances(peer, time_limit, question).await;
        (service, asked, instances)
    }
}

impl Operation for RetrieveReceiving {
    fn accept<'a>(&'a mut self, fragment: &'a [u8]) -> Boxed<'a, ()> {
        self.identifier.accept(fragment);
        Box::pin(async {})
    }

    fn finish<'a>(
        self: Box<Self>,
        session: &'a mut Session,
        reader: &'a mut PduReader,
    ) -> Boxed<'a, Result<Option<QueuedCommand>, End>> {
        Box::pin(retrieve(*self, session, reader))
    }
}

async fn retrieve(
    receiving: RetrieveReceiving,
    session: &mut Session,
    reader: &mut PduReader,
) -> Result<Option<QueuedCommand>, End> {
    let begun = Instant::now();
    let peer = Arc::clone(session.memory.peer());
    let keys = Arc::clone(&receiving.keys);
    let (service, asked, instances) = receiving.instances(&peer, session.node.options.query_time_limit).await;
    let (instances, listed) = match instances {
        Ok((instances, listed)) => (Arc::new(instances), listed),
        Err(error) => {
            metrics::RETRIEVALS_REFUSED.increment();
            let response = asked.refusal(&error);
            session.log(&error, error.is_ours());
            note(session, &asked, &keys, Err((error.to_string(), error.is_ours())));
            return session.send(asked.context_id, &response).await.map(|()| None);
        }
    };
    let tally = RetrievalTally::new(instances.len());
    let mut retrieval = Retrieval { service, asked, instances, _listed: listed, tally, cancelled: false, queued: None };
    match retrieval.asked.request.field {
        CommandField::C_GET_RQ => {
            let ran = get::run(&mut retrieval, session, reader).await;
            note(session, &retrieval.asked, &keys, Ok(&retrieval));
            ran?;
        }
        _ => match destination(&retrieval.asked, session) {
            Some(destination) => {
                let ran = move_to::run(&mut retrieval, session, reader, destination).await;
                note(session, &retrieval.asked, &keys, Ok(&retrieval));
                ran?;
            }
            None => {
                note(session, &retrieval.asked, &keys, Err(("unknown Move Destination".to_owned(), false)));
                metrics::RETRIEVALS_REFUSED.increment();
                let response = retrieval.asked.response(Status::MOVE_DESTINATION_UNKNOWN);
                let response = response.with_comment("unknown Move Destination");
                return session.send(retrieval.asked.context_id, &response).await.map(|()| None);
            }
        },
    }
    respond_last(&retrieval, session).await?;
    metrics::RETRIEVE_SECONDS.observe(begun.elapsed());
    Ok(retrieval.queued)
}

/// Tells the audit trail of a retrieval: what became of it, or why it was refused and whether that
/// is the fault of this node.
fn note(session: &Session, asked: &Asked, keys: &OnceLock<Vec<String>>, ended: Result<&Retrieval, (String, bool)>) {
    let audit = &session.node.audit;
    if !audit.is_on() {
        return;
    }
    let is_move = asked.request.field == CommandField::C_MOVE_RQ;
    let mut record = AuditRecord::new(AuditEvent::Retrieved, if is_move { "C-MOVE" } else { "C-GET" });
    record.by = Some(audited::peer(&session.sender));
    if let Some(title) = &asked.request.move_destination {
        record.to = Some(Participant { name: title.trim().to_owned(), address: String::new() });
    }
    let keys = keys.get().cloned().unwrap_or_default();
    let arrived = match ended {
        Ok(Retrieval { tally, instances, .. }) => {
            if tally.arrived() < tally.total() {
                record.outcome = AuditOutcome::MinorFailure;
                record.reason = format!("{} of {} objects arrived", tally.arrived(), tally.total());
            }
            record.studies = arrived_studies(tally, instances);
            Some(tally.arrived() as u64)
        }
        Err((reason, is_ours)) => {
            record.outcome = if is_ours { AuditOutcome::SeriousFailure } else { AuditOutcome::MinorFailure };
            record.reason = reason;
            None
        }
    };
    let sop_class_uid = asked.request.affected_sop_class_uid.clone();
    record.query = Some(AuditedQuery { sop_class_uid, keys, arrived, ..AuditedQuery::default() });
    audit.note(record);
}

/// The studies and patients of the objects that arrived.
fn arrived_studies(tally: &RetrievalTally, instances: &Instances) -> Vec<AuditedStudy> {
    let failed: HashSet<usize> = tally.failed().iter().copied().collect();
    let mut studies = AuditedStudies::default();
    for (at, instance) in instances.iter_from(0).enumerate() {
        if let Some(owner) = instances.owner(at).filter(|_| tally.is_over(at) && !failed.contains(&at)) {
            let of = (owner.study_instance_uid.clone(), owner.patient_id.clone());
            studies.add(of, &owner.patient_name, &instance.kind.sop_class_uid);
        }
    }
    studies.into_studies()
}

/// Returns the destination of a C-MOVE. `None` if this node does not know it (PS3.4 table C.4-2,
/// A801).
fn destination(asked: &Asked, session: &Session) -> Option<(AeTitle, PeerRoute)> {
    let title: AeTitle = asked.request.move_destination.as_deref()?.parse().ok()?;
    let destination = session.node.peers.destination(&title)?;
    Some((title, destination))
}

async fn respond_last(retrieval: &Retrieval, session: &mut Session) -> Result<(), End> {
    let Retrieval { asked, instances, tally, cancelled, .. } = retrieval;
    // A C-CANCEL-RQ after or with the last sub-operation has ended none.
    let is_cut = *cancelled && tally.over() < tally.total();
    let ending = if is_cut { Ending::Cancelled } else { Ending::Complete };
    match ending {
        Ending::Complete => metrics::RETRIEVALS_COMPLETE.increment(),
        Ending::Cancelled => metrics::RETRIEVALS_CANCELLED.increment(),
    }
    if tally.missing() > 0 {
        warn!(objects = tally.missing(), "objects that the index names could not be read; see `dcmdex check --files`");
    }
    let (response, identifier) = asked.last_response(tally, instances, ending);
    session.send_with(asked.context_id, &response, identifier.as_deref()).await
}
