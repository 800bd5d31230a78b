//! Association negotiation (PS3.8 7.1 and 9.3.2 to 9.3.4; PS3.7 annex D). It makes the bytes of the
//! answer from those of an A-ASSOCIATE-RQ, without a socket.
//!
//! The PDU types are those of dicom-ul. The negotiation is our own. That of dicom-ul picks the
//! first transfer syntax that it has a codec for, and refuses private ones. An archive that keeps
//! objects as they are sent wants neither.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use dicom_ul::pdu::{
    AssociationRJ, AssociationRJResult, AssociationRJServiceProviderASCEReason as AcseReason,
    AssociationRJServiceProviderPresentationReason as PresentationReason, AssociationRJServiceUserReason as UserReason,
    AssociationRJSource, AssociationRQ, PresentationContextProposed, PresentationContextResult,
    PresentationContextResultReason as ContextResult, RequestorRoles, UserVariableItem,
};

use crate::access::peers::{Admission, PeerRefusal};
use crate::access::policy::{AccessPolicy, Denied};
use crate::dimse::pdata::MIN_PEER_MAX_LENGTH;
use crate::encoding::padding::without_padding;
use crate::encoding::syntax;
use crate::model::implementation::IMPLEMENTATION_CLASS_UID;
use crate::model::implementation::IMPLEMENTATION_VERSION_NAME;
use crate::model::uid::is_uid_shaped;
use crate::scp::service_class::{ServiceClass, SopClasses};
use crate::ul::associate::{
    APPLICATION_CONTEXT_NAME, AcceptItems, AssociationRequest, CALLED_AE_TITLE, CALLING_AE_TITLE, accept_pdu, parse,
    printable, title,
};
use crate::ul::pdu_io::OFFERED_MAX_LENGTH;
use crate::ul::tls::Transport;

/// Transfer syntaxes for messages whose data sets this program reads or writes, in order of
/// preference. They need no codec.
pub(super) const OWN_TRANSFER_SYNTAXES: [&str; 3] =
    [syntax::EXPLICIT_VR_LITTLE_ENDIAN, syntax::IMPLICIT_VR_LITTLE_ENDIAN, syntax::EXPLICIT_VR_BIG_ENDIAN];

/// The settings of negotiation.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Rules for who may associate.
    pub access: AccessPolicy,
    /// The services that the node provides.
    pub provided: Vec<&'static ServiceClass>,
    /// Transfer syntaxes preferred for storage, best first. If none of them is proposed, the first
    /// one that the sender proposes wins. That is usually how it holds the object, so that nobody
    /// transcodes.
    pub preferred_transfer_syntaxes: Vec<String>,
    /// The transfer syntaxes of the objects that may be retrieved.
    pub held: HeldSyntaxes,
}

impl Policy {
    /// Returns the provided service that has this abstract syntax.
    fn class_of(&self, abstract_syntax: &str) -> Option<&'static ServiceClass> {
        self.provided.iter().copied().find(|class| class.has(abstract_syntax))
    }

    /// Whether a service is provided and granted.
    fn may_use(&self, grant: &str, admission: &Admission) -> bool {
        admission.services.contains(grant) && self.provided.iter().any(|class| class.grant == grant)
    }
}

/// An accepted presentation context.
#[derive(Clone, Debug)]
pub struct PresentationContext {
    /// The service of its abstract syntax.
    pub class: &'static ServiceClass,
    /// The abstract syntax: the SOP Class.
    pub abstract_syntax: String,
    /// The transfer syntax that this node chose.
    pub transfer_syntax: String,
}

/// The transfer syntaxes in which objects of each SOP Class are held, the most frequent first.
///
/// A peer that wants to retrieve may propose several transfer syntaxes. One of them must be chosen
/// before the node knows which objects the peer will ask for.
#[derive(Clone, Debug, Default)]
pub struct HeldSyntaxes(Arc<ArcSwap<BySopClass>>);

/// SOP Class to transfer syntaxes.
type BySopClass = HashMap<String, Vec<String>>;

impl HeldSyntaxes {
    /// Replaces all of them, for associations that are negotiated from now on. The key is a SOP
    /// Class UID. Its transfer syntaxes stand with the most frequent one first.
    pub fn replace(&self, held: HashMap<String, Vec<String>>) {
        self.0.store(Arc::new(held));
    }

    fn current(&self) -> Arc<BySopClass> {
        self.0.load_full()
    }
}

