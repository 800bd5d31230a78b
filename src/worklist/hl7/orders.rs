//! What a message wants: orders that are new, changed, cancelled, or corrections of a patient.

use super::map::{Hl7Map, OrderSegments, date_and_time};
use super::message::{Hl7Segment, Message};
use crate::worklist::intake::CancelScope;
use crate::worklist::item::WorklistItem;

/// What a message wants.
#[derive(Debug)]
pub(super) enum WantedChange {
    /// Orders.
    Orders(Vec<Hl7Order>),
    /// Corrections of a patient: the item has the new values, and the text is the former Patient ID
    /// where that changes.
    Patient(Box<WorklistItem>, Option<String>),
    /// Nothing that concerns a worklist.
    Nothing,
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

/// What becomes of an order.
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
        ("ADT", "A08" | "A31" | "A40") => patient(message, map, event == "A40"),
        ("ADT", _) => Ok(WantedChange::Nothing),
        ("", _) => Err(RefusedMessage::NoType),
        _ => Err(RefusedMessage::Type(format!("{kind}^{event}").chars().take(SHOWN).collect())),
    }
}

fn patient(message: &Message, map: &Hl7Map, merges: bool) -> Result<WantedChange, RefusedMessage> {
    if message.segment("PID").is_none() {
        return Err(RefusedMessage::NoPatient);
    }
    let item = map.item(&OrderSegments { common: &message.segments, own: Vec::new() }, message);
    let former = message.segment("MRG").map(|merge| merge.text(1, Some(1), None, message.delimiters));
    Ok(WantedChange::Patient(Box::new(item), former.filter(|id| merges && !id.is_empty())))
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

/// When a message was made: `YYYYMMDDHHMMSS`, or empty.
pub(super) fn message_time(message: &Message) -> String {
    date_and_time(&message.header(7, 1)).map_or_else(String::new, |(date, time)| format!("{date}{time:0<6}"))
}
