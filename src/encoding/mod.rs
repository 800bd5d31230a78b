//! PS3.5: how data sets are encoded, each fact once. It imports nothing of ours.
//!
//! In reading order: [`syntax`] (transfer syntaxes), `vr` (value representations), `tag` (items and
//! delimiters), `header` (element headers), [`data_set`] (small data sets that we write), [`charset`]
//! (Specific Character Set), `walk` (all elements of a data set, one after the other).

pub mod charset;
pub mod data_set;
mod header;
pub mod syntax;
pub(crate) mod tag;
pub(crate) mod vr;
pub(crate) mod walk;
