//! An object arrives: it gets its place in the store and its row in the index. C-STORE and STOW-RS
//! both use this module. It knows no DIMSE type and no HTTP type.
//!
//! In reading order: [`Storage`](storage::Storage) (what receiving needs),
//! [`Arriving`](arriving::Arriving) (one data set, fragment by fragment),
//! [`ReceiveError`](error::ReceiveError) (why it is not stored), [`UnderWay`](under_way::UnderWay)
//! (objects that are being stored, and their limits). `sink` writes the file, `keep` gives it its
//! place, and `first` examines the object that the index already names.

pub mod arriving;
pub mod error;
mod first;
mod keep;
mod log;
mod sink;
pub mod storage;
pub mod under_way;