/// The result of negotiation.
#[derive(Clone, Debug)]
pub struct Agreement {
    /// Calling AE title, without padding, as sent.
    pub calling_ae_title: String,
    /// Called AE title, without padding, as sent.
    pub called_ae_title: String,
    /// The accepted presentation contexts, by their IDs.
    pub contexts: BTreeMap<u8, PresentationContext>,
    /// The answers of this node in extended negotiation, by SOP Class.
    pub extended: BTreeMap<String, Vec<u8>>,
    /// The SOP Classes for which the requestor may be the SCP (PS3.7 D.3.3.4). C-GET can send it
    /// objects of these.
    pub requestor_is_scp: BTreeSet<String>,
    /// The SOP Classes for which the requestor asked to be the SCP alone. It sends no requests of
    /// these.
    pub requestor_is_no_scu: BTreeSet<String>,
    /// The longest P-DATA-TF body that the peer takes. 0 means no limit.
    pub peer_max_length: u32,
    /// The Implementation Version Name of the peer, for the log.
    pub peer_implementation: String,
    /// Rights of the peer.
    pub admission: Admission,
    /// Presentation contexts that the peer proposed and did not get, for the log.
    pub refused: RefusedContexts,
}

/// Presentation contexts that were proposed and not accepted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RefusedContexts {
    /// Services that the peer may not use, by their names in the table of peers.
    pub not_permitted: BTreeSet<&'static str>,
    /// Number of contexts with a SOP Class that the node does not have, or without a transfer
    /// syntax that it takes.
    pub not_supported: usize,
}

impl RefusedContexts {
    fn add(&mut self, class: Option<&'static ServiceClass>, reason: &ContextResult) {
        match (reason, class) {
            (ContextResult::UserRejection, Some(class)) => drop(self.not_permitted.insert(class.grant)),
            _ => self.not_supported += 1,
        }
    }
}

impl Agreement {
    /// Returns the answer of this node in the extended negotiation of a SOP Class.
    #[must_use]
    pub fn extended(&self, abstract_syntax: &str) -> Option<&[u8]> {
        self.extended.get(abstract_syntax).map(Vec::as_slice)
    }
}

/// The answer to an A-ASSOCIATE-RQ.
#[derive(Debug)]
pub enum Answer {
    /// Send these bytes, an A-ASSOCIATE-AC.
    Accept(Box<Agreement>, Vec<u8>),
    /// Send an A-ASSOCIATE-RJ.
    Reject(AssociationRJ, Titles),
    /// The request is malformed. Send an A-ABORT (PS3.8 9.2.3, Evt19 in Sta2).
    Abort(&'static str),
}

/// The AE titles of a request that was not accepted, for the log.
#[derive(Debug)]
pub struct Titles {
    /// Calling AE title as sent.
    pub calling: String,
    /// Called AE title as sent.
    pub called: String,
    /// The reason why the table of peers refused the peer, if it did.
    pub refused: Option<PeerRefusal>,
}

/// Decides on an A-ASSOCIATE-RQ. `body` is what follows its PDU header.
#[must_use]
pub fn answer(body: &[u8], peer: SocketAddr, transport: &Transport, policy: &Policy) -> Answer {
    let request = match parse(body) {
        Ok(request) => request,
        Err(reason) => return Answer::Abort(reason),
    };
    let called_ae_title = title(body, CALLED_AE_TITLE);
    let calling_ae_title = title(body, CALLING_AE_TITLE);
    let reject_for = |result, refused| {
        let titles = Titles { calling: calling_ae_title.clone(), called: called_ae_title.clone(), refused };
        Answer::Reject(result, titles)
    };
    let reject = |result| reject_for(result, None);
    // PS3.8 9.3.2: a receiver "shall only test that bit 0 is set".
    if request.protocol_version & 1 == 0 {
        return reject(permanent(AssociationRJSource::ServiceProviderASCE(AcseReason::ProtocolVersionNotSupported)));
    }
    if without_padding(&request.application_context_name) != APPLICATION_CONTEXT_NAME {
        let reason = UserReason::ApplicationContextNameNotSupported;
        return reject(permanent(AssociationRJSource::ServiceUser(reason)));
    }
    // PS3.5 table 6.2-1, AE: no control characters. dicom-ul would trim some of them like spaces.
    for (title, reason) in [
        (&called_ae_title, UserReason::CalledAETitleNotRecognized),
        (&calling_ae_title, UserReason::CallingAETitleNotRecognized),
    ] {
        if title.contains(char::is_control) {
            return reject(permanent(AssociationRJSource::ServiceUser(reason)));
        }
    }
    let asked =
        AssociationRequest { calling_ae_title: &calling_ae_title, called_ae_title: &called_ae_title, peer, transport };
    let admission = match policy.access.decide(&asked) {
        Ok(admission) => admission,
        Err(denied) => return reject_for(rejection_of(denied), denied.peer_refusal()),
    };
    match agree(&request, policy, admission) {
        Ok((agreement, items)) => {
            let agreement = Agreement { calling_ae_title, called_ae_title, ..agreement };
            match accept_pdu(body, items) {
                Some(bytes) => Answer::Accept(Box::new(agreement), bytes),
                None => Answer::Abort("the A-ASSOCIATE-AC cannot be encoded"),
            }
        }
        Err(reason) => Answer::Abort(reason),
    }
}

/// Negotiates what a peer that was let in proposes.
fn agree(
    request: &AssociationRQ,
    policy: &Policy,
    admission: Admission,
) -> Result<(Agreement, AcceptItems), &'static str> {
    let mut agreement = Agreement {
        calling_ae_title: String::new(),
        called_ae_title: String::new(),
        contexts: BTreeMap::new(),
        extended: BTreeMap::new(),
        requestor_is_scp: BTreeSet::new(),
        requestor_is_no_scu: BTreeSet::new(),
        peer_max_length: 0,
        peer_implementation: String::new(),
        admission,
        refused: RefusedContexts::default(),
    };
    let contexts = agree_on_contexts(request, policy, &mut agreement)?;
    let user = answer_user_items(&request.user_variables, policy, &mut agreement);
    if agreement.peer_max_length != 0 && agreement.peer_max_length < MIN_PEER_MAX_LENGTH {
        return Err("maximum length too small for any message");
    }
    Ok((agreement, AcceptItems { contexts, user }))
}

