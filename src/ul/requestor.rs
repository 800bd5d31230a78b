//! Associations that this node requests (PS3.8 7.1), for the sub-operations of C-MOVE, for reports
//! of storage commitment, and for `dcmdex echo`.
//!
//! Each wait has an end, and every length from the peer meets the same limits as on the accepting
//! side.

use std::fmt;
use std::io;
use std::time::Duration;

use dicom_dictionary_std::uids;
use dicom_ul::pdu::{
    AbortRQSource, AssociationRQ, Pdu, PresentationContextProposed, RequestorRoles, UserVariableItem, read_pdu,
    write_pdu,
};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::dimse::command_set::{CommandField, CommandSet};
use crate::dimse::message::{EchoRequest, PeerResponse};
use crate::dimse::pdata::{FragmentOutcome, MIN_PEER_MAX_LENGTH, MessageAssembler, Pdv, put_message};
use crate::encoding::padding::without_padding;
use crate::encoding::syntax;
use crate::model::ae_title::AeTitle;
use crate::model::implementation::{IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME};
use crate::model::status::Status;
use crate::ul::associate::{APPLICATION_CONTEXT_NAME, FIXED_PART_LENGTH};
use crate::ul::certificates::{SPEAKS_NO_TLS, handshake_failure, speaks_no_tls};
use crate::ul::items::{Item, ItemError, items, kind, role_selection};
use crate::ul::pdu_io::{self, IncomingPdu, PduReader, PduWriter, ReadError, Timeouts};
use crate::ul::pdu_io::{MAX_ASSOCIATE_RQ_LENGTH, OFFERED_MAX_LENGTH};
use crate::ul::stream::Stream;
use crate::ul::tls::PeerRoute;

/// Maximum length of the data set of a response that is kept, which is an Identifier.
const MAX_RESPONSE_DATA_SET: usize = 1 << 20;

/// Time for a peer to confirm a release. After that the connection is closed without it.
const RELEASE_WAIT: Duration = Duration::from_secs(5);

/// Time limits for a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waits {
    /// Time for the connection, and for the answer to the A-ASSOCIATE-RQ.
    pub associate: Duration,
    /// Time for a PDU to be complete once it has begun.
    pub read: Duration,
    /// Time for the peer to take what is sent.
    pub write: Duration,
    /// Time for the response to a request.
    pub response: Duration,
}

impl Waits {
    /// Returns the limits that the node has for calling peers. A response may take as long as the
    /// rest of a PDU.
    #[must_use]
    pub fn as_acceptor(artim_timeout: Duration, read_timeout: Duration, write_timeout: Duration) -> Self {
        Self { associate: artim_timeout, read: read_timeout, write: write_timeout, response: read_timeout }
    }
}

/// A proposed presentation context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Proposal {
    pub(crate) abstract_syntax: String,
    pub(crate) transfer_syntaxes: Vec<String>,
    /// Whether this node wants to be its SCP (PS3.7 D.3.3.4).
    pub(crate) as_scp: bool,
}

/// The reason why there is no association, or why it ended. The texts go into Error Comments and
/// reports, so they have no values of data sets.
#[derive(Debug, thiserror::Error)]
pub enum ScuError {
    /// The connection failed.
    #[error("no connection: {0}")]
    Connect(#[source] io::Error),
    /// The peer answered the TLS handshake with something other than TLS.
    #[error("no TLS: {}", SPEAKS_NO_TLS)]
    SpeaksNoTls,
    /// The TLS handshake failed.
    #[error("no TLS: {0}")]
    Tls(String),
    /// The peer answered DICOM without TLS by TLS.
    #[error("the other side speaks TLS, and this side does not")]
    SpeaksTls,
    /// No connection, or no answer to the A-ASSOCIATE-RQ, in time.
    #[error("no answer to the association request in time")]
    Slow,
    /// A-ASSOCIATE-RJ.
    #[error("association rejected: {0}")]
    Rejected(Rejection),
    /// A-ABORT.
    #[error("aborted by the peer")]
    Aborted,
    /// None of the presentation contexts was accepted.
    #[error("no presentation context accepted")]
    NothingAccepted,
    /// The connection broke, or the peer does not follow PS3.8.
    #[error("{0}")]
    Read(String),
    /// The peer does not take what is sent.
    #[error("connection lost while sending")]
    Write(#[source] io::Error),
    /// No response in time.
    #[error("no response in time")]
    NoResponse,
    /// The response has a status that is no success.
    #[error("the peer answered with status {0}")]
    Status(Status),
    /// Something other than the response arrived.
    #[error("the peer sent a message that is not the response")]
    Unexpected,
}

impl From<ReadError> for ScuError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Silence => Self::NoResponse,
            ReadError::UnknownPdu(first) if pdu_io::begins_tls(first) => Self::SpeaksTls,
            other => Self::Read(other.to_string()),
        }
    }
}

