//! PS3.5: how data sets are encoded. It imports nothing of ours.

pub(crate) mod tag;
pub(crate) mod vr;
pub(crate) mod walk;
