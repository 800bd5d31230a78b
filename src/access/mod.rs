//! Who may use which service. DIMSE and HTTP have the same rules.
//!
//! [`peers`] is the table of the Application Entities that this node knows. [`policy`] decides on
//! an association. [`users`] is the file of those who send requests over HTTP. [`jwt`] checks the
//! tokens of an identity provider.

pub mod jwt;
pub mod peers;
pub mod policy;
pub mod users;
