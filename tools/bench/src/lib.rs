//! Code that the load generators and benchmarks of dcmdex share.
//!
//! - [`header`] makes the headers of CT and MR objects, the same bytes for the same seed.
//! - [`client`] is a DIMSE client that costs little beside the node that it measures.
//!
//! Each program in `src/bin` says in its first lines what it measures. The Python scripts beside
//! `Cargo.toml` build what they need, run whole comparisons and check the results before they
//! compare times. `docs/benchmarks.md` has the figures.

pub mod client;
pub mod header;
