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
mod object;
mod parsed;
mod read;
mod rewrite;
mod scrub;
mod tokenizer;
mod vr;
mod wanted;

pub use crate::db::open::WriterHandle;
/// The hand-over of a record to the index.
pub use crate::db::{
    Committed, Compared, DuplicatePolicy, Error as IndexError, KnownLocation, KnownPolicy, ReceivePolicy, Received,
    ReceivedFrom, StoreOutcome, Stored,
};
pub use dicomdir::{MAX_REFERENCES, References, read_references};
pub use fault::{Fault, Faults};
pub use object::{DataSet, Filled, Identity, ObjectError, StoredObject};
pub use parsed::{Parsed, Verdict};
pub use read::{Outcome, read_file, read_stream, read_stream_with, take_bytes_read};
pub use rewrite::{NativeSyntax, RewriteError};
pub use scrub::{Scrub, ScrubTally};
pub use tokenizer::{HeaderParser, Need};
pub use wanted::{Slot, Wanted};
