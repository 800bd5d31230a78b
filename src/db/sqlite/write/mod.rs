//! Writing: records become rows in one transaction, and counters stay exact.
//!
//! `batch` runs a transaction. `tables` has one field for each group of tables: `parents` (with
//! `patients`), `groups`, `instances`, `lookups`, `files`, `copies` and `origins`. Each has its own
//! statements and caches. `changes` holds what is yet to be written, and `commit` writes it.
//! `corrections` has the rules of an operator that patients follow, and `correcting` changes them.
//! `event_rows` writes what programs that follow the index are told.
//! `scans` and `arrivals` say what comes in, and `locations` what that means for the files of an
//! instance.

mod arrivals;
mod asserted_values;
mod batch;
mod caches;
mod changes;
mod commit;
mod copies;
mod correcting;
mod corrections;
mod entities;
mod event_rows;
mod files;
mod groups;
mod instances;
mod journaled;
mod locations;
mod lookups;
mod losses;
mod migration;
mod origins;
mod parents;
mod patients;
mod pieces;
mod removals;
mod removing;
mod rows;
mod run;
mod scans;
mod tables;
mod taking;

pub(super) use asserted_values::record_of_text;
pub(super) use batch::Batch;
pub(super) use correcting::{plan as plan_correction, values_of_group};
pub(super) use corrections::load as corrections_of;
pub(super) use event_rows::insert_events;
pub(super) use journaled::JournalMark;
pub(super) use migration::from_version_1;
pub(super) use origins::last_change;
pub(super) use pieces::each_piece;
pub(super) use taking::has_removed_of;