/// Accepts or refuses each presentation context.
fn agree_on_contexts(
    request: &AssociationRQ,
    policy: &Policy,
    agreement: &mut Agreement,
) -> Result<Vec<PresentationContextResult>, &'static str> {
    let wants_scp = |item: &UserVariableItem| match item {
        UserVariableItem::ScuScpRoleSelectionSubItem(uid, roles) if roles.scp => Some(without_padding(uid).to_owned()),
        _ => None,
    };
    let scp_wanted: BTreeSet<String> = request.user_variables.iter().filter_map(wants_scp).collect();
    let mut seen = [false; 256];
    let mut results = Vec::with_capacity(request.presentation_contexts.len());
    for proposed in &request.presentation_contexts {
        if std::mem::replace(&mut seen[usize::from(proposed.id)], true) {
            // Two answers with the same ID could not be told apart.
            return Err("presentation context ID used twice");
        }
        let (reason, transfer_syntax) = match choose(proposed, policy, &agreement.admission, &scp_wanted) {
            Ok((class, transfer_syntax)) => {
                let abstract_syntax = without_padding(&proposed.abstract_syntax).to_owned();
                let context =
                    PresentationContext { class, abstract_syntax, transfer_syntax: transfer_syntax.to_owned() };
                agreement.contexts.insert(proposed.id, context);
                (ContextResult::Acceptance, transfer_syntax)
            }
            // PS3.8 9.3.3.2: with any other result the transfer syntax "shall not be significant".
            // It must be there.
            Err(reason) => {
                agreement.refused.add(policy.class_of(without_padding(&proposed.abstract_syntax)), &reason);
                (reason, syntax::IMPLICIT_VR_LITTLE_ENDIAN)
            }
        };
        results.push(PresentationContextResult {
            id: proposed.id,
            reason,
            transfer_syntax: transfer_syntax.to_owned(),
        });
    }
    Ok(results)
}

