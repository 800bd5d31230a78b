//! The network node, as a peer sees it.

mod association;
mod hostile;
mod query;
mod storage;
mod verification;
