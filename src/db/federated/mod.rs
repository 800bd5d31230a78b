//! Several files as one index.
//!
//! A [`Federation`] asks each of its files and merges what they say, so that it answers as one
//! undivided index would (docs/adr/0038). A study lives in one file, apart from *shared studies*,
//! of which several files hold a part. Those are put together when they are answered. With a single
//! file everything goes straight to it.

mod admin;
mod asked;
mod combine;
mod contradictions;
mod described;
mod federation;
mod find;
mod heads;
mod ledger;
mod lookups;
mod part;
mod patients;
mod question;
mod router;
mod shared;
mod streams;

pub use federation::Federation;
pub use part::{DescribedPatient, FederatedPart};
pub(in crate::db) use router::MAIN_FILE;
pub use router::{RoutedFile, Router, RouterThread};
