//! From a [`FindRequest`](crate::model::find::FindRequest) to SQL, and from rows to answers.

mod answers;
mod arrival_keys;
mod availability;
mod compile;

pub(super) use compile::{Matchers, explain, instance_key, register_functions, run};
