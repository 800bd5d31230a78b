//! Writing: records become rows in one transaction, and counters stay exact.
//!
//! `batch` runs a transaction and holds what it remembers. `rows`, `caches`, `changes`, `origins` and `run` are the parts of
//! that. The other files are what is done in a transaction, by subject.

mod arrivals;
mod asserted_values;
mod batch;
mod caches;
mod changes;
mod commit;
mod files;
mod groups;
mod instances;
mod migration;
mod origin;
mod origins;
mod parents;
mod patients;
mod rows;
mod run;
mod scans;

pub(super) use batch::Batch;
pub(super) use migration::from_version_1;
pub(super) use origins::last_change;
