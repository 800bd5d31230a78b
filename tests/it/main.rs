//! One binary with all behaviour tests.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the helpers of tests may do what tests may do"
)]

mod architecture;
mod cli;
mod db;
mod documents;
mod examples;
mod fixtures;
mod fuzzed;
mod ingest;
mod opening;
mod peers_compare;
mod peers_find;
mod peers_retrieve;
mod peers_web;
mod qr;
mod same_road;
mod scanner;
mod scp;
mod sent_as_stored;
mod util;
mod web;
