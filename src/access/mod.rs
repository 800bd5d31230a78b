//! Who may ask for what: the same for DIMSE and for HTTP.
//!
//! [`peers`] is the table of the Application Entities that this node knows. [`policy`] decides on an
//! association.

pub mod peers;
pub mod policy;
