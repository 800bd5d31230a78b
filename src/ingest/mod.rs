//! One object to an instance record.
//!
//! In reading order: [`HeaderParser`] (bytes in, wanted elements out), [`Wanted`] (which those are), [`Parsed`] (what
//! comes out), [`read_file`] and [`Outcome`] (a whole file to its record), [`Fault`] (what may be wrong with it) and
//! [`limits`] (what every length from outside meets).

mod dicomdir;
mod fault;
mod json;
pub mod limits;
mod neighbours;
mod outcome;
mod parsed;
mod read;
mod tokenizer;
mod wanted;

pub use dicomdir::{MAX_REFERENCES, References, read_references};
pub use fault::{Fault, Faults};
pub use outcome::Outcome;
pub use parsed::{Parsed, Verdict};
pub(crate) use read::parse_stream;
pub use read::{read_file, read_stream, read_stream_with, take_bytes_read};
pub use tokenizer::{HeaderParser, Need};
pub use wanted::{Slot, Wanted};
