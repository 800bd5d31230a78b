//! The network node, as a peer sees it.

pub(crate) mod access;
mod association;
mod attributes;
mod character_sets;
mod commitment;
mod decompression;
mod hostile;
mod odd_objects;
pub(crate) mod query;
mod retrieval;
mod shares;
pub(crate) mod storage;
pub(crate) mod tls;
