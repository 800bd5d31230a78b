//! Headers of objects.

pub(crate) mod headers;
