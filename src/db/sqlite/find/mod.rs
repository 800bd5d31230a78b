//! From a [`FindRequest`](crate::model::find::FindRequest) to SQL, and from rows to answers.

mod answers;
mod arrival_keys;
mod availability;
mod compile;
mod fragments;
mod functions;
mod located;
mod lookup;
mod parameters;
mod records;
mod run;

pub(super) use functions::{Matchers, register_functions};
pub(super) use lookup::instance_key;
pub(super) use run::{explain, run};
