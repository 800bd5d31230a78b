//! The sources of settings, and the messages about wrong ones.

use std::fs;

use super::*;

/// Returns the line of `dcmdex config show` for a setting.
#[track_caller]
fn shown(run: &Run, setting: &str) -> String {
    let line = run.stdout.lines().find(|line| line.starts_with(&format!("{setting} = ")));
    line.unwrap_or_else(|| panic!("{run:#?}")).to_owned()
}

#[test]
fn a_variable_goes_before_the_file_and_the_file_before_the_default() {
    let place = Place::new();
    let show = || run(place.command().args(["config", "show"])).expect(0);
    assert_eq!(shown(&show(), "port"), "port = 11112  # default");
    fs::write(place.path("dcmdex.toml"), "# ours\nport = 104\n[peers]\nPACS = \"pacs.example:104\"\n").unwrap();
    assert_eq!(shown(&show(), "port"), "port = 104  # dcmdex.toml:2");
    assert!(show().stdout.contains("[peers]\n\"PACS\" = \"pacs.example:104\"  # dcmdex.toml:4"));
    let run = run(place.command().args(["config", "show"]).env("DCMDEX_PORT", "4242"));
    assert_eq!(shown(&run, "port"), "port = 4242  # environment variable DCMDEX_PORT");
}

#[test]
fn an_option_goes_before_everything() {
    let place = Place::new();
    fs::write(place.path("dcmdex.toml"), "index = \"from-file.db\"\n").unwrap();
    let archive = fixtures("archive");
    run(place.command().args(["scan", "--index", "from-option.db", &archive]).env("DCMDEX_INDEX", "from-variable.db"))
        .expect(1);
    run(place.command().args(["scan", &archive]).env("DCMDEX_INDEX", "from-variable.db")).expect(1);
    assert!(place.path("from-option.db").exists() && place.path("from-variable.db").exists());
    assert!(!place.path("from-file.db").exists());
    place.run(["scan", &archive]).expect(1);
    assert!(place.path("from-file.db").exists());
}

#[test]
fn what_is_shown_can_be_used_as_a_file() {
    let place = Place::new();
    let table =
        "[[peer]]\nae_title = \"CT1\"\naddresses = [\"10.0.0.0/8\"]\n\n[[peer]]\nservices = []\nae_title = \"X\"\n";
    fs::write(place.path("dcmdex.toml"), table).unwrap();
    let first = run(place.command().args(["config", "show"]).env("DCMDEX_PEERS__A.B", "h:1")).expect(0);
    assert!(first.stdout.contains("ae_title = \"CT1\"  # dcmdex.toml:2\naddresses = [\"10.0.0.0/8\"]"), "{first:?}");
    assert!(!first.stdout.contains("# end"));
    fs::write(place.path("shown.toml"), &first.stdout).unwrap();
    let second = place.run(["--config", "shown.toml", "config", "show"]).expect(0);
    let values =
        |run: &Run| run.stdout.lines().map(|line| line.split("  # ").next().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(values(&first), values(&second));
}

#[test]
fn all_that_is_wrong_is_told_with_its_place_and_what_was_probably_meant() {
    let place = Place::new();
    fs::write(place.path("dcmdex.toml"), "ae_titel = \"X\"\nport = 70000\n").unwrap();
    let run = place.run(["config", "check"]).expect(2);
    assert!(run.stdout.is_empty());
    assert!(run.stderr.contains("dcmdex.toml:1: unknown setting `ae_titel`; did you mean `ae_title`?"), "{run:?}");
    assert!(run.stderr.contains("dcmdex.toml:2: `port`: 70000 is not from 0 to 65535"), "{run:?}");
}

#[test]
fn the_check_finds_what_keeps_a_node_from_starting() {
    let place = Place::new();
    fs::write(place.path("a-file"), "x").unwrap();
    for (settings, problem) in [
        ("[audit]\ndirectory = \"a-file\"\n", "a-file is a file, not a directory"),
        (
            "[audit]\ndirectory = \"aud\"\ncollector = \"tls://x:6514\"\nauthorities = \"nofile\"\n",
            "nofile has no readable certificate",
        ),
        ("[http]\nenabled = true\nport = 0\nohif = \"a-file\"\n", "OHIF cannot be served"),
        ("[[events]]\nname = \"r\"\npost = \"https://x\"\nsecret = \"nofile\"\n", "receiver `r` has no key"),
    ] {
        fs::write(place.path("dcmdex.toml"), settings).unwrap();
        let check = place.run(["config", "check"]).expect(2);
        assert!(check.stdout.contains(problem), "{check:?}");
        let serve = place.run(["serve", "--port", "0"]).expect(2);
        assert!(serve.stderr.contains(problem), "{serve:?}");
    }
}

#[test]
fn the_check_warns_of_a_program_and_a_folder_that_are_not_there() {
    let place = Place::new();
    let settings =
        "[worklist]\nenabled = true\nfolder = \"nofolder\"\n[[events]]\nname = \"r\"\nrun = [\"/nonexist\"]\n";
    fs::write(place.path("dcmdex.toml"), settings).unwrap();
    let check = place.run(["config", "check"]).expect(0).stdout;
    assert!(check.contains("warning: the program /nonexist of the receiver `r` of events cannot be run"), "{check}");
    assert!(check.contains("warning: the folder of the worklist, ") && check.contains("nofolder, cannot"), "{check}");
}

#[test]
fn every_command_refuses_a_wrong_file() {
    let place = Place::new();
    fs::write(place.path("dcmdex.toml"), "colour = 1\n").unwrap();
    for arguments in [&["serve"][..], &["scan", "."], &["status"], &["config", "show"]] {
        let run = run(place.command().args(arguments)).expect(2);
        assert!(run.stderr.contains("unknown setting `colour`"), "{arguments:?}: {run:?}");
    }
    assert!(!place.path("dcmdex-data").exists());
}

#[test]
fn a_variable_that_is_no_setting_is_a_warning_and_almost_a_setting_an_error() {
    let place = Place::new();
    let almost = run(place.command().args(["config", "check"]).env("DCMDEX_AETITLE", "X")).expect(2);
    assert!(almost.stderr.contains("did you mean `ae_title`?"), "{almost:?}");
    // As Kubernetes does for a service of this name.
    let strange = run(place.command().args(["config", "check"]).env("DCMDEX_SERVICE_HOST", "10.0.0.1")).expect(0);
    assert!(strange.stdout.contains("DCMDEX_SERVICE_HOST is no setting"), "{strange:?}");
}

#[test]
fn the_example_is_sound_and_never_written_over_a_file() {
    let place = Place::new();
    place.run(["config", "init"]).expect(0);
    let check = place.run(["config", "check"]).expect(0);
    assert!(check.stdout.contains("who may associate: anyone on this machine"), "{check:?}");
    assert!(check.stdout.contains("index.db (there is none; a node makes a new one)\n"), "{check:?}");
    let shown = place.run(["config", "show"]).expect(0).stdout;
    fs::write(place.path("shown.toml"), shown).unwrap();
    place.run(["--config", "shown.toml", "config", "check"]).expect(0);
    let before = fs::read(place.path("dcmdex.toml")).unwrap();
    let again = place.run(["config", "init"]).expect(2);
    assert!(again.stderr.contains("dcmdex.toml exists") && again.stderr.contains("config init -"), "{again:?}");
    assert_eq!(fs::read(place.path("dcmdex.toml")).unwrap(), before);
    let printed = place.run(["config", "init", "-"]).expect(0);
    assert_eq!(printed.stdout.as_bytes(), before);
}
