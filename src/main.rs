//! The `dcmdex` binary: parse arguments, call the command, turn the result into an exit code.
fn main() {}
