//! The network node, as a peer sees it.

mod access;
mod association;
mod attributes;
mod character_sets;
mod commitment;
mod hostile;
mod odd_objects;
mod query;
mod retrieval;
mod shares;
mod storage;
mod tls;
