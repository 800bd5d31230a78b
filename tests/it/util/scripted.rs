//! A peer that follows a script, right or wrong: it sends bytes and receives PDUs.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::time::Duration;

use dicom_dictionary_std::tags;

use dcmdex::dimse::command_set::{self, CommandField, CommandSet};
use dcmdex::dimse::pdata::{FragmentOutcome, MessageAssembler, Pdv, put_message};
use dicom_ul::pdu::{
    AssociationAC, AssociationRQ, Pdu, PresentationContextProposed, PresentationContextResult,
    PresentationContextResultReason, UserVariableItem, read_pdu, write_pdu,
};

/// Time without data after which a peer counts as hung.
const HUNG: Duration = Duration::from_secs(60);

pub(crate) const VERIFICATION: &str = "1.2.840.10008.1.1";
pub(crate) const IMPLICIT_VR_LITTLE_ENDIAN: &str = "1.2.840.10008.1.2";
pub(crate) const EXPLICIT_VR_LITTLE_ENDIAN: &str = "1.2.840.10008.1.2.1";

/// A connection to a node.
#[derive(Debug)]
pub(crate) struct ScriptedPeer {
    stream: TcpStream,
    /// PDVs of messages that are not complete yet.
    assembler: MessageAssembler,
}

/// A response with its data set, if it has one.
#[derive(Debug, PartialEq)]
pub(crate) struct Received {
    pub(crate) context_id: u8,
    pub(crate) command: CommandSet,
    pub(crate) data_set: Option<Vec<u8>>,
}

/// Anything that may arrive.
#[derive(Debug)]
pub(crate) enum Anything {
    Message(Received),
    Pdu(Vec<u8>),
    End,
}

impl Received {
    pub(crate) fn status(&self) -> u16 {
        self.command.unsigned_short(tags::STATUS).unwrap()
    }

    pub(crate) fn field(&self) -> CommandField {
        CommandField(self.command.unsigned_short(tags::COMMAND_FIELD).unwrap())
    }

    pub(crate) fn error_comment(&self) -> &str {
        self.command.text(tags::ERROR_COMMENT).unwrap()
    }
}

/// Connects. A read or a write that takes too long fails, so that a node that hangs fails its test.
pub(crate) fn connected(address: impl ToSocketAddrs) -> TcpStream {
    limited(TcpStream::connect(address).unwrap())
}

fn limited(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(HUNG)).unwrap();
    stream.set_write_timeout(Some(HUNG)).unwrap();
    stream
}

