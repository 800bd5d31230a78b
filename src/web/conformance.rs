//! The tables of the conformance statement (PS3.2, PS3.18) for DICOMweb, made from the code that
//! answers.

use std::fmt::Write as _;

use super::query::default_attributes;
use super::resource::{METHODS_OF_RESOURCES, SERVICE};
use super::store::reasons;
use crate::encoding::syntax;
use crate::model::level::QueryRetrieveLevel;
use crate::pixels::codec::{Codec, Loss};

/// Returns each generated section: its name in the document, and its text in Markdown.
#[must_use]
pub fn sections() -> Vec<(&'static str, String)> {
    vec![
        ("DICOMweb resources", resources()),
        ("DICOMweb default attributes", defaults()),
        ("DICOMweb frames", frames()),
        ("DICOMweb failure reasons", failures()),
    ]
}

fn resources() -> String {
    let mut text = String::from("| Resource | Methods | Transaction | Media types |\n|---|---|---|---|\n");
    for resource in METHODS_OF_RESOURCES.iter().filter(|resource| resource.template.starts_with(SERVICE)) {
        let media_types: Vec<_> = resource.media_types.iter().map(|it| format!("`{it}`")).collect();
        let _ = writeln!(
            text,
            "| `{}` | {} | {} | {} |",
            resource.template,
            resource.methods.join(", "),
            resource.what,
            media_types.join(", ")
        );
    }
    text
}

fn defaults() -> String {
    let mut text = String::from("| Level | Attributes |\n|---|---|\n");
    for level in [QueryRetrieveLevel::Study, QueryRetrieveLevel::Series, QueryRetrieveLevel::Image] {
        let attributes: Vec<_> = default_attributes(level).collect();
        let _ = writeln!(text, "| {} | {} |", level.as_str(), attributes.join(", "));
    }
    text
}

fn frames() -> String {
    let mut text = String::from(
        "| Transfer syntax | UID | Media type besides `application/octet-stream` | Decompressed by WADO-RS \
         | by C-GET and C-MOVE |\n|---|---|---|---|---|\n",
    );
    for known in &syntax::KNOWN {
        let (uid, codec) = (known.uid, Codec::of(known.uid));
        let frame_type = match known.frame_type {
            Some(frame_type) => format!("`{frame_type}`"),
            None if codec.is_some() => "none".to_owned(),
            None => continue,
        };
        let decompressed = match codec.map(|codec| codec.loss) {
            Some(Loss::None) => "yes | yes",
            Some(Loss::Possible | Loss::Certain) => "for rendering | yes",
            None => "no | no",
        };
        let _ = writeln!(text, "| {} | {uid} | {frame_type} | {decompressed} |", known.name);
    }
    text
}

fn failures() -> String {
    let mut text = String::from("| Failure Reason (0008,1197) | When |\n|---|---|\n");
    for (reason, when) in reasons() {
        let _ = writeln!(text, "| {} ({reason}H) | {when} |", reason.0);
    }
    text
}
