//! An object arrives: it gets its place in the store and its row in the index. C-STORE and STOW-RS
//! both come here; nothing in this module knows a DIMSE or HTTP type.
//!
//! In reading order: [`Storage`](storage::Storage) (what receiving needs),
//! [`Arriving`](arriving::Arriving) (one data set, fragment by fragment),
//! [`ReceiveError`](error::ReceiveError) (why it is not stored), [`UnderWay`](under_way::UnderWay)
//! (what is being stored, and the limits for it). `sink` writes the file, `keep` decides what becomes
//! of it, `first` looks at the object that the index names already.

pub mod arriving;
pub mod error;
mod first;
mod keep;
mod sink;
pub mod storage;
pub mod under_way;
