//! The sub-operations of a C-MOVE (PS3.4 C.4.2): objects to another node, on associations that this
//! node requests.
//!
//! One association carries all sub-operations for which it has presentation contexts. There is one
//! context for each SOP Class and transfer syntax of the objects. There is one more for each SOP
//! Class of objects that can be rewritten or decompressed, as a fallback. If more than 128 contexts
//! are needed, further associations follow one after the other. If a destination breaks an
//! association, a second one carries the rest. If it breaks that too, and accepted nothing in
//! between, it is given up.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use super::asked::Asked;
use super::contexts::{OutgoingContexts, kinds};
use super::framing::{StoreRequests, message_id};
use super::retriever::{Decompression, Retrieve};
use super::tally::{RetrievalTally, SubOperationError};
use crate::deliver::read_ahead::{ReadAhead, SlowSource};
use crate::deliver::sending::{Piece, Sending};
use crate::dimse::command_set::CommandField;
use crate::dimse::message::{MoveOriginator, SubOperations};
use crate::encoding::syntax::NativeSyntax;
use crate::model::ae_title::AeTitle;
use crate::qr::{Instances, ObjectKind};
use crate::shares::PeerMemory;
use crate::telemetry::metrics;
use crate::ul::associate::MAX_CONTEXTS;
use crate::ul::requestor::{Proposal, ScuAssociation, ScuError, Waits};
use crate::ul::tls::PeerRoute;

/// A C-MOVE: its objects and its destination.
pub(super) struct Mover {
    pub(super) retrieve: Arc<Retrieve>,
    pub(super) asked: Asked,
    pub(super) instances: Arc<Instances>,
    pub(super) own_ae_title: AeTitle,
    /// The AE title of the requestor.
    pub(super) originator: String,
    pub(super) destination_ae_title: AeTitle,
    pub(super) destination: PeerRoute,
    pub(super) waits: Waits,
    /// The memory of the requestor.
    pub(super) memory: PeerMemory,
}

/// Outcome of sending on one association.
enum Sent {
    /// All objects of the group were sent.
    All,
    /// The requestor cancelled.
    Cancelled,
    /// The association is lost. The objects that are not over go out on another one.
    Lost(String),
    /// No more objects can be read in time.
    SlowSource,
}

impl Mover {
    /// Sends all objects. Reports `progress` after each sub-operation.
    pub(super) async fn run(
        self,
        cancel: &CancellationToken,
        progress: &watch::Sender<SubOperations>,
    ) -> RetrievalTally {
        let mut tally = RetrievalTally::new(self.instances.len());
        for group in groups(&self.instances, self.retrieve.options().decompression) {
            if cancel.is_cancelled() {
                break;
            }
            self.move_group(&Arc::new(group), cancel, progress, &mut tally).await;
        }
        tally
    }