/// Contents of an A-ASSOCIATE-RJ (PS3.8 table 9-21).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The reason, as far as something can be done about it here.
    pub reason: RejectionReason,
    text: String,
}

/// The reason of an A-ASSOCIATE-RJ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RejectionReason {
    /// The peer does not know the calling AE title.
    CallingAeTitle,
    /// The peer has another AE title than the called one.
    CalledAeTitle,
    /// Any other reason of the table, and any number that the table does not have.
    Other,
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// An accepted presentation context: its ID, the number of the proposal, the transfer syntax.
pub(crate) type Accepted = (u8, usize, String);

/// An association that this node requested.
pub(crate) struct ScuAssociation {
    reader: PduReader,
    writer: PduWriter,
    assembler: MessageAssembler,
    waits: Waits,
    pub(crate) accepted: Vec<Accepted>,
    pub(crate) peer_max_length: u32,
}

impl ScuAssociation {
    /// Requests an association.
    pub(crate) async fn request(
        own_ae_title: &AeTitle,
        called_ae_title: &AeTitle,
        route: &PeerRoute,
        proposals: &[Proposal],
        waits: Waits,
    ) -> Result<Self, ScuError> {
        let associate = async {
            let stream = connect(route).await?;
            let (mut reader, mut writer) = pdu_io::split(stream, waits.write);
            writer.send(&request_pdu(own_ae_title, called_ae_title, proposals)?).await.map_err(ScuError::Write)?;
            let timeouts = Timeouts { first_byte: Some(waits.associate), rest: waits.associate };
            let accepted = match reader.next(timeouts).await? {
                IncomingPdu::AssociateAccept(body) => accepted(body, proposals),
                IncomingPdu::AssociateReject(body) => Err(ScuError::Rejected(rejection(body))),
                IncomingPdu::Abort { .. } => Err(ScuError::Aborted),
                IncomingPdu::AssociateRequest(_)
                | IncomingPdu::Pdv(_)
                | IncomingPdu::ReleaseRequest
                | IncomingPdu::ReleaseResponse => Err(ScuError::Unexpected),
            };
            let (accepted, peer_max_length) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    writer.close().await;
                    return Err(error);
                }
            };
            let assembler = MessageAssembler::new();
            Ok(Self { reader, writer, assembler, waits, accepted, peer_max_length })
        };
        let association = timeout(waits.associate, associate).await.map_err(|_| ScuError::Slow)??;
        if association.accepted.is_empty() {
            association.release().await;
            return Err(ScuError::NothingAccepted);
        }
        Ok(association)
    }

    /// Sends PDUs.
    pub(crate) async fn send(&mut self, pdus: &[u8]) -> Result<(), ScuError> {
        self.writer.send(pdus).await.map_err(ScuError::Write)
    }

    /// Sends a message.
    pub(crate) async fn send_message(
        &mut self,
        context_id: u8,
        command: &CommandSet,
        data_set: Option<&[u8]>,
    ) -> Result<(), ScuError> {
        let mut bytes = Vec::new();
        put_message(&mut bytes, context_id, command, data_set, self.peer_max_length);
        self.send(&bytes).await
    }

    /// Waits for the response to the request with this Message ID.
    pub(crate) async fn response(&mut self, field: CommandField, message_id: u16) -> Result<PeerResponse, ScuError> {
        let deadline = Instant::now() + self.waits.response;
        loop {
            let pdv = fragment_until(deadline, self.waits.read, &mut self.reader).await?;
            let arrival = self.assembler.accept(&pdv).map_err(|error| ScuError::Read(error.to_string()))?;
            // A data set may follow a response (PS3.7 10.1.1.1.8). It has nothing that this node
            // needs.
            let FragmentOutcome::Command { command, .. } = arrival else { continue };
            let response = PeerResponse::parse(&command).map_err(|error| ScuError::Read(error.to_string()))?;
            let wanted = response
                .filter(|response| response.field == field && response.message_id_being_responded_to == message_id);
            return wanted.ok_or(ScuError::Unexpected);
        }
    }

    /// Waits for a response to the request with this Message ID, and for its data set if it has
    /// one.
    pub(crate) async fn response_with_data_set(
        &mut self,
        field: CommandField,
        message_id: u16,
    ) -> Result<(PeerResponse, Option<Vec<u8>>), ScuError> {
        let deadline = Instant::now() + self.waits.response;
        let mut found: Option<(PeerResponse, Vec<u8>)> = None;
        loop {
            let pdv = fragment_until(deadline, self.waits.read, &mut self.reader).await?;
            match self.assembler.accept(&pdv).map_err(|error| ScuError::Read(error.to_string()))? {
                FragmentOutcome::CommandFragment => {}
                FragmentOutcome::Command { command, has_data_set, .. } => {
                    let response = PeerResponse::parse(&command).map_err(|error| ScuError::Read(error.to_string()))?;
                    let response = response
                        .filter(|response| {
                            response.field == field && response.message_id_being_responded_to == message_id
                        })
                        .ok_or(ScuError::Unexpected)?;
                    if !has_data_set {
                        return Ok((response, None));
                    }
                    found = Some((response, Vec::new()));
                }
                FragmentOutcome::DataSetFragment { is_last } => {
                    let Some((response, mut bytes)) = found.take() else { return Err(ScuError::Unexpected) };
                    if bytes.len() + pdv.fragment.len() > MAX_RESPONSE_DATA_SET {
                        return Err(ScuError::Read("the data set of a response is too long".to_owned()));
                    }
                    bytes.extend_from_slice(pdv.fragment);
                    if is_last {
                        return Ok((response, Some(bytes)));
                    }
                    found = Some((response, bytes));
                }
            }
        }
    }

    /// Releases the association. A peer that does not confirm it is not waited for any longer.
    pub(crate) async fn release(mut self) {
        let release = async {
            self.writer.send_pdu(&Pdu::ReleaseRQ).await.ok()?;
            let timeouts = Timeouts { first_byte: Some(RELEASE_WAIT), rest: RELEASE_WAIT };
            // Whatever arrives, the association is over.
            let _ = self.reader.next(timeouts).await;
            Some(())
        };
        let _ = timeout(RELEASE_WAIT, release).await;
        self.writer.close().await;
    }

    /// Aborts the association.
    pub(crate) async fn abort(mut self) {
        // A peer that has gone need not be told.
        let _ = timeout(RELEASE_WAIT, self.writer.send_pdu(&Pdu::AbortRQ { source: AbortRQSource::ServiceUser })).await;
        self.writer.close().await;
    }
}

