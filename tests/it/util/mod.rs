//! Helpers that the behaviour tests share.

pub(crate) mod archives;
pub(crate) mod certificates;
pub(crate) mod disks;
pub(crate) mod engine;
pub(crate) mod generated;
pub(crate) mod http;
pub(crate) mod http2;
pub(crate) mod known;
pub(crate) mod network;
pub(crate) mod node;
pub(crate) mod objects;
pub(crate) mod peers;
pub(crate) mod postgres;
pub(crate) mod scripted;
pub(crate) mod snapshot;
pub(crate) mod terminal;
