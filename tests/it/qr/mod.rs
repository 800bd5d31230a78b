//! Queries: Identifiers in, response Identifiers out.

mod answered_again;
mod conformance;
mod identifiers;
mod matcher;
mod oracle;
mod responses;
mod running;
