//! Headers of objects.

mod headers;
