//! The network node, as a peer sees it.

mod association;
mod hostile;
mod storage;
mod verification;
