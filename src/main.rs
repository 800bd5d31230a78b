//! The `dcmdex` binary: the command line in, the exit code out.

use std::process::ExitCode;

fn main() -> ExitCode {
    dcmdex::cli::run(std::env::args_os()).into()
}
