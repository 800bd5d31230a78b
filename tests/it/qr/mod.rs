//! Queries: Identifiers in, response Identifiers out.

mod identifiers;
mod matcher;
mod oracle;
mod responses;