/// Waits for the next fragment of a message. `rest` is the time limit for the rest of its PDU.
async fn fragment_until(deadline: Instant, rest: Duration, reader: &mut PduReader) -> Result<Pdv<'_>, ScuError> {
    let first_byte = Some(deadline.saturating_duration_since(Instant::now()));
    match reader.next(Timeouts { first_byte, rest }).await? {
        IncomingPdu::Pdv(pdv) => Ok(pdv),
        IncomingPdu::Abort { .. } => Err(ScuError::Aborted),
        IncomingPdu::AssociateRequest(_)
        | IncomingPdu::AssociateAccept(_)
        | IncomingPdu::AssociateReject(_)
        | IncomingPdu::ReleaseRequest
        | IncomingPdu::ReleaseResponse => Err(ScuError::Unexpected),
    }
}

/// Opens a connection to a peer. This is the only place where a transport is chosen.
async fn connect(route: &PeerRoute) -> Result<Stream, ScuError> {
    let PeerRoute { destination, tls } = route;
    let address = (destination.address.host.as_str(), destination.address.port);
    let stream = TcpStream::connect(address).await.map_err(ScuError::Connect)?;
    if !destination.tls {
        return Ok(Stream::Plain(stream));
    }
    let Some(tls) = tls else {
        return Err(ScuError::Tls("the peer wants TLS, and we have no certificate".to_owned()));
    };
    let secured = tls.connect(destination, stream).await;
    let stream = secured.map_err(|error| match speaks_no_tls(&error) {
        true => ScuError::SpeaksNoTls,
        false => ScuError::Tls(handshake_failure(&error)),
    })?;
    Ok(Stream::Tls(Box::new(stream)))
}