impl ScriptedPeer {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::of_stream(TcpStream::connect(address).unwrap())
    }

    /// Connects from another address of this machine, which may be any of 127.0.0.0/8.
    #[cfg(target_os = "linux")]
    pub(crate) fn connect_from(source: [u8; 4], address: SocketAddr) -> Self {
        use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
        let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        bind(&socket, &SocketAddr::from((source, 0))).unwrap();
        connect(&socket, &address).unwrap();
        Self::of_stream(TcpStream::from(socket))
    }

    fn of_stream(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        Self { stream: limited(stream), assembler: MessageAssembler::new() }
    }

    /// Accepts the next connection to `listener` and reads its A-ASSOCIATE-RQ. Panics if none
    /// comes. Answer with [`Self::accept_contexts`].
    pub(crate) fn accept(listener: &TcpListener) -> (Self, AssociationRQ) {
        let (stream, _) = listener.accept().unwrap();
        let mut peer = Self::of_stream(stream);
        match peer.receive() {
            Some(Pdu::AssociationRQ(request)) => (peer, request),
            other => panic!("no A-ASSOCIATE-RQ: {other:?}"),
        }
    }

    /// Accepts an association with the contexts for which `choose` returns a transfer syntax.
    pub(crate) fn accept_contexts(
        &mut self,
        request: &AssociationRQ,
        choose: impl Fn(&PresentationContextProposed) -> Option<String>,
    ) {
        let presentation_contexts = request
            .presentation_contexts
            .iter()
            .map(|proposed| {
                let chosen = choose(proposed);
                PresentationContextResult {
                    id: proposed.id,
                    reason: match chosen {
                        Some(_) => PresentationContextResultReason::Acceptance,
                        None => PresentationContextResultReason::AbstractSyntaxNotSupported,
                    },
                    transfer_syntax: chosen.unwrap_or_else(|| IMPLICIT_VR_LITTLE_ENDIAN.into()),
                }
            })
            .collect();
        self.send_pdu(&Pdu::AssociationAC(AssociationAC {
            protocol_version: 1,
            calling_ae_title: request.calling_ae_title.clone(),
            called_ae_title: request.called_ae_title.clone(),
            application_context_name: request.application_context_name.clone(),
            presentation_contexts,
            user_variables: vec![UserVariableItem::MaxLength(16_384)],
        }));
    }

    /// Connects and associates. The contexts get the IDs 1, 3, 5, ... Panics if the association or
    /// one of the contexts is not accepted.
    pub(crate) fn associated(address: SocketAddr, contexts: &[(&str, &[&str])]) -> Self {
        let mut peer = Self::connect(address);
        let accept = peer.associate(&request(contexts));
        for context in accept.presentation_contexts {
            assert_eq!(context.reason, PresentationContextResultReason::Acceptance, "context {}", context.id);
        }
        peer
    }

    /// Sends an A-ASSOCIATE-RQ and returns the A-ASSOCIATE-AC, which must come.
    pub(crate) fn associate(&mut self, request: &AssociationRQ) -> AssociationAC {
        self.send_pdu(&Pdu::AssociationRQ(request.clone()));
        match self.receive() {
            Some(Pdu::AssociationAC(accept)) => accept,
            other => panic!("no A-ASSOCIATE-AC: {other:?}"),
        }
    }

    /// Sends bytes. It is not an error if the node has already closed the connection, because its
    /// last bytes can still be read.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        match self.stream.write_all(bytes) {
            Ok(()) => {}
            Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {}
            Err(error) => panic!("cannot send: {error}"),
        }
    }

    pub(crate) fn send_pdu(&mut self, pdu: &Pdu) {
        let mut bytes = Vec::new();
        write_pdu(&mut bytes, pdu).unwrap();
        self.send(&bytes);
    }

    pub(crate) fn send_message(&mut self, context_id: u8, command: &CommandSet, data_set: Option<&[u8]>) {
        let mut bytes = Vec::new();
        put_message(&mut bytes, context_id, command, data_set, 16_384);
        self.send(&bytes);
    }

    /// Ends the connection as a crash does: with RST instead of FIN.
    pub(crate) fn reset(self) {
        rustix::net::sockopt::set_socket_linger(&self.stream, Some(Duration::ZERO)).unwrap();
    }

    /// Signals that nothing more will be sent.
    pub(crate) fn shut_down_sending(&mut self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    /// Receives the next PDU. `None` if the node has closed the connection.
    pub(crate) fn receive(&mut self) -> Option<Pdu> {
        let bytes = self.receive_bytes()?;
        Some(read_pdu(bytes.as_slice(), 1 << 20, true).unwrap().unwrap())
    }

    /// Receives the bytes of the next PDU. `None` if the connection has ended, even inside a PDU.
    pub(crate) fn receive_bytes(&mut self) -> Option<Vec<u8>> {
        let mut bytes = vec![0; 6];
        self.read(&mut bytes)?;
        let length = u32::from_be_bytes(bytes[2..].try_into().unwrap());
        bytes.resize(6 + length as usize, 0);
        self.read(&mut bytes[6..])?;
        Some(bytes)
    }

    fn read(&mut self, bytes: &mut [u8]) -> Option<()> {
        match self.stream.read_exact(bytes) {
            Ok(()) => Some(()),
            Err(error) if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => None,
            Err(error) => panic!("the node says nothing: {error}"),
        }
    }

    /// Receives the next message. Panics if something else comes.
    pub(crate) fn receive_message(&mut self) -> Received {
        match self.receive_anything() {
            Anything::Message(message) => message,
            Anything::Pdu(bytes) => panic!("not a P-DATA-TF: {bytes:02X?}"),
            Anything::End => panic!("no message, but the end of the connection"),
        }
    }

    /// Receives the next message, another PDU, or the end of the connection.
    pub(crate) fn receive_anything(&mut self) -> Anything {
        let mut message: Option<Received> = None;
        loop {
            let Some(bytes) = self.receive_bytes() else { return Anything::End };
            if bytes[0] != 0x04 {
                return Anything::Pdu(bytes);
            }
            let mut body = &bytes[6..];
            while !body.is_empty() {
                let (pdv, rest) = Pdv::split_first(body).unwrap();
                body = rest;
                match self.assembler.accept(&pdv).unwrap() {
                    FragmentOutcome::CommandFragment => {}
                    FragmentOutcome::Command { context_id, command, has_data_set } => {
                        let data_set = has_data_set.then(Vec::new);
                        message = Some(Received { context_id, command, data_set });
                    }
                    FragmentOutcome::DataSetFragment { .. } => {
                        message.as_mut().unwrap().data_set.as_mut().unwrap().extend_from_slice(pdv.fragment);
                    }
                }
            }
            if !self.assembler.in_message()
                && let Some(message) = message.take()
            {
                return Anything::Message(message);
            }
        }
    }

    /// Sends C-ECHO on a context. Panics unless the answer is Success.
    pub(crate) fn echo(&mut self, context_id: u8) {
        self.send_message(context_id, &echo_command(1), None);
        let response = self.receive_message();
        assert_eq!((response.field(), response.status()), (CommandField::C_ECHO_RSP, 0));
    }

    /// Releases the association. Panics unless the node confirms it and then closes the connection.
    pub(crate) fn release(mut self) {
        self.send_pdu(&Pdu::ReleaseRQ);
        assert_eq!(self.receive(), Some(Pdu::ReleaseRP));
        assert_eq!(self.receive(), None);
    }
}

