//! Who may use which service. DIMSE and HTTP have the same rules.
//!
//! [`peers`] is the table of the Application Entities that this node knows. [`policy`] decides on
//! an association.

pub mod peers;
pub mod policy;
