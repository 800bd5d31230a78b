//! The program as users see it: arguments in; standard output, standard error and exit code out.

mod access;
mod check;
mod configuration;
mod declared;
mod echo;
mod faults;
mod find;
mod hostile;
mod index_files;
mod killed;
mod permissions;
mod privacy;
mod scan;
mod serve;
mod stopped;

use std::path::{Path, PathBuf};
use std::process::Command;

/// Result of a run of the program.
#[derive(Debug)]
struct Run {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Run {
    #[track_caller]
    fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:#?}");
        self
    }

    /// Parses standard output as JSON, one object per line.
    fn json(&self) -> Vec<serde_json::Value> {
        self.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// An empty directory in which the program runs, without our environment variables.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, inside: impl AsRef<Path>) -> PathBuf {
        self.0.path().canonicalize().unwrap().join(inside)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dcmdex"));
        command.current_dir(self.0.path()).env_remove("NO_COLOR");
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("DCMDEX_") {
                command.env_remove(name);
            }
        }
        command
    }

    fn run<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Run {
        run(self.command().args(arguments))
    }
}

fn run(command: &mut Command) -> Run {
    let output = command.output().unwrap();
    Run {
        code: output.status.code().expect("not killed"),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

fn fixtures(inside: &str) -> String {
    format!("{}/fixtures/{inside}", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn help_and_version_are_results_and_a_wrong_option_is_a_usage_error() {
    let place = Place::new();
    assert!(place.run(["--help"]).expect(0).stdout.contains("Usage: dcmdex"));
    let version = place.run(["--version"]).expect(0).stdout;
    assert_eq!(version, format!("dcmdex {}\n", env!("CARGO_PKG_VERSION")));
    let wrong = place.run(["scan", "--indx", "x", "."]).expect(2);
    assert!(wrong.stdout.is_empty() && wrong.stderr.contains("'--index'"), "{wrong:?}");
    let nothing = place.run([]).expect(2);
    assert!(nothing.stdout.is_empty() && nothing.stderr.contains("Usage: dcmdex"));
}

#[test]
fn every_command_and_option_is_in_the_manual_pages_and_completions() {
    let place = Place::new();
    place.run(["man", "--directory", "."]).expect(0);
    let scan = std::fs::read_to_string(place.path("dcmdex-scan.1")).unwrap();
    assert!(scan.contains("dry\\-run") && scan.contains("prune"), "{scan}");
    assert!(place.run(["man"]).expect(0).stdout.contains("dcmdex\\-serve(1)"));
    for shell in ["bash", "zsh", "fish"] {
        assert!(place.run(["completions", shell]).expect(0).stdout.contains("metadata-only"));
    }
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    use std::process::Stdio;
    let place = Place::new();
    let mut child =
        place.command().args(["config", "init", "-"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}