fn request_pdu(own: &AeTitle, called: &AeTitle, proposals: &[Proposal]) -> Result<Vec<u8>, ScuError> {
    let mut user_variables = vec![
        UserVariableItem::MaxLength(OFFERED_MAX_LENGTH),
        UserVariableItem::ImplementationClassUID(IMPLEMENTATION_CLASS_UID.to_owned()),
        UserVariableItem::ImplementationVersionName(IMPLEMENTATION_VERSION_NAME.to_owned()),
    ];
    user_variables.extend(proposals.iter().filter(|proposal| proposal.as_scp).map(|proposal| {
        let roles = RequestorRoles { scu: false, scp: true };
        UserVariableItem::ScuScpRoleSelectionSubItem(proposal.abstract_syntax.clone(), roles)
    }));
    let request = AssociationRQ {
        protocol_version: 1,
        calling_ae_title: own.as_str().to_owned(),
        called_ae_title: called.as_str().to_owned(),
        application_context_name: APPLICATION_CONTEXT_NAME.to_owned(),
        presentation_contexts: proposals
            .iter()
            .zip((1..=u8::MAX).step_by(2))
            .map(|(proposal, id)| PresentationContextProposed {
                id,
                abstract_syntax: proposal.abstract_syntax.clone(),
                transfer_syntaxes: proposal.transfer_syntaxes.clone(),
            })
            .collect(),
        user_variables,
    };
    let mut bytes = Vec::with_capacity(1024);
    write_pdu(&mut bytes, &Pdu::AssociationRQ(request)).map_err(|error| ScuError::Read(error.to_string()))?;
    Ok(bytes)
}

/// Returns the contexts that an A-ASSOCIATE-AC accepts, and the longest P-DATA-TF that the peer
/// takes.
///
/// Only significant fields are read. By PS3.8 9.3.3.2, the transfer syntax of a refused context is
/// neither significant nor tested, and some peers leave it out.
fn accepted(body: &[u8], proposals: &[Proposal]) -> Result<(Vec<Accepted>, u32), ScuError> {
    let malformed = || ScuError::Read("the A-ASSOCIATE-AC cannot be read".to_owned());
    // The titles are those of the request and are not tested (PS3.8 table 9-17).
    let rest = body.get(FIXED_PART_LENGTH..).ok_or_else(malformed)?;
    let (mut results, mut user) = (Vec::new(), UserInformation::default());
    for item in items(rest) {
        let Item { kind, content } = match item {
            Ok(item) => item,
            // Fewer bytes than an item has after the last item are ignored.
            Err(ItemError::CutHeader) => break,
            Err(ItemError::TooLong | ItemError::TooShort) => return Err(malformed()),
        };
        match kind {
            kind::CONTEXT_RESULT => results.extend(acceptance(content)),
            kind::USER_INFORMATION => user.read(content).map_err(|_| malformed())?,
            _ => {}
        }
    }
    if user.max_length != 0 && user.max_length < MIN_PEER_MAX_LENGTH {
        return Err(ScuError::Read("maximum length too small for any message".to_owned()));
    }
    let mut contexts: Vec<Accepted> = Vec::new();
    for (id, transfer_syntax) in results {
        if id.is_multiple_of(2) {
            continue;
        }
        let number = usize::from(id / 2);
        let Some(proposal) = proposals.get(number) else { continue };
        let again = contexts.iter().any(|(known, ..)| *known == id);
        // A refused role counts. An unanswered one is taken for agreed, because peers that report
        // back do not always answer it.
        let in_vain = proposal.as_scp && user.refused_roles.contains(&proposal.abstract_syntax);
        if !again && !in_vain && proposal.transfer_syntaxes.contains(&transfer_syntax) {
            contexts.push((id, number, transfer_syntax));
        }
    }
    Ok((contexts, user.max_length))
}

