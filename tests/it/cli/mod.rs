//! The program as users see it: arguments in; standard output, standard error and exit code out.

mod access;
mod audit;
mod backup;
mod check;
mod compare;
mod configuration;
mod cookbook;
mod copy;
mod correct;
mod corrected;
mod database;
mod declared;
mod echo;
mod events;
mod export;
mod faults;
mod find;
mod folder;
mod hostile;
mod http;
mod index_files;
mod interrupted;
mod journal;
mod killed;
mod lists;
mod lost_index;
mod media;
mod messages;
mod metadata;
mod monitoring;
mod peer;
mod permissions;
mod privacy;
mod refusals;
mod relocate;
mod remove;
mod replaced_index;
mod report;
mod scan;
pub(crate) mod serve;
mod shared_scan;
mod split_and_merge;
mod watching;
pub(crate) mod worklist;

use std::path::{Path, PathBuf};
use std::process::Command;

/// Result of a run of the program.
#[derive(Debug)]
pub(crate) struct Run {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Run {
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:#?}");
        self
    }

    /// Parses standard output as JSON, one object per line.
    pub(crate) fn json(&self) -> Vec<serde_json::Value> {
        self.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// An empty directory in which the program runs, without our environment variables.
pub(crate) struct Place {
    directory: tempfile::TempDir,
    /// The address of the index. `None`: a file in the directory.
    database: Option<String>,
}

/// Makes two tests of a function: one with an index in a file, and one with an index in a database
/// of PostgreSQL.
macro_rules! on_each_engine {
    ($($test:ident),* $(,)?) => {
        mod in_a_file {
            $(
                #[test]
                fn $test() {
                    super::$test(super::Place::new());
                }
            )*
        }

        mod in_a_database {
            $(
                #[test]
                fn $test() {
                    super::$test(super::Place::with_database());
                }
            )*
        }
    };
}
use on_each_engine;

impl Place {
    pub(crate) fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), database: None }
    }

    /// The index of each command without an index of its own, or with `index.db`, is a database.
    fn with_database() -> Self {
        let address = crate::util::postgres::server().database();
        Self { database: Some(address.to_str().unwrap().to_owned()), ..Self::new() }
    }

    pub(crate) fn path(&self, inside: impl AsRef<Path>) -> PathBuf {
        self.directory.path().canonicalize().unwrap().join(inside)
    }

    pub(crate) fn command(&self) -> Command {
        self.command_of(env!("CARGO_BIN_EXE_dcmdex"))
    }

    /// Another program in this directory.
    fn command_of(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.directory.path()).env_remove("NO_COLOR");
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("DCMDEX_") {
                command.env_remove(name);
            }
        }
        match &self.database {
            Some(database) => drop(command.env("DCMDEX_INDEX", database)),
            // Each start in a new directory would write all of a journal of the usual size.
            None if !self.says("journal_mib") => drop(command.env("DCMDEX_STORE__JOURNAL_MIB", "2")),
            None => {}
        }
        command
    }

    /// Whether the configuration file here has this text.
    fn says(&self, text: &str) -> bool {
        std::fs::read_to_string(self.path("dcmdex.toml")).is_ok_and(|settings| settings.contains(text))
    }

    pub(crate) fn run<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Run {
        let of_database = |argument: &'a str| match argument {
            "index.db" => self.database.clone().unwrap_or_else(|| argument.to_owned()),
            argument => argument.to_owned(),
        };
        run(self.command().args(arguments.into_iter().map(of_database)))
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
    let find = std::fs::read_to_string(place.path("dcmdex-find.1")).unwrap();
    assert!(find.contains("today\\-7d") && find.contains("Examples:"), "{find}");
    for (page, parts) in [
        ("dcmdex.1", &["dcmdex.toml", "NO_COLOR"][..]),
        ("dcmdex-serve.1", &["DCMDEX_BIND", "DCMDEX_HTTP__PORT", "Examples:"]),
        ("dcmdex-scan.1", &["index.db\\-wal", "DCMDEX_SCAN__JOBS", "Examples:"]),
        ("dcmdex-config-check.1", &["dcmdex.toml"]),
    ] {
        let text = std::fs::read_to_string(place.path(page)).unwrap();
        let sections = [".SH \"FILES\"", ".SH \"ENVIRONMENT\"", ".SH \"EXIT STATUS\""];
        for part in sections.iter().chain(parts) {
            assert!(text.contains(part), "{page} has no {part}: {text}");
        }
    }
    for shell in ["bash", "zsh", "fish"] {
        assert!(place.run(["completions", shell]).expect(0).stdout.contains("metadata-only"));
    }
}

/// Removes what colours a text.
fn plain(text: &str) -> String {
    let mut parts = text.split("\x1b[");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |plain, part| plain + part.split_once('m').map_or("", |(_, rest)| rest))
}

#[test]
fn help_wraps_at_words_and_has_the_general_options_at_its_end() {
    let place = Place::new();
    for command in ["serve", "scan", "find", "check"] {
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let whole = place.run([command, "--help"]).expect(0).stdout;
        assert!(!whole.contains('\x1b'), "{whole}");
        let general = whole.find("General options:").unwrap();
        let own = whole.find("--index").unwrap();
        assert!(own < general && whole[general..].contains("--verbose") && whole[general..].contains("--config"));
        for columns in [60, 100] {
            let (code, shown) = crate::util::terminal::run(place.command().args([command, "--help"]), columns);
            assert!(code == 0 && shown.contains('\x1b'), "{shown}");
            let shown = plain(&shown);
            assert_eq!(words(&shown), words(&whole), "{command} at {columns}");
            // The examples of `find` are written as they stand.
            let wrapped = shown.split("Keys:").next().unwrap().lines();
            assert!(wrapped.clone().all(|line| line.trim_end().len() <= usize::from(columns)), "{shown}");
            let (_, colourless) =
                crate::util::terminal::run(place.command().args([command, "--help"]).env("NO_COLOR", "1"), columns);
            assert!(!colourless.contains("\x1b[32m") && !colourless.contains("\x1b[36m"), "{colourless}");
        }
    }
}

#[test]
fn an_error_is_red_on_a_terminal_only() {
    let place = Place::new();
    let (code, shown) = crate::util::terminal::run(place.command().args(["status", "--index", "none.db"]), 80);
    assert!(code == 2 && shown.starts_with("\x1b[1;31merror:\x1b[0m there is no index"), "{shown}");
    let arguments = ["status", "--index", "none.db"];
    let (_, plain) = crate::util::terminal::run(place.command().args(arguments).env("NO_COLOR", "1"), 80);
    assert!(plain.starts_with("error: there is no index"), "{plain}");
    assert!(place.run(arguments).expect(2).stderr.starts_with("error: there is no index"));
}

#[test]
fn completions_know_levels_formats_keys_and_peers() {
    let place = Place::new();
    std::fs::write(place.path("dcmdex.toml"), "[peers]\nARCHIVE7 = \"pacs.example.org:104\"\n").unwrap();
    for shell in ["bash", "zsh"] {
        let script = place.run(["completions", shell]).expect(0).stdout;
        for word in ["SERIES", "dicom-json", "ModalitiesInStudy", "ARCHIVE7"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
    assert!(place.run(["completions", "fish"]).expect(0).stdout.contains("dicom-json"));
    // Settings that cannot be read are no reason to have no completions.
    std::fs::write(place.path("dcmdex.toml"), "colour = 1\n").unwrap();
    assert!(place.run(["completions", "bash"]).expect(0).stdout.contains("ModalitiesInStudy"));
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
