//! A-ASSOCIATE PDUs (PS3.8 9.3.2 to 9.3.4): reads a request, and encodes its acceptance.
//!
//! The PDU types are those of dicom-ul.

use std::net::SocketAddr;
use std::ops::Range;

use dicom_ul::pdu::{
    AssociationAC, AssociationRQ, Pdu, PresentationContextResult, UserVariableItem, read_pdu, write_pdu,
};

use super::items::{Item, ItemError, items, kind, proposed_context, put, user_information};
use super::pdu_io::MAX_ASSOCIATE_RQ_LENGTH;
use super::tls::Transport;
use crate::dimse::pdata::PDU_HEADER_LENGTH;
use crate::encoding::padding::without_trailing_padding;

/// DICOM Application Context Name (PS3.7 A.2.1).
pub(crate) const APPLICATION_CONTEXT_NAME: &str = "1.2.840.10008.3.1.1.1";

/// Length of the body of an A-ASSOCIATE-RQ or -AC before its items (PS3.8 tables 9-11 and 9-17).
pub(crate) const FIXED_PART_LENGTH: usize = 68;

/// Position of the AE titles in the body of an A-ASSOCIATE-RQ (PS3.8 table 9-11).
pub(crate) const CALLED_AE_TITLE: Range<usize> = 4..20;

pub(crate) const CALLING_AE_TITLE: Range<usize> = 20..36;

/// Maximum presentation contexts of one association: odd IDs from 1 to 255 (PS3.8 9.3.2.2).
pub const MAX_CONTEXTS: usize = 128;

/// A request, as access control sees it.
#[derive(Clone, Debug)]
pub struct AssociationRequest<'a> {
    /// Calling AE title, without padding, as sent.
    pub calling_ae_title: &'a str,
    /// Called AE title, without padding, as sent.
    pub called_ae_title: &'a str,
    /// The address of the peer.
    pub peer: SocketAddr,
    /// The transport of the connection.
    pub transport: &'a Transport,
}

/// Reads the request without items of unknown type. PS3.8 9.3.1 wants these ignored, but dicom-ul
/// refuses them.
pub(crate) fn parse(body: &[u8]) -> Result<AssociationRQ, &'static str> {
    let (fixed, rest) = body.split_at_checked(FIXED_PART_LENGTH).ok_or("A-ASSOCIATE-RQ is too short")?;
    let mut pdu = Vec::with_capacity(PDU_HEADER_LENGTH + body.len());
    pdu.extend_from_slice(&[1, 0, 0, 0, 0, 0]);
    pdu.extend_from_slice(fixed);
    let (mut contexts, mut has_application_context) = (0, false);
    let cut_short = |_| "A-ASSOCIATE-RQ has an item that is cut short";
    for item in items(rest) {
        let Item { kind, content } = item.map_err(|error| match error {
            ItemError::CutHeader => "A-ASSOCIATE-RQ ends inside an item header",
            ItemError::TooLong | ItemError::TooShort => "item longer than the A-ASSOCIATE-RQ",
        })?;
        match kind {
            kind::APPLICATION_CONTEXT => {
                has_application_context = true;
                put(&mut pdu, kind, content);
            }
            kind::PROPOSED_CONTEXT => {
                contexts += 1;
                put(&mut pdu, kind, &proposed_context(content).map_err(cut_short)?);
            }
            kind::USER_INFORMATION => put(&mut pdu, kind, &user_information(content).map_err(cut_short)?),
            _ => {}
        }
    }
    if contexts > MAX_CONTEXTS {
        return Err("more presentation contexts than there are IDs");
    }
    if contexts == 0 {
        // PS3.8 table 9-11: "one or more Presentation Context Item(s)".
        return Err("no presentation context proposed");
    }
    if !has_application_context {
        return Err("no application context name");
    }
    let length = u32::try_from(pdu.len() - PDU_HEADER_LENGTH).map_err(|_| "A-ASSOCIATE-RQ is too long")?;
    pdu[2..6].copy_from_slice(&length.to_be_bytes());
    match read_pdu(pdu.as_slice(), MAX_ASSOCIATE_RQ_LENGTH, true) {
        Ok(Some(Pdu::AssociationRQ(request))) => Ok(request),
        // `None` asks for more bytes: an item inside an item is cut short.
        Ok(_) => Err("A-ASSOCIATE-RQ has an item that is cut short"),
        Err(_) => Err("A-ASSOCIATE-RQ cannot be read"),
    }
}

/// The variable items of an A-ASSOCIATE-AC.
pub(crate) struct AcceptItems {
    pub(crate) contexts: Vec<PresentationContextResult>,
    pub(crate) user: Vec<UserVariableItem>,
}

/// Encodes an A-ASSOCIATE-AC. `request_body` is what follows the PDU header of the request.
pub(crate) fn accept_pdu(request_body: &[u8], items: AcceptItems) -> Option<Vec<u8>> {
    let accept = AssociationAC {
        protocol_version: 1,
        calling_ae_title: String::new(),
        called_ae_title: String::new(),
        application_context_name: APPLICATION_CONTEXT_NAME.to_owned(),
        presentation_contexts: items.contexts,
        user_variables: items.user,
    };
    let mut bytes = Vec::with_capacity(1024);
    write_pdu(&mut bytes, &Pdu::AssociationAC(accept)).ok()?;
    // PS3.8 table 9-17: both titles and the reserved bytes after them "shall be sent with a value
    // identical to the value received". The text fields of the PDU type would not give the same
    // bytes.
    let echoed = request_body.get(4..FIXED_PART_LENGTH)?;
    bytes.get_mut(PDU_HEADER_LENGTH + 4..PDU_HEADER_LENGTH + FIXED_PART_LENGTH)?.copy_from_slice(echoed);
    Some(bytes)
}

/// Returns an AE title as sent, without padding. Padding is spaces on both sides (PS3.8 9.3.2), and
/// the NULs that some peers add at the end.
pub(crate) fn title(body: &[u8], place: Range<usize>) -> String {
    let text: String = body.get(place).unwrap_or_default().iter().copied().map(char::from).collect();
    without_trailing_padding(&text).trim_start_matches(' ').to_owned()
}

/// Returns a text of a peer for the log: printable ASCII, cut to a length.
pub(crate) fn printable(text: &str, max_length: usize) -> String {
    text.chars().take(max_length).map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }).collect()
}
