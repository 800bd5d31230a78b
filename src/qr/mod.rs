//! Queries: an Identifier becomes a [`FindRequest`](crate::model::find::FindRequest), answers become response
//! Identifiers (PS3.4 annex C). No sockets, no SQL.
//!
//! In reading order: [`Identifier`] (bytes of a peer to keys), [`NegotiatedOptions`] (what was agreed besides), [`parse()`]
//! (keys to a [`Query`]), [`run()`] (a query to answers), [`ResponseWriter`] and [`JsonWriter`]
//! (answers to bytes and to JSON), [`FindError`] (what goes
//! wrong, and its status), [`keys`] (keys from the command line), [`conformance`] (the tables of the conformance statement).

pub mod conformance;
mod encoding;
mod error;
mod identifier;
mod items;
mod json;
pub mod keys;
mod negotiation;
mod parse;
pub(crate) mod readers;
mod respond;
mod retrieve;
mod run;

pub use encoding::{DataSetWriter, Encoding, uid_list_data_set};
pub use error::{Failure, FindError};
pub use identifier::{
    Identifier, IdentifierError, MAX_IDENTIFIER_DEPTH, MAX_IDENTIFIER_ELEMENTS, MAX_IDENTIFIER_LENGTH,
    MAX_IDENTIFIER_VALUES,
};
pub use json::{JsonWriter, encoded_uid};
pub use negotiation::NegotiatedOptions;
pub use parse::{Query, parse};
pub use respond::{ResponseWriter, values_in_items};
pub use retrieve::{
    Instances, ObjectKind, RetrieveError, RetrievedInstance, instances, parse_retrieval, retrieval_negotiation,
};
pub use run::{Stop, run};

use std::sync::Arc;

use crate::model::declared::DeclaredSet;
use crate::model::matching::{NameMatching, UnknownRequired};

/// What can be set about queries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// What becomes of hierarchical queries that break PS3.4 C.4.1.2.1.
    pub hierarchy: Hierarchy,
    /// What becomes of entities without a value for a required key that is asked for.
    pub unknown_required: UnknownRequired,
    /// How names are compared where fuzzy matching was not negotiated.
    pub names: NameMatching,
    /// How Pending responses say that a key is not supported.
    pub pending: PendingStatus,
    /// The most answers to one query; one more ends it with A700 and a comment. `None`: all.
    pub limit: Option<u64>,
    /// The Specific Character Set of requests that name none; empty is the default repertoire.
    pub assumed_character_set: String,
    /// Retrieve AE Title (0008,0054) of answers; empty where objects cannot be retrieved.
    pub retrieve_ae_title: String,
    /// Which answers have it.
    pub retrievable: Retrievable,
    /// Attributes that the index keeps besides those of its table.
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

/// What becomes of queries that were not negotiated as relational and are not hierarchical (PS3.4 C.4.1.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hierarchy {
    /// They are answered as relational ones: viewers and scripts send them.
    Lenient,
    /// A900.
    Strict,
}

/// What can be retrieved from the AE that answers name (PS3.4 C.4.1.1.3.2: "from which the entity may be retrieved").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retrievable {
    /// Everything: it is the title of another node, and whoever set it knows that it has all.
    All,
    /// It is our own title: entities all of whose instances are kept here, that is, which are ONLINE.
    KeptHere,
}

/// How Pending responses say that an optional key is not supported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PendingStatus {
    /// FF01 (PS3.4 table C.4-1).
    AsSupported,
    /// Always FF00, for clients that take FF01 for a failure.
    AlwaysFf00,
}
