//! What the behaviour tests share.

pub(crate) mod peers;
