//! Changes that a message asks for: orders that are new, changed, cancelled, or corrections of a
//! patient.

use dicom_dictionary_std::tags;

use super::map::{Hl7Map, OrderSegments, date_time};
use super::message::{Hl7Segment, Message};
use crate::worklist::intake::CancelScope;
use crate::worklist::item::WorklistItem;

/// Change that a message wants.
#[derive(Debug)]
pub(super) enum WantedChange {
    /// Orders.
    Orders(Vec<Hl7Order>),
    /// Corrections of patients.
    Patients(Vec<PatientCorrection>),
    /// Nothing that concerns a worklist.
    Nothing,
}

/// Corrections of one patient.
#[derive(Debug)]
pub(super) struct PatientCorrection {
    /// The new values.
    pub(super) item: WorklistItem,
    /// Patient whose items are corrected.
    pub(super) of: PatientIdentifier,
}

/// An identifier of a patient. The same number of another authority is another patient.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct PatientIdentifier {
    pub(super) id: String,
    /// Its assigning authority. Empty if it is unknown.
    pub(super) issuer: String,
}

/// Without the identifier, which is of a patient.
impl std::fmt::Debug for PatientIdentifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PatientIdentifier").finish_non_exhaustive()
    }
}

impl PatientIdentifier {
    /// Whether an item with this Issuer of Patient ID may be of the patient. One that is unknown
    /// may be any.
    pub(super) fn may_be_issued_by(&self, issuer: &str) -> bool {
        self.issuer.is_empty() || issuer.is_empty() || self.issuer == issuer
    }
}

/// One order of a message.
#[derive(Debug)]
pub(super) struct Hl7Order {
    pub(super) action: OrderAction,
    /// One item for each scheduled procedure step.
    pub(super) items: Vec<WorklistItem>,
    /// Its numbers, the strongest first.
    pub(super) keys: Vec<String>,
    /// Whether its steps replace all former ones.
    pub(super) replaces_steps: bool,
}

/// Action for an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OrderAction {
    Put,
    Start,
    Complete,
    Cancel(CancelScope),
}

/// Reason why a message cannot be used. The text has no value of the patient.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RefusedMessage {
    /// Its type has nothing to do with a worklist, and nobody should send it here.
    #[error("message type {0} is not supported")]
    Type(String),
    /// It does not say what it is.
    #[error("it names no message type (MSH-9)")]
    NoType,
    /// It has no order.
    #[error("it has neither ORC nor OBR")]
    NoOrder,
    /// The order control code is unknown.
    #[error("order control {0} (ORC-1) is not supported")]
    Control(String),
    /// It has no patient.
    #[error("it has no PID segment")]
    NoPatient,
}

/// Longest code of a message in an error text.
const SHOWN: usize = 20;

/// Finds out what a message wants.
pub(super) fn wanted(message: &Message, map: &Hl7Map) -> Result<WantedChange, RefusedMessage> {
    let (kind, event) = (message.header(9, 1), message.header(9, 2));
    match (kind.as_str(), event.as_str()) {
        ("ORM" | "OMI" | "OMG", _) => orders(message, map).map(WantedChange::Orders),
        ("ADT", "A08" | "A31" | "A40") => patients(message, map, event == "A40").map(WantedChange::Patients),
        ("ADT", _) => Ok(WantedChange::Nothing),
        ("", _) => Err(RefusedMessage::NoType),
        _ => Err(RefusedMessage::Type(format!("{kind}^{event}").chars().take(SHOWN).collect())),
    }
}

/// The corrections of a message. A merge may have several patients (HL7 2.5.1, 3.3.40). Each has
/// the PID of the one that stays and the MRG of the one that goes.
fn patients(message: &Message, map: &Hl7Map, merges: bool) -> Result<Vec<PatientCorrection>, RefusedMessage> {
    let segments = message.segments.as_slice();
    let first = segments.iter().position(|segment| segment.name == "PID").ok_or(RefusedMessage::NoPatient)?;
    let (common, rest) = segments.split_at(first);
    let mut corrections = Vec::new();
    // Each chunk begins with a PID.
    for own in rest.chunk_by(|_, next| next.name != "PID") {
        let item = map.item(&OrderSegments { common, own: own.iter().collect() }, message);
        let issuer = item.text(tags::ISSUER_OF_PATIENT_ID);
        let former = own.iter().filter(|segment| merges && segment.name == "MRG");
        let former = former.filter_map(|merge| former_identifier(merge, issuer, message));
        let mut of: Vec<_> = former.collect();
        if of.is_empty() {
            of.push(PatientIdentifier { id: item.text(tags::PATIENT_ID).to_owned(), issuer: issuer.to_owned() });
        }
        corrections.extend(of.into_iter().map(|of| PatientCorrection { item: item.clone(), of }));
    }
    Ok(corrections)
}