/// Builds an A-ASSOCIATE-RQ to `DCMDEX`, with the contexts 1, 3, 5, ...
pub(crate) fn request(contexts: &[(&str, &[&str])]) -> AssociationRQ {
    AssociationRQ {
        protocol_version: 1,
        calling_ae_title: "SCRIPT".into(),
        called_ae_title: "DCMDEX".into(),
        application_context_name: "1.2.840.10008.3.1.1.1".into(),
        presentation_contexts: contexts
            .iter()
            .zip((1..=u8::MAX).step_by(2))
            .map(|(&(abstract_syntax, transfer_syntaxes), id)| PresentationContextProposed {
                id,
                abstract_syntax: abstract_syntax.into(),
                transfer_syntaxes: transfer_syntaxes.iter().map(|&uid| uid.into()).collect(),
            })
            .collect(),
        user_variables: vec![
            UserVariableItem::MaxLength(16_384),
            UserVariableItem::ImplementationClassUID("1.2.3".into()),
        ],
    }
}

/// A C-ECHO-RQ.
pub(crate) fn echo_command(message_id: u16) -> CommandSet {
    let mut command = CommandSet::new();
    command.set_uid(tags::AFFECTED_SOP_CLASS_UID, VERIFICATION);
    command.set_unsigned_short(tags::COMMAND_FIELD, CommandField::C_ECHO_RQ.0);
    command.set_unsigned_short(tags::MESSAGE_ID, message_id);
    command.set_unsigned_short(tags::COMMAND_DATA_SET_TYPE, command_set::NO_DATA_SET);
    command
}

/// A C-STORE-RQ.
pub(crate) fn store_command(message_id: u16, sop_class_uid: &str, sop_instance_uid: &str) -> CommandSet {
    let mut command = CommandSet::new();
    command.set_uid(tags::AFFECTED_SOP_CLASS_UID, sop_class_uid);
    command.set_unsigned_short(tags::COMMAND_FIELD, CommandField::C_STORE_RQ.0);
    command.set_unsigned_short(tags::MESSAGE_ID, message_id);
    command.set_unsigned_short(tags::PRIORITY, 0);
    command.set_unsigned_short(tags::COMMAND_DATA_SET_TYPE, command_set::DATA_SET_PRESENT);
    command.set_uid(tags::AFFECTED_SOP_INSTANCE_UID, sop_instance_uid);
    command
}

/// A small data set in Implicit VR Little Endian. Elements are added in ascending order.
#[derive(Clone, Debug, Default)]
pub(crate) struct DataSet(pub(crate) Vec<u8>);

