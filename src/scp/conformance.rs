//! Tables of the conformance statement (PS3.2) about services. They are generated from what the
//! services say of themselves.

use std::fmt::Write as _;

use super::services::service_classes;

/// Returns each generated section: its name in the document, and its text in Markdown.
#[must_use]
pub fn sections() -> Vec<(&'static str, String)> {
    vec![("SOP Classes", sop_classes())]
}

/// Writes the SOP Classes of all services. This node is an SCP of each.
fn sop_classes() -> String {
    let mut text = String::from("| SOP Class | as SCU | as SCP |\n|---|---|---|\n");
    for row in service_classes().iter().flat_map(|class| class.statement) {
        let _ = writeln!(text, "| {} | {} | yes |", row.sop_class, row.as_scu);
    }
    text
}