/// Reads MRG-1 (CX, HL7 2.5.1, 3.4.9.1). A number without an authority is of that of PID-3, since a
/// merge is made by the authority that gave both.
fn former_identifier(merge: &Hl7Segment, issuer: &str, message: &Message) -> Option<PatientIdentifier> {
    let component = |number| merge.text(1, Some(number), None, message.delimiters);
    let (id, own_issuer) = (component(1), component(4));
    let issuer = if own_issuer.is_empty() { issuer.to_owned() } else { own_issuer };
    (!id.is_empty()).then_some(PatientIdentifier { id, issuer })
}

fn orders(message: &Message, map: &Hl7Map) -> Result<Vec<Hl7Order>, RefusedMessage> {
    let segments = message.segments.as_slice();
    let begins = |segment: &Hl7Segment| matches!(segment.name.as_str(), "ORC" | "OBR");
    let first = segments.iter().position(begins).ok_or(RefusedMessage::NoOrder)?;
    let (common, rest) = segments.split_at(first);
    let mut groups: Vec<Vec<&Hl7Segment>> = Vec::new();
    for segment in rest {
        let has = |name: &str| groups.last().is_some_and(|group| group.iter().any(|known| known.name == name));
        match segment.name.as_str() {
            "ORC" => groups.push(vec![segment]),
            // A further OBR without an ORC belongs to the same order control.
            "OBR" if groups.is_empty() || has("OBR") => {
                let control =
                    groups.last().and_then(|group| group.first().copied()).filter(|first| first.name == "ORC");
                groups.push(control.into_iter().chain([segment]).collect());
            }
            _ => {
                if let Some(group) = groups.last_mut() {
                    group.push(segment);
                }
            }
        }
    }
    // ZDS stands at the end of the message, and is for all orders that have none.
    let zds: Vec<_> = rest.iter().filter(|segment| segment.name == "ZDS").collect();
    for group in &mut groups {
        if let [only] = zds.as_slice()
            && !group.iter().any(|segment| segment.name == "ZDS")
        {
            group.push(only);
        }
    }
    groups.into_iter().map(|own| order(own, common, message, map)).collect()
}

fn order(
    own: Vec<&Hl7Segment>,
    common: &[Hl7Segment],
    message: &Message,
    map: &Hl7Map,
) -> Result<Hl7Order, RefusedMessage> {
    let text = |name: &str, field: usize| {
        let segment = own.iter().find(|segment| segment.name == name);
        segment.map_or_else(String::new, |segment| segment.text(field, Some(1), None, message.delimiters))
    };
    let control = text("ORC", 1);
    let action = action(&control, &text("ORC", 5))?;
    // Numbers are unique with the application that gave them (EI).
    let key = |letter: char, segment: &str, field: usize| {
        let segment = own.iter().find(|known| known.name == segment)?;
        let part = |number| segment.text(field, Some(number), None, message.delimiters);
        let number = part(1);
        (!number.is_empty()).then(|| format!("{letter}|{number}|{}", part(2)))
    };
    let mut keys: Vec<String> = [key('F', "ORC", 3), key('F', "OBR", 3), key('P', "ORC", 2), key('P', "OBR", 2)]
        .into_iter()
        .flatten()
        .collect();
    keys.dedup();
    let steps: Vec<&Hl7Segment> = own.iter().filter(|segment| segment.name == "IPC").copied().collect();
    let others: Vec<&Hl7Segment> = own.into_iter().filter(|segment| segment.name != "IPC").collect();
    let item_of = |step: Option<&Hl7Segment>| {
        let own = others.iter().copied().chain(step).collect::<Vec<_>>();
        map.item(&OrderSegments { common, own }, message)
    };
    let has_steps = !steps.is_empty();
    let items = if !has_steps {
        vec![map.item(&OrderSegments { common, own: others.clone() }, message)]
    } else {
        steps.into_iter().map(|step| item_of(Some(step))).collect()
    };
    // HL7 2.5.1, 2.10.4.1: segments that repeat replace all former ones (snapshot mode). A new
    // order has nothing to replace, and some senders write one message for each step.
    let is_change = action == OrderAction::Put && matches!(control.as_str(), "XO" | "XX" | "RP" | "RO");
    Ok(Hl7Order { action, items, keys, replaces_steps: is_change && has_steps })
}

/// HL7 table 0119, and table 0038 for a status.
fn action(control: &str, status: &str) -> Result<OrderAction, RefusedMessage> {
    let of_status = match status {
        "CA" => OrderAction::Cancel(CancelScope::NotDone),
        "DC" => OrderAction::Cancel(CancelScope::NotStarted),
        "CM" => OrderAction::Complete,
        "IP" => OrderAction::Start,
        _ => OrderAction::Put,
    };
    match control {
        "NW" | "SN" | "RP" | "RO" | "" => Ok(OrderAction::Put),
        "XO" | "XX" | "SC" => Ok(of_status),
        "CA" | "OC" | "CR" => Ok(OrderAction::Cancel(CancelScope::NotDone)),
        "DC" | "OD" | "DR" => Ok(OrderAction::Cancel(CancelScope::NotStarted)),
        other => Err(RefusedMessage::Control(other.chars().take(SHOWN).collect())),
    }
}

/// When a message was made: a DT value, or empty.
pub(super) fn message_time(message: &Message) -> String {
    date_time(&message.header(7, 1)).unwrap_or_default()
}
