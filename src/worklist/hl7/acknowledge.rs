//! Acknowledgments (HL7 2.5.1, 2.9.2).

use super::message::Message;
use crate::model::local_time::local_date_and_time;

/// Code of an acknowledgment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckCode {
    /// The message was taken (AA).
    Accept,
    /// The message has an error (AE).
    Error,
    /// The message is of no kind that is taken here, or cannot be taken now (AR).
    Reject,
}

impl AckCode {
    /// Returns the value of MSA-1.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accept => "AA",
            Self::Error => "AE",
            Self::Reject => "AR",
        }
    }
}

/// An acknowledgment of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acknowledgment {
    /// Its code.
    pub code: AckCode,
    /// Reason, in ASCII and without values of the patient. Empty if everything is fine.
    pub text: String,
    /// The acknowledgment as a message.
    pub bytes: Vec<u8>,
}

impl Acknowledgment {
    /// Acknowledges a message. Without one, its header could not be read.
    pub(super) fn new(message: Option<&Message>, code: AckCode, text: &str, now_ms: i64) -> Self {
        // Nothing of a stranger may end a segment or a field.
        let plain = |text: &str| -> String {
            text.chars().filter(|c| c.is_ascii() && !c.is_ascii_control() && !"|^~\\&".contains(*c)).take(200).collect()
        };
        let text = plain(text);
        let header =
            |field, component| message.map_or_else(String::new, |message| plain(&message.header(field, component)));
        let (date, time) = local_date_and_time(now_ms);
        let version = Some(header(12, 1)).filter(|version| !version.is_empty()).unwrap_or_else(|| "2.5.1".to_owned());
        let processing = Some(header(11, 1)).filter(|id| !id.is_empty()).unwrap_or_else(|| "P".to_owned());
        let id = header(10, 1);
        let mut out = format!(
            "MSH|^~\\&|DCMDEX||{}|{}|{date}{time}||ACK^{}^ACK|D{now_ms}|{processing}|{version}\rMSA|{}|{id}",
            header(3, 1),
            header(4, 1),
            header(9, 2),
            code.as_str(),
        );
        if !text.is_empty() {
            out.push('|');
            out.push_str(&text);
        }
        out.push('\r');
        if code != AckCode::Accept {
            // HL7 table 0357: 207 is an application internal error, 200 an unsupported message
            // type.
            let number = if code == AckCode::Reject { "200" } else { "207" };
            out.push_str(&format!("ERR|||{number}^Application error^HL70357|E||||{text}\r"));
        }
        Self { code, text, bytes: out.into_bytes() }
    }
}
