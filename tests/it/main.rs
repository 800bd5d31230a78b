//! One binary with all behaviour tests.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the helpers of tests may do what tests may do"
)]

mod archive;
mod cli;
mod db;
mod deliver;
mod ingest;
mod interop;
mod qr;
mod repository;
mod scanner;
mod scp;
mod util;
mod web;
mod worklist;