/// Answers the user information of the request, and takes from it what the agreement needs.
fn answer_user_items(items: &[UserVariableItem], policy: &Policy, agreement: &mut Agreement) -> Vec<UserVariableItem> {
    let mut answers = vec![
        UserVariableItem::MaxLength(OFFERED_MAX_LENGTH),
        UserVariableItem::ImplementationClassUID(IMPLEMENTATION_CLASS_UID.to_owned()),
        UserVariableItem::ImplementationVersionName(IMPLEMENTATION_VERSION_NAME.to_owned()),
    ];
    let mut roles_answered: Vec<&str> = Vec::new();
    for item in items {
        match item {
            UserVariableItem::MaxLength(length) => agreement.peer_max_length = *length,
            UserVariableItem::ImplementationVersionName(name) => {
                agreement.peer_implementation = printable(without_padding(name), MAX_IMPLEMENTATION_VERSION_NAME);
            }
            UserVariableItem::ScuScpRoleSelectionSubItem(uid, roles) => {
                let uid = without_padding(uid);
                if roles_answered.contains(&uid) {
                    continue;
                }
                let Some(class) = class_accepted(agreement, uid) else { continue };
                roles_answered.push(uid);
                // PS3.7 D.3.3.4: this node is the SCP of all that it accepts, so the requestor may
                // be the SCU. It may be the SCP of objects that come back to it (PS3.4 C.5.3).
                let scp = roles.scp && may_return(class, policy, &agreement.admission);
                if scp {
                    agreement.requestor_is_scp.insert(uid.to_owned());
                }
                // Neither of both is no proposal, so the default role stays.
                if roles.scp && !roles.scu {
                    agreement.requestor_is_no_scu.insert(uid.to_owned());
                }
                let roles = RequestorRoles { scu: roles.scu, scp };
                answers.push(UserVariableItem::ScuScpRoleSelectionSubItem(uid.to_owned(), roles));
            }
            UserVariableItem::SopClassExtendedNegotiationSubItem(uid, information) => {
                let uid = without_padding(uid);
                let Some(class) = class_accepted(agreement, uid) else { continue };
                if agreement.extended.contains_key(uid) {
                    continue;
                }
                if let Some(answer) = (class.extended_negotiation)(information) {
                    let item = UserVariableItem::SopClassExtendedNegotiationSubItem(uid.to_owned(), answer.clone());
                    answers.push(item);
                    agreement.extended.insert(uid.to_owned(), answer);
                }
            }
            // Asynchronous operations are not offered. That leaves the default of one operation at
            // a time (PS3.7 D.3.3.3). No positive response is given to a user identity (PS3.7
            // D.3.3.7).
            UserVariableItem::ImplementationClassUID(_)
            | UserVariableItem::UserIdentityItem(_)
            | UserVariableItem::Unknown(..) => {}
        }
    }
    answers
}

/// Returns the service of an accepted context with this abstract syntax.
fn class_accepted(agreement: &Agreement, abstract_syntax: &str) -> Option<&'static ServiceClass> {
    let mut contexts = agreement.contexts.values();
    contexts.find(|context| context.abstract_syntax == abstract_syntax).map(|context| context.class)
}

/// Whether objects of a service may come back to the requestor, in the contexts of this service.
fn may_return(class: &ServiceClass, policy: &Policy, admission: &Admission) -> bool {
    class.returned_by.is_some_and(|grant| policy.may_use(grant, admission))
}

/// PS3.7 D.3.3.2.
const MAX_IMPLEMENTATION_VERSION_NAME: usize = 16;

/// Chooses the service and the transfer syntax of a proposed context.
fn choose<'a>(
    proposed: &'a PresentationContextProposed,
    policy: &Policy,
    admission: &Admission,
    scp_wanted: &BTreeSet<String>,
) -> Result<(&'static ServiceClass, &'a str), ContextResult> {
    // PS3.8 9.3.2.2: "Presentation-context-ID values shall be odd integers".
    if proposed.id.is_multiple_of(2) {
        return Err(ContextResult::NoReason);
    }
    let abstract_syntax = without_padding(&proposed.abstract_syntax);
    let class = policy.class_of(abstract_syntax).ok_or(ContextResult::AbstractSyntaxNotSupported)?;
    // A peer that may have objects back gets the contexts for them. The service refuses a request
    // in such a context.
    let is_granted = |grant| admission.services.contains(grant);
    if !is_granted(class.grant) && !class.returned_by.is_some_and(is_granted) {
        // PS3.8 table 9-18: the service exists, and the node does not want it for this peer. The
        // peer learns it before it sends a message, which would get status 0124.
        return Err(ContextResult::UserRejection);
    }
    let mut proposals =
        proposed.transfer_syntaxes.iter().map(|uid| without_padding(uid)).filter(|uid| is_uid_shaped(uid));
    let find =
        |wanted: &str| proposed.transfer_syntaxes.iter().map(|uid| without_padding(uid)).find(|uid| *uid == wanted);
    let chosen = match class.sop_classes {
        SopClasses::Listed(_) => OWN_TRANSFER_SYNTAXES.into_iter().find_map(find),
        SopClasses::Storage if scp_wanted.contains(abstract_syntax) && may_return(class, policy, admission) => {
            let held = policy.held.current();
            let held = held.get(abstract_syntax).map_or(&[][..], Vec::as_slice);
            // An uncompressed object in none of the proposed ones can be rewritten to these.
            held.iter()
                .map(String::as_str)
                .chain([syntax::EXPLICIT_VR_LITTLE_ENDIAN, syntax::IMPLICIT_VR_LITTLE_ENDIAN])
                .find_map(find)
                .or_else(|| proposals.next())
        }
        SopClasses::Storage => {
            policy.preferred_transfer_syntaxes.iter().find_map(|wanted| find(wanted)).or_else(|| proposals.next())
        }
    };
    chosen.map(|uid| (class, uid)).ok_or(ContextResult::TransferSyntaxesNotSupported)
}

