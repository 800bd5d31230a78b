//! The page for people: search, a study, a series with its images, and the state of the index.
//!
//! Every page works without script, and loads nothing from elsewhere. Its searches are those of
//! QIDO-RS, so a person finds what a client finds. `document` has the parts that all pages share,
//! and `asking` queries the index. The templates escape each value.

mod asking;
pub(super) mod document;
mod entity;
pub(super) mod series;
pub(super) mod status;
pub(super) mod studies;
pub(super) mod study;
