//! The network node, as a peer sees it.

mod access;
mod association;
mod attributes;
mod character_sets;
mod hostile;
mod query;
mod storage;
mod verification;