/// Returns the rejection for a request that is denied (PS3.8 table 9-21).
fn rejection_of(denied: Denied) -> AssociationRJ {
    let reason = match denied {
        Denied::CalledAeTitle => UserReason::CalledAETitleNotRecognized,
        // A right title from a wrong address gets the same reason. So nobody outside learns which
        // titles exist.
        Denied::CallingAeTitle(_) => UserReason::CallingAETitleNotRecognized,
    };
    permanent(AssociationRJSource::ServiceUser(reason))
}

/// Returns the rejection for a peer when all associations, or all of its own, are taken. It may try
/// again later (PS3.8 table 9-21, source 3, reason 2).
pub(super) fn local_limit_exceeded() -> AssociationRJ {
    AssociationRJ {
        result: AssociationRJResult::Transient,
        source: AssociationRJSource::ServiceProviderPresentation(PresentationReason::LocalLimitExceeded),
    }
}

fn permanent(source: AssociationRJSource) -> AssociationRJ {
    AssociationRJ { result: AssociationRJResult::Permanent, source }
}

#[cfg(test)]
mod tests {
    use dicom_dictionary_std::uids;

    use super::*;
    use crate::access::peers::SharedPeers;
    use crate::access::policy::CalledAeTitle;
    use crate::dimse::pdata::PDU_HEADER_LENGTH;
    use crate::scp::services::{self, NodeServices};
    use crate::ul::items::{kind, put};
    use dicom_ul::pdu::{AssociationAC, Pdu, read_pdu, write_pdu};
    use std::ops::Range;

