//! Tables of the conformance statement (PS3.2) about the Application Entity. They are generated
//! from what the services say of themselves, and from the constants that negotiation uses.

use std::fmt::Write as _;

use dicom_core::dictionary::{UidDictionary as _, UidDictionaryEntry as _};
use dicom_dictionary_std::StandardSopClassDictionary;

use super::negotiation::OWN_TRANSFER_SYNTAXES;
use super::service_class::{ListedSopClass, SopClasses};
use super::services::{service_classes, store};
use super::storage_classes::STORAGE_CLASSES;
use crate::encoding::syntax;
use crate::model::implementation::{IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME};
use crate::ul::associate::APPLICATION_CONTEXT_NAME;
use crate::ul::associate::MAX_CONTEXTS;
use crate::ul::pdu_io::OFFERED_MAX_LENGTH;

/// Returns each generated section: its name in the document, and its text in Markdown.
#[must_use]
pub fn sections() -> Vec<(&'static str, String)> {
    vec![
        ("SOP Classes", sop_classes()),
        ("association identifiers", association_identifiers()),
        ("transfer syntaxes of messages", message_syntaxes()),
        ("C-STORE status codes", store_statuses()),
        ("storage SOP Classes", storage_classes()),
    ]
}

/// Writes the SOP Classes of all services. This node is an SCP of each.
fn sop_classes() -> String {
    let mut text = String::from("| SOP Class | UID | as SCU | as SCP |\n|---|---|---|---|\n");
    for class in service_classes() {
        match class.sop_classes {
            SopClasses::Listed(classes) => {
                for ListedSopClass { uid, as_scu } in classes {
                    let _ = writeln!(text, "| {} | {uid} | {as_scu} | yes |", name_of(uid));
                }
            }
            SopClasses::Storage => text.push_str(
                "| Storage: every SOP Class of PS3.4 annex B, private ones, and ones newer than the program \
                 | see annex A | yes, for C-GET and C-MOVE | yes |\n",
            ),
        }
    }
    text
}

/// Writes what this node says of itself in an association.
fn association_identifiers() -> String {
    format!(
        "| | |\n|---|---|\n\
         | Application Context Name | {APPLICATION_CONTEXT_NAME} |\n\
         | Implementation Class UID | {IMPLEMENTATION_CLASS_UID} |\n\
         | Implementation Version Name | {IMPLEMENTATION_VERSION_NAME} |\n\
         | Maximum Length offered | {OFFERED_MAX_LENGTH} bytes; the node respects that of the peer |\n\
         | Presentation contexts of one association | {MAX_CONTEXTS} at most (PS3.8 9.3.2.2) |\n"
    )
}

/// Writes the transfer syntaxes of messages that this node reads and writes itself.
fn message_syntaxes() -> String {
    let mut text = String::from("| Preference | Transfer syntax | UID |\n|---|---|---|\n");
    for (at, uid) in OWN_TRANSFER_SYNTAXES.iter().enumerate() {
        let name = syntax::known_of(uid).map_or(*uid, |known| known.name);
        let _ = writeln!(text, "| {} | {name} | {uid} |", at + 1);
    }
    text
}

/// Writes the statuses of C-STORE (PS3.4 table B.2-1, PS3.7 9.1.1.1.9).
fn store_statuses() -> String {
    let mut text = String::from("| Status | Meaning |\n|---|---|\n");
    for (status, meaning) in store::statuses() {
        let _ = writeln!(text, "| {status} | {meaning} |");
    }
    text
}

/// Writes the storage SOP Classes that the dictionary knows.
fn storage_classes() -> String {
    let mut text = String::from("| SOP Class | UID |\n|---|---|\n");
    for uid in STORAGE_CLASSES {
        let _ = writeln!(text, "| {} | {uid} |", name_of(uid));
    }
    text
}

/// The name of a SOP Class in PS3.6 table A-1.
fn name_of(uid: &str) -> String {
    StandardSopClassDictionary.by_uid(uid).map(|entry| entry.name().to_owned()).unwrap_or_default()
}
