//! The encoding of data sets (PS3.5). Each fact of PS3.5 is written once, here. This module imports
//! nothing else of the crate.
//!
//! In reading order:
//!
//! - [`syntax`]: transfer syntaxes.
//! - `vr`: value representations.
//! - `padding`: what fills a value up to an even length.
//! - `tag`: items and delimiters.
//! - `multiplicity`: how many values an attribute may have.
//! - `header`: element headers.
//! - [`data_set`]: small data sets that this program writes.
//! - [`charset`]: Specific Character Set. `code_sets` has the sets that it names, and `runs`
//!   decodes bytes of one set.
//! - `walk`: all elements of a data set, one after the other.

pub mod charset;
mod code_sets;
pub mod data_set;
pub(crate) mod header;
pub(crate) mod multiplicity;
pub(crate) mod padding;
mod runs;
pub mod structure;
pub mod syntax;
pub(crate) mod tag;
pub(crate) mod vr;
pub(crate) mod walk;