    fn every_service() -> Vec<&'static ServiceClass> {
        services::list(&NodeServices::default()).iter().map(|service| service.class()).collect()
    }

    fn policy() -> Policy {
        Policy {
            access: AccessPolicy {
                own_ae_title: "DCMDEX".parse().unwrap(),
                called_ae_title: CalledAeTitle::OwnOnly,
                peers: SharedPeers::default(),
            },
            provided: every_service(),
            preferred_transfer_syntaxes: Vec::new(),
            held: HeldSyntaxes::default(),
        }
    }

    fn proposed(id: u8, abstract_syntax: &str, transfer_syntaxes: &[&str]) -> PresentationContextProposed {
        PresentationContextProposed {
            id,
            abstract_syntax: abstract_syntax.into(),
            transfer_syntaxes: transfer_syntaxes.iter().map(|&uid| uid.into()).collect(),
        }
    }

    fn request(contexts: Vec<PresentationContextProposed>) -> AssociationRQ {
        AssociationRQ {
            protocol_version: 1,
            calling_ae_title: "PEER".into(),
            called_ae_title: "DCMDEX".into(),
            application_context_name: APPLICATION_CONTEXT_NAME.into(),
            presentation_contexts: contexts,
            user_variables: vec![UserVariableItem::MaxLength(16_384)],
        }
    }

    fn body(request: AssociationRQ) -> Vec<u8> {
        let mut bytes = Vec::new();
        write_pdu(&mut bytes, &Pdu::AssociationRQ(request)).unwrap();
        bytes.split_off(PDU_HEADER_LENGTH)
    }

    fn answered(body: &[u8], policy: &Policy) -> Answer {
        answer(body, ([127, 0, 0, 1], 104).into(), &Transport::Plain, policy)
    }

    fn accepted(request: AssociationRQ, policy: &Policy) -> (Agreement, AssociationAC) {
        match answered(&body(request), policy) {
            Answer::Accept(agreement, bytes) => match read_pdu(bytes.as_slice(), OFFERED_MAX_LENGTH, true) {
                Ok(Some(Pdu::AssociationAC(accept))) => (*agreement, accept),
                other => panic!("not an A-ASSOCIATE-AC: {other:?}"),
            },
            other => panic!("not accepted: {other:?}"),
        }
    }

    fn results(accept: &AssociationAC) -> Vec<(u8, ContextResult, &str)> {
        accept
            .presentation_contexts
            .iter()
            .map(|result| (result.id, result.reason.clone(), result.transfer_syntax.as_str()))
            .collect()
    }

    const IMPLICIT: &str = uids::IMPLICIT_VR_LITTLE_ENDIAN;
    const EXPLICIT: &str = uids::EXPLICIT_VR_LITTLE_ENDIAN;
    const JPEG: &str = "1.2.840.10008.1.2.4.50";
    const GE_PRIVATE: &str = "1.2.840.113619.5.2";
    const STUDY_FIND: &str = uids::STUDY_ROOT_QUERY_RETRIEVE_INFORMATION_MODEL_FIND;

    #[test]
    fn storage_takes_what_comes_first_and_find_what_we_can_read() {
        let contexts = vec![
            proposed(1, uids::VERIFICATION, &[IMPLICIT]),
            proposed(3, uids::CT_IMAGE_STORAGE, &[JPEG, EXPLICIT, IMPLICIT]),
            proposed(5, "1.3.12.2.1107.5.9.1", &[GE_PRIVATE]),
            proposed(7, STUDY_FIND, &[JPEG, IMPLICIT, EXPLICIT]),
            proposed(9, STUDY_FIND, &[uids::DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN]),
            proposed(11, uids::BASIC_GRAYSCALE_PRINT_MANAGEMENT_META, &[IMPLICIT]),
            proposed(13, uids::CT_IMAGE_STORAGE, &[]),
            proposed(14, uids::CT_IMAGE_STORAGE, &[IMPLICIT]),
        ];
        let (agreement, accept) = accepted(request(contexts), &policy());
        assert_eq!(
            results(&accept),
            [
                (1, ContextResult::Acceptance, IMPLICIT),
                (3, ContextResult::Acceptance, JPEG),
                (5, ContextResult::Acceptance, GE_PRIVATE),
                (7, ContextResult::Acceptance, EXPLICIT),
                (9, ContextResult::TransferSyntaxesNotSupported, IMPLICIT),
                (11, ContextResult::AbstractSyntaxNotSupported, IMPLICIT),
                (13, ContextResult::TransferSyntaxesNotSupported, IMPLICIT),
                (14, ContextResult::NoReason, IMPLICIT),
            ]
        );
        assert_eq!(agreement.contexts.keys().copied().collect::<Vec<_>>(), [1, 3, 5, 7]);
        assert_eq!(agreement.contexts[&7].class.grant, "find");
        assert_eq!(agreement.peer_max_length, 16_384);
        assert_eq!(agreement.calling_ae_title, "PEER");
    }

    #[test]
    fn a_preference_beats_the_order_of_the_sender() {
        let contexts = vec![
            proposed(1, uids::CT_IMAGE_STORAGE, &[JPEG, IMPLICIT, EXPLICIT]),
            proposed(3, uids::CT_IMAGE_STORAGE, &[JPEG]),
        ];
        let policy = Policy { preferred_transfer_syntaxes: vec![EXPLICIT.into(), IMPLICIT.into()], ..policy() };
        let (_, accept) = accepted(request(contexts), &policy);
        assert_eq!(results(&accept), [(1, ContextResult::Acceptance, EXPLICIT), (3, ContextResult::Acceptance, JPEG)]);
    }

    #[test]
    fn roles_and_extended_negotiation_are_answered_for_what_was_accepted() {
        let mut request =
            request(vec![proposed(1, uids::CT_IMAGE_STORAGE, &[IMPLICIT]), proposed(3, STUDY_FIND, &[IMPLICIT])]);
        request.user_variables.extend([
            UserVariableItem::ScuScpRoleSelectionSubItem(
                uids::CT_IMAGE_STORAGE.into(),
                RequestorRoles { scu: true, scp: true },
            ),
            UserVariableItem::ScuScpRoleSelectionSubItem(
                uids::MR_IMAGE_STORAGE.into(),
                RequestorRoles { scu: true, scp: true },
            ),
            UserVariableItem::SopClassExtendedNegotiationSubItem(STUDY_FIND.into(), vec![1, 3, 0]),
            UserVariableItem::SopClassExtendedNegotiationSubItem(uids::CT_IMAGE_STORAGE.into(), vec![2, 0, 0]),
        ]);
        let (agreement, accept) = accepted(request, &policy());
        assert_eq!(agreement.extended, BTreeMap::from([(STUDY_FIND.to_owned(), vec![1, 0, 0])]));
        assert!(agreement.requestor_is_scp.contains(uids::CT_IMAGE_STORAGE));
        assert_eq!(
            accept.user_variables[3..],
            [
                UserVariableItem::ScuScpRoleSelectionSubItem(
                    uids::CT_IMAGE_STORAGE.into(),
                    RequestorRoles { scu: true, scp: true }
                ),
                UserVariableItem::SopClassExtendedNegotiationSubItem(STUDY_FIND.into(), vec![1, 0, 0]),
            ]
        );
        assert_eq!(accept.user_variables[0], UserVariableItem::MaxLength(OFFERED_MAX_LENGTH));
    }

    #[test]
    fn what_is_to_be_retrieved_is_agreed_in_the_syntax_that_it_is_held_in() {
        let contexts = || vec![proposed(1, uids::CT_IMAGE_STORAGE, &[JPEG, IMPLICIT, EXPLICIT])];
        let chosen = |policy: &Policy, roles| {
            let mut request = request(contexts());
            request
                .user_variables
                .push(UserVariableItem::ScuScpRoleSelectionSubItem(uids::CT_IMAGE_STORAGE.into(), roles));
            accepted(request, policy).0.contexts[&1].transfer_syntax.clone()
        };
        let policy = policy();
        let scp = RequestorRoles { scu: false, scp: true };
        assert_eq!(chosen(&policy, scp), EXPLICIT, "nothing is known: what anything uncompressed can be rewritten to");
        let held = [GE_PRIVATE, IMPLICIT, JPEG].map(str::to_owned);
        policy.held.replace(HashMap::from([(uids::CT_IMAGE_STORAGE.to_owned(), held.into())]));
        assert_eq!(chosen(&policy, scp), IMPLICIT, "the most frequent one of those proposed");
        assert_eq!(chosen(&policy, RequestorRoles { scu: true, scp: false }), JPEG, "the sender's first");
        let provided = every_service().into_iter().filter(|class| class.grant != "get").collect();
        let without = Policy { provided, ..policy };
        assert_eq!(chosen(&without, scp), JPEG);
    }

    #[test]
    fn the_titles_come_back_byte_for_byte() {
        let mut body = body(request(vec![proposed(1, uids::VERIFICATION, &[IMPLICIT])]));
        body[4..20].copy_from_slice(b"  DCMDEX        ");
        body[20..36].copy_from_slice(b" PE\xC4R           ");
        body[36..68].fill(0x55);
        let Answer::Accept(_, bytes) = answered(&body, &policy()) else { panic!("not accepted") };
        assert_eq!(bytes[10..74], body[4..68]);
    }

    fn rejection(request: AssociationRQ) -> AssociationRJ {
        match answered(&body(request), &policy()) {
            Answer::Reject(rejection, _) => rejection,
            other => panic!("not rejected: {other:?}"),
        }
    }

    #[test]
    fn version_application_context_and_called_title_are_checked() {
        let good = || request(vec![proposed(1, uids::VERIFICATION, &[IMPLICIT])]);
        let version = rejection(AssociationRQ { protocol_version: 2, ..good() });
        assert_eq!(version.source, AssociationRJSource::ServiceProviderASCE(AcseReason::ProtocolVersionNotSupported));
        let context = rejection(AssociationRQ { application_context_name: "1.2.3".into(), ..good() });
        assert_eq!(context.source, AssociationRJSource::ServiceUser(UserReason::ApplicationContextNameNotSupported));
        let called = rejection(AssociationRQ { called_ae_title: "OTHER".into(), ..good() });
        assert_eq!(called.source, AssociationRJSource::ServiceUser(UserReason::CalledAETitleNotRecognized));
        assert_eq!(called.result, AssociationRJResult::Permanent);
    }

    #[test]
    fn unknown_items_are_ignored() {
        let mut body = body(request(vec![proposed(1, uids::VERIFICATION, &[IMPLICIT])]));
        body.extend([0x77, 0, 0, 3, 1, 2, 3]);
        assert!(matches!(answered(&body, &policy()), Answer::Accept(..)));
    }

    #[test]
    fn sub_items_that_are_longer_than_their_fields_are_read() {
        let mut body = body(request(vec![proposed(1, uids::CT_IMAGE_STORAGE, &[IMPLICIT])]));
        let uid = uids::CT_IMAGE_STORAGE.as_bytes();
        let mut role = vec![0, u8::try_from(uid.len()).unwrap()];
        role.extend_from_slice(uid);
        role.extend_from_slice(&[0, 1, 0xEE]);
        let mut user = Vec::new();
        put(&mut user, kind::ROLE_SELECTION, &role);
        put(&mut user, kind::MAXIMUM_LENGTH, &[0, 0, 0x40, 0, 0, 0]);
        put(&mut body, kind::USER_INFORMATION, &user);
        let Answer::Accept(agreement, _) = answered(&body, &policy()) else { panic!("not accepted") };
        assert!(agreement.requestor_is_scp.contains(uids::CT_IMAGE_STORAGE));
        assert_eq!(agreement.peer_max_length, 0x4000);
    }

    #[test]
    fn only_spaces_are_padding_of_a_title() {
        let good = body(request(vec![proposed(1, uids::VERIFICATION, &[IMPLICIT])]));
        let with = |place: Range<usize>, title: &[u8; 16]| {
            let mut body = good.clone();
            body[place].copy_from_slice(title);
            match answered(&body, &policy()) {
                Answer::Accept(agreement, _) => Ok((agreement.called_ae_title, agreement.calling_ae_title)),
                Answer::Reject(rejection, _) => Err(rejection.source),
                Answer::Abort(reason) => panic!("{reason}"),
            }
        };
        let titles = || Ok(("DCMDEX".to_owned(), "PEER".to_owned()));
        assert_eq!(with(CALLING_AE_TITLE, b"  PEER          "), titles());
        assert_eq!(with(CALLING_AE_TITLE, b"PEER\0\0\0\0\0\0\0\0\0\0\0\0"), titles());
        for title in [
            b"PEER\t           ",
            b"\tPEER           ",
            b"PE\nR            ",
            b"\0PEER           ",
            b"PEER\r\n          ",
        ] {
            let calling = AssociationRJSource::ServiceUser(UserReason::CallingAETitleNotRecognized);
            assert_eq!(with(CALLING_AE_TITLE, title), Err(calling), "{title:?}");
        }
        let called = AssociationRJSource::ServiceUser(UserReason::CalledAETitleNotRecognized);
        assert_eq!(with(CALLED_AE_TITLE, b"DCMDEX\t         "), Err(called));
    }

    #[test]
    fn malformed_requests_are_aborted() {
        let good = request(vec![proposed(1, uids::VERIFICATION, &[IMPLICIT])]);
        let aborted = |body: &[u8]| matches!(answered(body, &policy()), Answer::Abort(_));
        let whole = body(good.clone());
        for cut in 0..whole.len() {
            let answer = answered(&whole[..cut], &policy());
            assert!(!matches!(&answer, Answer::Reject(..)), "cut at {cut}: {answer:?}");
        }
        assert!(aborted(&whole[..40]));
        assert!(aborted(&body(request(vec![]))));
        assert!(aborted(&body(request(vec![
            proposed(1, uids::VERIFICATION, &[IMPLICIT]),
            proposed(1, uids::CT_IMAGE_STORAGE, &[IMPLICIT]),
        ]))));
        let tiny = AssociationRQ { user_variables: vec![UserVariableItem::MaxLength(7)], ..good };
        assert!(aborted(&body(tiny)));
    }

    #[test]
    fn what_goes_to_the_log_is_printable_and_short() {
        assert_eq!(printable("A\u{1b}[31m\nB\u{e4}", 16), "A?[31m?B?");
        assert_eq!(printable(&"x".repeat(50), 16).len(), 16);
    }
}
