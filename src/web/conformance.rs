//! The tables of the conformance statement (PS3.2, PS3.18) for DICOMweb, made from the code that
//! answers.

use std::fmt::Write as _;

use super::forms::frame_type;
use super::query::default_attributes;
use super::resource::{METHODS_OF_RESOURCES, SERVICE};
use super::store::reasons;
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

/// Transfer syntaxes whose frames have a media type of their own.
const COMPRESSED: [(&str, &str); 14] = [
    ("1.2.840.10008.1.2.5", "RLE Lossless"),
    ("1.2.840.10008.1.2.4.50", "JPEG Baseline"),
    ("1.2.840.10008.1.2.4.51", "JPEG Extended"),
    ("1.2.840.10008.1.2.4.57", "JPEG Lossless"),
    ("1.2.840.10008.1.2.4.70", "JPEG Lossless, First-Order Prediction"),
    ("1.2.840.10008.1.2.4.80", "JPEG-LS Lossless"),
    ("1.2.840.10008.1.2.4.81", "JPEG-LS Near-lossless"),
    ("1.2.840.10008.1.2.4.90", "JPEG 2000 Lossless"),
    ("1.2.840.10008.1.2.4.91", "JPEG 2000"),
    ("1.2.840.10008.1.2.4.92", "JPEG 2000 Part 2 Lossless"),
    ("1.2.840.10008.1.2.4.201", "HTJ2K Lossless"),
    ("1.2.840.10008.1.2.4.110", "JPEG XL Lossless"),
    ("1.2.840.10008.1.2.4.100", "MPEG2 Main Profile / Main Level"),
    ("1.2.840.10008.1.2.4.102", "MPEG-4 AVC/H.264 High Profile"),
];

fn frames() -> String {
    let mut text = String::from(
        "| Transfer syntax | UID | Media type besides `application/octet-stream` | Decompressed by WADO-RS \
         | by C-GET and C-MOVE |\n|---|---|---|---|---|\n",
    );
    for (uid, name) in COMPRESSED {
        let decompressed = match Codec::of(uid).map(|codec| codec.loss) {
            Some(Loss::None) => "yes | yes",
            Some(Loss::Possible | Loss::Certain) => "for rendering | yes",
            None => "no | no",
        };
        let _ = writeln!(text, "| {name} | {uid} | `{}` | {decompressed} |", frame_type(uid));
    }
    text
}

fn failures() -> String {
    let mut text = String::from("| Failure Reason (0008,1197) | When |\n|---|---|\n");
    for (reason, when) in reasons() {
        let _ = writeln!(text, "| {reason} ({reason:04X}H) | {when} |");
    }
    text
}
