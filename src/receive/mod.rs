//! An object arrives: it gets its place in the store and its row in the index. C-STORE and STOW-RS
//! both use this module. It knows no DIMSE type and no HTTP type.
//!
//! In reading order:
//!
//! - [`Storage`](storage::Storage) holds what receiving needs.
//! - [`Arriving`](arriving::Arriving) takes one data set, fragment by fragment.
//! - [`ReceiveError`](error::ReceiveError) says why an object is not stored.
//! - [`UnderWay`](under_way::UnderWay) counts the objects that are being stored, and limits them.
//! - [`Journal`](journal::Journal) makes small objects of all senders durable together, and
//!   [`replay`] stores them again after a crash.
//! - `sink` writes the file, and `keep` gives it its place.
//! - `first` examines the object that the index already names.
//! - `trash` moves objects away that an operator removed.

pub mod arriving;
pub mod error;
mod first;
pub mod journal;
mod keep;
mod log;
pub mod replay;
mod sink;
pub mod storage;
pub mod trash;
pub mod under_way;
