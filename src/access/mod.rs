//! Access: which peer may associate and for what ([`peers`], [`policy`]), and who may send requests
//! over HTTP ([`users`], [`jwt`]).
//!
//! [`peers`] is the table of the Application Entities that this node knows. [`policy`] decides on
//! an association. [`users`] is the file of those who send requests over HTTP. [`jwt`] checks the
//! tokens of an identity provider.

pub mod jwt;
pub mod peers;
pub mod policy;
pub mod users;
