//! Reads one object and makes its instance record.
//!
//! In reading order:
//!
//! - [`HeaderParser`]: bytes become wanted elements.
//! - [`Wanted`]: the list of wanted elements.
//! - [`Parsed`]: the result of the parser.
//! - [`read_file`] and [`Outcome`]: a whole file becomes its record.
//! - [`Fault`]: faults of an object.
//! - [`limits`]: limits on every length from outside.

mod delta;
mod dicomdir;
mod fault;
mod json;
pub mod limits;
mod outcome;
mod parsed;
mod read;
mod tokenizer;
mod wanted;

pub use dicomdir::{MAX_REFERENCES, References, read_references};
pub use fault::{Fault, Faults};
pub use outcome::{EMPTY, Outcome};
pub use parsed::{Parsed, Verdict};
pub(crate) use read::parse_stream;
pub use read::{read_file, read_file_of_length, read_stream, read_stream_with, take_bytes_read};
pub use tokenizer::{HeaderParser, Need};
pub use wanted::{Slot, Wanted};
