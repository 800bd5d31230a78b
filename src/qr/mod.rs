//! Queries (PS3.4 annex C), without sockets and SQL. An Identifier becomes a
//! [`FindRequest`](crate::model::find::FindRequest), and answers become response Identifiers.
//!
//! In reading order:
//!
//! - [`Identifier`]: the bytes of a peer become keys.
//! - [`NegotiatedOptions`]: the result of extended negotiation.
//! - [`parse()`]: keys become a [`Query`].
//! - [`run()`]: a query gets its answers.
//! - [`ResponseWriter`] and [`JsonWriter`]: answers become bytes or JSON.
//! - [`FindError`]: errors and the status of each.
//! - [`keys`]: keys from the command line.
//! - [`conformance`]: tables of the conformance statement.

mod answered;
pub mod conformance;
mod error;
mod identifier;
pub(crate) mod items;
mod json;
pub mod keys;
mod negotiation;
mod parse;
pub(crate) mod readers;
mod repository;
mod respond;
mod retrieve;
mod run;
mod stored_items;

pub use error::{Failure, FindError};
pub use identifier::{
    Identifier, IdentifierError, MAX_IDENTIFIER_DEPTH, MAX_IDENTIFIER_ELEMENTS, MAX_IDENTIFIER_LENGTH,
    MAX_IDENTIFIER_VALUES,
};
pub use json::{JsonWriter, encoded_uid};
pub use negotiation::NegotiatedOptions;
pub use parse::{Query, parse};
pub use repository::parse_repository;
pub use respond::{ItemWriter, ResponseWriter};
pub use retrieve::{
    InstanceOwner, Instances, ObjectKind, RetrieveError, RetrievedInstance, instances, parse_retrieval,
    retrieval_negotiation, with_owners,
};
pub use run::{QueryControl, QueryStop, StopOrder, run, run_by, try_run};
pub use stored_items::{stored_items, values_in_items};

use std::sync::Arc;

use crate::model::declared::DeclaredSet;
use crate::model::matching::{NameMatching, UnknownRequired};

/// Settings of queries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Treatment of hierarchical queries that break PS3.4 C.4.1.2.1.
    pub hierarchy: Hierarchy,
    /// Whether an entity without a value for a required key matches.
    pub unknown_required: UnknownRequired,
    /// Comparison of names if fuzzy matching was not negotiated.
    pub names: NameMatching,
    /// Status of Pending responses for a key that is not supported.
    pub pending: PendingStatus,
    /// Maximum number of answers to one query. One more ends the query with A700 and a comment.
    /// `None` means no limit.
    pub limit: Option<u64>,
    /// Specific Character Set of requests that have none. Empty means the default repertoire.
    pub assumed_character_set: String,
    /// Retrieve AE Title (0008,0054) of answers. It is empty if objects cannot be retrieved.
    pub retrieve_ae_title: String,
    /// Answers that have Retrieve AE Title.
    pub retrievable: Retrievable,
    /// Attributes that the index keeps in addition to its table.
    pub declared: Arc<DeclaredSet>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            hierarchy: Hierarchy::Lenient,
            unknown_required: UnknownRequired::NoMatch,
            names: NameMatching::LeadingComponents,
            pending: PendingStatus::AsSupported,
            limit: None,
            assumed_character_set: String::new(),
            retrieve_ae_title: String::new(),
            retrievable: Retrievable::All,
            declared: Arc::clone(DeclaredSet::none()),
        }
    }
}

/// Treatment of queries that are neither negotiated as relational nor hierarchical (PS3.4
/// C.4.1.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hierarchy {
    /// They are answered as relational queries, because viewers and scripts send them.
    Lenient,
    /// They fail with A900.
    Strict,
}

/// Entities that can be retrieved from the AE that answers name (PS3.4 C.4.1.1.3.2: "from which the
/// entity may be retrieved").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retrievable {
    /// All of them. The title is that of another node, and the operator who set it knows that the
    /// node has everything.
    All,
    /// Entities whose instances are all kept here, which means that they are ONLINE. The title is
    /// our own.
    KeptHere,
}

/// Status of Pending responses for an optional key that is not supported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PendingStatus {
    /// FF01 if a key is not supported (PS3.4 table C.4-1).
    AsSupported,
    /// Always FF00, for clients that treat FF01 as a failure.
    AlwaysFf00,
}