/// Returns the ID and the transfer syntax of a Presentation Context Item that accepts (PS3.8 table
/// 9-18).
fn acceptance(content: &[u8]) -> Option<(u8, String)> {
    const ACCEPTANCE: u8 = 0;
    let &[id, _, ACCEPTANCE, _, ref sub_items @ ..] = content else { return None };
    let mut sub_items = items(sub_items).map_while(Result::ok);
    let transfer_syntax = sub_items.find(|item| item.kind == kind::TRANSFER_SYNTAX)?;
    Some((id, trimmed(transfer_syntax.content)?))
}

/// The User Information Item of the peer.
#[derive(Default)]
struct UserInformation {
    max_length: u32,
    /// The SOP Classes of which the peer does not want this node as SCP.
    refused_roles: Vec<String>,
}

impl UserInformation {
    fn read(&mut self, content: &[u8]) -> Result<(), ItemError> {
        for item in items(content) {
            let Item { kind, content } = item?;
            match kind {
                kind::MAXIMUM_LENGTH => {
                    let length = content.first_chunk::<4>().ok_or(ItemError::TooShort)?;
                    self.max_length = u32::from_be_bytes(*length);
                }
                kind::ROLE_SELECTION => {
                    let (uid, _, scp) = role_selection(content).ok_or(ItemError::TooShort)?;
                    self.refused_roles.extend(trimmed(uid).filter(|_| !scp));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn trimmed(text: &[u8]) -> Option<String> {
    std::str::from_utf8(text).ok().map(|text| without_padding(text).to_owned())
}

/// Reads an A-ASSOCIATE-RJ (PS3.8 table 9-21): result, source and reason, after a reserved byte.
fn rejection(body: &[u8]) -> Rejection {
    let reason = match body {
        [_, _, 1, 3] => RejectionReason::CallingAeTitle,
        [_, _, 1, 7] => RejectionReason::CalledAeTitle,
        _ => RejectionReason::Other,
    };
    let pdu = [&[3, 0, 0, 0, 0, 4], body].concat();
    let text = match read_pdu(pdu.as_slice(), MAX_ASSOCIATE_RQ_LENGTH, true) {
        Ok(Some(Pdu::AssociationRJ(rejection))) => rejection.source.to_string(),
        // The table does not have these numbers.
        _ => format!("result, source and reason {:?}", body.get(1..).unwrap_or_default()),
    };
    Rejection { reason, text }
}

/// The answer of a peer to a C-ECHO-RQ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Echoed {
    /// Its status.
    pub status: Status,
    /// Time from the start of the connection to the accepted association.
    pub associated_after: Duration,
    /// Time from the request to the response.
    pub answered_after: Duration,
}

/// Requests a C-ECHO from a peer (PS3.4 annex A). It blocks, so it is for commands and not for the
/// node.
///
/// # Errors
/// The reason why there is no answer.
pub fn echo(own: &AeTitle, called: &AeTitle, route: &PeerRoute, waits: Waits) -> Result<Echoed, ScuError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ScuError::Connect)?;
    runtime.block_on(async {
        let proposal = Proposal {
            abstract_syntax: uids::VERIFICATION.to_owned(),
            transfer_syntaxes: vec![
                syntax::IMPLICIT_VR_LITTLE_ENDIAN.to_owned(),
                syntax::EXPLICIT_VR_LITTLE_ENDIAN.to_owned(),
            ],
            as_scp: false,
        };
        let begun = Instant::now();
        let mut association = ScuAssociation::request(own, called, route, &[proposal], waits).await?;
        let associated_after = begun.elapsed();
        let asked = Instant::now();
        let request = EchoRequest { message_id: 1, affected_sop_class_uid: uids::VERIFICATION.to_owned() };
        let context_id = association.accepted.first().map_or(1, |(id, ..)| *id);
        association.send_message(context_id, &request.command_set(), None).await?;
        let response = association.response(CommandField::C_ECHO_RSP, 1).await?;
        let answered_after = asked.elapsed();
        association.release().await;
        Ok(Echoed { status: response.status, associated_after, answered_after })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ul::items::put;

    const CT: &str = uids::CT_IMAGE_STORAGE;
    const MR: &str = uids::MR_IMAGE_STORAGE;

    fn proposals() -> Vec<Proposal> {
        let of = |uid: &str, as_scp| Proposal {
            abstract_syntax: uid.to_owned(),
            transfer_syntaxes: vec![uids::EXPLICIT_VR_LITTLE_ENDIAN.to_owned()],
            as_scp,
        };
        vec![of(CT, false), of(MR, false), of(uids::STORAGE_COMMITMENT_PUSH_MODEL, true)]
    }

    /// An A-ASSOCIATE-AC with these results, and these items besides.
    fn accept(results: &[(u8, u8, Option<&str>)], others: &[(u8, &[u8])]) -> Vec<u8> {
        let mut body = vec![0xFF; FIXED_PART_LENGTH];
        for (id, result, transfer_syntax) in results {
            let mut content = vec![*id, 0, *result, 0];
            if let Some(uid) = transfer_syntax {
                put(&mut content, kind::TRANSFER_SYNTAX, uid.as_bytes());
            }
            put(&mut body, kind::CONTEXT_RESULT, &content);
        }
        others.iter().for_each(|(kind, content)| put(&mut body, *kind, content));
        body
    }

    fn ids(body: &[u8]) -> Vec<u8> {
        accepted(body, &proposals()).unwrap().0.into_iter().map(|(id, ..)| id).collect()
    }

    #[test]
    fn what_is_not_significant_in_an_answer_is_not_looked_at() {
        let explicit = Some(uids::EXPLICIT_VR_LITTLE_ENDIAN);
        for rejected in [(3, 3, None), (3, 4, Some("")), (3, 7, Some("1.2")), (3, 255, None), (3, 1, Some("\u{e4}"))] {
            assert_eq!(ids(&accept(&[(1, 0, explicit), rejected], &[])), [1], "{rejected:?}");
        }
        // Accepted, without saying how; in a syntax that was not proposed; in a context that was
        // not.
        assert_eq!(ids(&accept(&[(1, 0, None), (3, 0, explicit)], &[])), [3]);
        assert_eq!(ids(&accept(&[(1, 0, Some("1.2")), (2, 0, explicit), (9, 0, explicit)], &[])), Vec::<u8>::new());
        let mut odd = accept(&[(1, 0, explicit)], &[]);
        put(&mut odd, kind::CONTEXT_RESULT, &[3]);
        put(&mut odd, 0x99, b"unknown");
        assert_eq!(ids(&odd), [1]);
    }

    #[test]
    fn the_user_information_of_an_answer_is_read_by_the_lengths_of_its_items() {
        let explicit = Some(uids::EXPLICIT_VR_LITTLE_ENDIAN);
        let uid = uids::STORAGE_COMMITMENT_PUSH_MODEL.as_bytes();
        let mut role = vec![0, u8::try_from(uid.len()).unwrap()];
        role.extend_from_slice(uid);
        role.extend_from_slice(&[1, 0, 0]);
        let mut user = Vec::new();
        put(&mut user, kind::ROLE_SELECTION, &role);
        put(&mut user, kind::MAXIMUM_LENGTH, &[0, 0, 0x40, 0]);
        let body = accept(&[(1, 0, explicit), (5, 0, explicit)], &[(kind::USER_INFORMATION, &user)]);
        let (contexts, max_length) = accepted(&body, &proposals()).unwrap();
        assert_eq!((contexts.len(), max_length), (1, 0x4000), "the role was refused");
        let cut = accept(&[(1, 0, explicit)], &[(kind::USER_INFORMATION, &user[..user.len() - 1])]);
        assert!(accepted(&cut, &proposals()).is_err());
        assert!(accepted(&body[..body.len() - 1], &proposals()).is_err());
        assert!(accepted(&[0; 20], &proposals()).is_err());
    }
}