    async fn move_group(
        &self,
        group: &Arc<Group>,
        cancel: &CancellationToken,
        progress: &watch::Sender<SubOperations>,
        tally: &mut RetrievalTally,
    ) {
        loop {
            let association = tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                association = ScuAssociation::request(
                    &self.own_ae_title, &self.destination_ae_title, &self.destination, &group.proposals, self.waits,
                ) => association,
            };
            let mut association = match association {
                Ok(association) => association,
                Err(error) => {
                    info!(destination = %self.destination_ae_title, "C-MOVE destination: {error}");
                    self.fail_rest(group, &destination_failure(&error), tally);
                    return;
                }
            };
            let arrived = tally.arrived();
            match self.send(&mut association, group, cancel, progress, tally).await {
                Sent::All | Sent::Cancelled => return association.release().await,
                Sent::SlowSource => {
                    // An object may be half sent.
                    association.abort().await;
                    return self.fail_rest(group, &SubOperationError::SlowSource, tally);
                }
                Sent::Lost(error) => {
                    info!(destination = %self.destination_ae_title, "association with C-MOVE destination lost: {error}");
                    association.abort().await;
                    if tally.arrived() == arrived {
                        return self.fail_rest(group, &SubOperationError::Destination(error), tally);
                    }
                    if !self.rest(group, tally).any(|_| true) {
                        return;
                    }
                }
            }
        }
    }

    /// Returns what to send of a group over this association.
    fn sending(&self, association: &ScuAssociation, group: &Arc<Group>, tally: &RetrievalTally) -> Sending {
        let of_group = Arc::clone(group);
        let accepted = association.accepted.iter().filter_map(|(id, number, transfer_syntax)| {
            group.proposals.get(*number).map(|proposal| (*id, &proposal.abstract_syntax, transfer_syntax))
        });
        Sending {
            delivery: Arc::clone(self.retrieve.delivery()),
            instances: Arc::clone(&self.instances),
            over: tally.all_over(),
            only: Some(Arc::new(move |kind| of_group.kinds.contains_key(kind))),
            framing: Arc::new(StoreRequests {
                contexts: accepted.collect::<OutgoingContexts>(),
                decompression: self.retrieve.options().decompression,
                priority: self.asked.request.priority,
                originator: Some(MoveOriginator {
                    ae_title: self.originator.clone(),
                    message_id: Some(self.asked.request.message_id),
                }),
                peer_max_length: association.peer_max_length,
            }),
            memory: self.memory.clone(),
        }
    }

    /// Sends the objects of a group that are not over.
    async fn send(
        &self,
        association: &mut ScuAssociation,
        group: &Arc<Group>,
        cancel: &CancellationToken,
        progress: &watch::Sender<SubOperations>,
        tally: &mut RetrievalTally,
    ) -> Sent {
        let mut ahead = ReadAhead::start(self.sending(association, group, tally));
        loop {
            let piece = tokio::select! {
                biased;
                () = cancel.cancelled() => return Sent::Cancelled,
                piece = ahead.next() => piece,
            };
            match piece {
                Ok(Some(Piece::Begin { at, number, bytes, is_last })) => {
                    let answer = async {
                        association.send(bytes.as_slice()).await?;
                        metrics::SENT_DATA_SET_BYTES.add(bytes.as_slice().len() as u64);
                        ahead.give_back(bytes);
                        if !is_last {
                            send_rest(association, &mut ahead).await?;
                        }
                        association.response(CommandField::C_STORE_RSP, message_id(number)).await
                    };
                    match answer.await {
                        Ok(response) => tally.answered(at, response.status),
                        Err(error) => {
                            tally.fail(at, &destination_failure(&error));
                            progress.send_replace(tally.so_far());
                            return Sent::Lost(error.to_string());
                        }
                    }
                }
                Ok(Some(Piece::Failed { at, error })) => tally.fail(at, &error.into()),
                Ok(Some(Piece::More { .. } | Piece::Broken(_))) => {
                    debug!("received a piece of an object that was not begun");
                    return Sent::SlowSource;
                }
                Ok(None) => return Sent::All,
                Err(SlowSource) => return Sent::SlowSource,
            }
            progress.send_replace(tally.so_far());
        }
    }

    fn is_in(&self, group: &Group, at: usize) -> bool {
        self.instances.get(at).is_some_and(|instance| group.kinds.contains_key(instance.kind))
    }

    /// Returns the objects of a group that are not over.
    fn rest<'t>(&'t self, group: &'t Group, tally: &'t RetrievalTally) -> impl Iterator<Item = usize> + 't {
        (0..self.instances.len()).filter(|&at| !tally.is_over(at) && self.is_in(group, at))
    }

    fn fail_rest(&self, group: &Group, failure: &SubOperationError, tally: &mut RetrievalTally) {
        let rest: Vec<_> = self.rest(group, tally).collect();
        for at in rest {
            tally.fail(at, failure);
        }
    }
}

async fn send_rest(association: &mut ScuAssociation, ahead: &mut ReadAhead) -> Result<(), ScuError> {
    loop {
        match ahead.next().await {
            Ok(Some(Piece::More { bytes, is_last })) => {
                association.send(bytes.as_slice()).await?;
                metrics::SENT_DATA_SET_BYTES.add(bytes.as_slice().len() as u64);
                ahead.give_back(bytes);
                if is_last {
                    return Ok(());
                }
            }
            // In the middle of a message, only the end of the association says that the message
            // will not end.
            Ok(Some(Piece::Broken(_) | Piece::Begin { .. } | Piece::Failed { .. }) | None) | Err(SlowSource) => {
                return Err(ScuError::Read("an object could not be read to its end".to_owned()));
            }
        }
    }
}

fn destination_failure(error: &ScuError) -> SubOperationError {
    SubOperationError::Destination(match error {
        // The text of the error may be too long, and it names addresses.
        ScuError::Connect(error) => format!("no connection to the destination: {}", error.kind()),
        ScuError::Tls(_) | ScuError::SpeaksNoTls => "no TLS with the destination; the log says why".to_owned(),
        ScuError::Rejected(_) => "the destination rejected the association".to_owned(),
        other => format!("destination: {other}"),
    })
}

/// The objects that one association can carry.
struct Group {
    kinds: HashMap<ObjectKind, ()>,
    proposals: Vec<Proposal>,
}