impl DataSet {
    /// Builds an instance of a class, with the UIDs that the index needs.
    pub(crate) fn instance(sop_class_uid: &str, study: &str, series: &str, instance: &str) -> Self {
        Self::default()
            .uid(0x0008, 0x0016, sop_class_uid)
            .uid(0x0008, 0x0018, instance)
            .text(0x0008, 0x0060, "OT")
            .text(0x0010, 0x0010, "Test^Person")
            .text(0x0010, 0x0020, "P1")
            .uid(0x0020, 0x000D, study)
            .uid(0x0020, 0x000E, series)
            .text(0x0020, 0x0013, "1")
    }

    pub(crate) fn uid(self, group: u16, element: u16, uid: &str) -> Self {
        self.padded(group, element, uid, 0)
    }

    pub(crate) fn text(self, group: u16, element: u16, text: &str) -> Self {
        self.padded(group, element, text, b' ')
    }

    /// Adds an element with this value.
    pub(crate) fn bytes(mut self, group: u16, element: u16, value: &[u8]) -> Self {
        self = self.header(group, element, value.len() as u32);
        self.0.extend_from_slice(value);
        self
    }

    /// Adds the tag and length of an element, whatever follows.
    pub(crate) fn header(mut self, group: u16, element: u16, length: u32) -> Self {
        self.0.extend(group.to_le_bytes());
        self.0.extend(element.to_le_bytes());
        self.0.extend(length.to_le_bytes());
        self
    }

    fn padded(self, group: u16, element: u16, text: &str, padding: u8) -> Self {
        let mut value = text.as_bytes().to_vec();
        if value.len() % 2 == 1 {
            value.push(padding);
        }
        self.bytes(group, element, &value)
    }
}

/// A C-FIND-RQ.
pub(crate) fn find_command(message_id: u16, sop_class_uid: &str) -> CommandSet {
    let mut command = CommandSet::new();
    command.set_uid(tags::AFFECTED_SOP_CLASS_UID, sop_class_uid);
    command.set_unsigned_short(tags::COMMAND_FIELD, CommandField::C_FIND_RQ.0);
    command.set_unsigned_short(tags::MESSAGE_ID, message_id);
    command.set_unsigned_short(tags::PRIORITY, 0);
    command.set_unsigned_short(tags::COMMAND_DATA_SET_TYPE, command_set::DATA_SET_PRESENT);
    command
}

/// A C-CANCEL-RQ.
pub(crate) fn cancel_command(message_id_being_responded_to: u16) -> CommandSet {
    let mut command = CommandSet::new();
    command.set_unsigned_short(tags::COMMAND_FIELD, CommandField::C_CANCEL_RQ.0);
    command.set_unsigned_short(tags::MESSAGE_ID_BEING_RESPONDED_TO, message_id_being_responded_to);
    command.set_unsigned_short(tags::COMMAND_DATA_SET_TYPE, command_set::NO_DATA_SET);
    command
}

/// A C-GET-RQ, or a C-MOVE-RQ to a destination.
pub(crate) fn retrieve_command(message_id: u16, sop_class_uid: &str, destination: Option<&str>) -> CommandSet {
    let mut command = find_command(message_id, sop_class_uid);
    command.set_unsigned_short(tags::COMMAND_FIELD, CommandField::C_GET_RQ.0);
    if let Some(destination) = destination {
        command.set_unsigned_short(tags::COMMAND_FIELD, CommandField::C_MOVE_RQ.0);
        command.set_text(tags::MOVE_DESTINATION, destination);
    }
    command
}

/// The C-STORE-RSP to a C-STORE-RQ.
pub(crate) fn store_response(request: &CommandSet, status: u16) -> CommandSet {
    let mut command = CommandSet::new();
    command.set_unsigned_short(tags::COMMAND_FIELD, CommandField::C_STORE_RSP.0);
    let message_id = request.unsigned_short(tags::MESSAGE_ID).unwrap();
    command.set_unsigned_short(tags::MESSAGE_ID_BEING_RESPONDED_TO, message_id);
    command.set_unsigned_short(tags::COMMAND_DATA_SET_TYPE, command_set::NO_DATA_SET);
    command.set_unsigned_short(tags::STATUS, status);
    command
}