/// Divides the kinds of objects among as few associations as their contexts need.
fn groups(instances: &Instances, decompression: Decompression) -> Vec<Group> {
    let mut by_class: BTreeMap<&str, Vec<&ObjectKind>> = BTreeMap::new();
    for (kind, _) in kinds(instances) {
        by_class.entry(&kind.sop_class_uid).or_default().push(kind);
    }
    let mut groups: Vec<Group> = Vec::new();
    for (class, mut kinds) in by_class {
        // If a SOP Class has more transfer syntaxes than an association has contexts, it takes
        // several associations.
        while !kinds.is_empty() {
            let rest = kinds.split_off(kinds.len().min(MAX_CONTEXTS - 1));
            let proposals = proposals(class, &kinds, decompression);
            let fits = groups.last().is_some_and(|last| last.proposals.len() + proposals.len() <= MAX_CONTEXTS);
            if !fits {
                groups.push(Group { kinds: HashMap::new(), proposals: Vec::new() });
            }
            if let Some(group) = groups.last_mut() {
                group.kinds.extend(kinds.iter().map(|kind| ((*kind).clone(), ())));
                group.proposals.extend(proposals);
            }
            kinds = rest;
        }
    }
    groups
}

/// Proposes one context for each transfer syntax, so that the destination accepts or refuses each
/// of them. One more context takes objects after rewriting or decompression.
fn proposals(class: &str, kinds: &[&ObjectKind], decompression: Decompression) -> Vec<Proposal> {
    let proposal = |transfer_syntaxes| Proposal { abstract_syntax: class.to_owned(), transfer_syntaxes, as_scp: false };
    let mut proposals: Vec<_> = kinds.iter().map(|kind| proposal(vec![kind.transfer_syntax.clone()])).collect();
    let can_change = |uid: &str| NativeSyntax::of_uid(uid).is_some() || decompression.covers(uid);
    if kinds.iter().any(|kind| can_change(&kind.transfer_syntax)) {
        let held = |uid: &str| kinds.iter().any(|kind| kind.transfer_syntax == uid);
        let others = NativeSyntax::TARGETS.into_iter().take(2).map(NativeSyntax::uid).filter(|uid| !held(uid));
        let others: Vec<_> = others.map(str::to_owned).collect();
        if !others.is_empty() {
            proposals.push(proposal(others));
        }
    }
    proposals
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(class: &str, transfer_syntax: &str) -> ObjectKind {
        ObjectKind { sop_class_uid: class.into(), transfer_syntax: transfer_syntax.into() }
    }

    const EXPLICIT: &str = "1.2.840.10008.1.2.1";
    const IMPLICIT: &str = "1.2.840.10008.1.2";
    const JPEG: &str = "1.2.840.10008.1.2.4.50";
    const VIDEO: &str = "1.2.840.10008.1.2.4.102";

    #[test]
    fn each_transfer_syntax_has_its_own_context_and_what_can_be_changed_a_fallback() {
        let [explicit, jpeg] = [kind("1.2", EXPLICIT), kind("1.2", JPEG)];
        let proposed = |kinds: &[&ObjectKind], decompression| -> Vec<Vec<String>> {
            proposals("1.2", kinds, decompression).into_iter().map(|proposal| proposal.transfer_syntaxes).collect()
        };
        let transfer_syntaxes = |kinds: &[&ObjectKind]| proposed(kinds, Decompression::Never);
        assert_eq!(transfer_syntaxes(&[&jpeg]), [[JPEG]]);
        assert_eq!(proposed(&[&jpeg], Decompression::Lossless), [[JPEG]]);
        assert_eq!(proposed(&[&jpeg], Decompression::All), [vec![JPEG], vec![EXPLICIT, IMPLICIT]]);
        assert_eq!(proposed(&[&kind("1.2", VIDEO)], Decompression::All), [[VIDEO]]);
        assert_eq!(transfer_syntaxes(&[&explicit, &jpeg]), [[EXPLICIT], [JPEG], [IMPLICIT]]);
        let both = [&explicit, &kind("1.2", IMPLICIT)];
        assert_eq!(transfer_syntaxes(&both), [[EXPLICIT], [IMPLICIT]]);
        assert_eq!(transfer_syntaxes(&[&kind("1.2", "1.2.840.10008.1.2.2")])[1], [EXPLICIT, IMPLICIT]);
    }

    #[test]
    fn more_contexts_than_an_association_has_are_split() {
        let instances: Instances = (0..200)
            .map(|number| (format!("1.9.{number}"), kind(&format!("1.2.{number}"), EXPLICIT)))
            .chain((0..300).map(|number| (format!("1.8.{number}"), kind("1.3", &format!("1.4.{number}")))))
            .collect();
        let groups = groups(&instances, Decompression::All);
        assert!(groups.iter().all(|group| group.proposals.len() <= MAX_CONTEXTS));
        assert_eq!(groups.iter().map(|group| group.kinds.len()).sum::<usize>(), 500);
        assert!(groups.len() <= 7, "{}", groups.len());
    }
}
