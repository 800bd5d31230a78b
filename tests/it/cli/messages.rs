//! What the program says when it is used in a way that cannot work: what is wrong, and what to do.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use super::*;

/// Runs a command that has to fail, and asserts what it says.
#[track_caller]
fn says(place: &Place, arguments: &[&str], parts: &[&str]) {
    let run = run(place.command().args(arguments)).expect(2);
    for part in parts {
        assert!(run.stderr.contains(part), "{arguments:?} has to say `{part}`: {run:?}");
    }
    assert_eq!(run.stderr.lines().count(), 1, "{run:?}");
}

fn archive() -> Place {
    let place = Place::new();
    place.run(["scan", "--index", "x.db", &fixtures("archive")]).expect(1);
    place
}

#[test]
fn a_scan_says_what_is_wrong_with_its_path() {
    let place = archive();
    says(&place, &["scan", "--index", "x.db", "x.db"], &["x.db: it is the index itself"]);
    let run = run(place.command().args(["scan", "--index", "x.db", "/typo"])).expect(2);
    assert!(run.stderr.ends_with("cannot scan /typo: it does not exist\n"), "{run:?}");
    // The index knows files below it, so its disk may be missing.
    fs::create_dir(place.path("disk")).unwrap();
    fs::copy(fixtures("archive/DICOMDIR"), place.path("disk/a")).ok();
    fs::write(place.path("disk/b"), "no DICOM").unwrap();
    place.run(["scan", "--index", "x.db", "disk"]);
    fs::remove_dir_all(place.path("disk")).unwrap();
    says(&place, &["scan", "--index", "x.db", "disk"], &["does not exist", "mounted", "--prune-emptied"]);
}

#[test]
fn a_new_directory_for_the_index_is_told() {
    let place = Place::new();
    fs::create_dir(place.path("empty")).unwrap();
    let scan = |index: &str| place.run(["scan", "--index", index, "empty"]).expect(0).stderr;
    assert!(scan("no/dir/x.db").contains("made the directory") && place.path("no/dir").is_dir());
    assert_eq!(scan("no/dir/x.db"), "");
    assert_eq!(scan("dcmdex-data/index.db"), "");
}

#[test]
fn an_index_that_is_none_is_told_in_words() {
    let place = archive();
    fs::create_dir(place.path("directory")).unwrap();
    for command in [&["find"][..], &["status"], &["scan", "."]] {
        says(&place, &[command, &["--index", "directory"]].concat(), &["is a directory", "index.db"]);
    }
    fs::write(place.path("y.db"), fs::read(place.path("x.db")).unwrap().get(..200_000).unwrap()).unwrap();
    says(&place, &["check", "--index", "y.db"], &["is damaged", "restore a backup", "dcmdex scan"]);
}

/// The program as a user who may not do everything, as root may.
pub(super) fn unprivileged(place: &Place) -> Command {
    if !rustix::process::geteuid().is_root() {
        return place.command();
    }
    let program = place.path("dcmdex");
    if !program.exists() {
        fs::hard_link(env!("CARGO_BIN_EXE_dcmdex"), &program)
            .or_else(|_| fs::copy(env!("CARGO_BIN_EXE_dcmdex"), &program).map(drop))
            .unwrap();
    }
    fs::set_permissions(place.path(""), fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = place.command_of("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(program);
    command
}

pub(super) fn permit(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn an_index_that_may_not_be_read_or_written_is_told_with_the_user() {
    let place = archive();
    fs::create_dir(place.path("empty")).unwrap();
    permit(&place.path("x.db"), 0o000);
    let run = run(unprivileged(&place).args(["status", "--index", "x.db"])).expect(2);
    assert!(run.stderr.contains("is not readable for this user (uid "), "{run:?}");
    permit(&place.path("x.db"), 0o444);
    let run = super::run(unprivileged(&place).args(["scan", "--index", "x.db", "empty"])).expect(2);
    assert!(run.stderr.contains("is not writable for this user (uid "), "{run:?}");
}

#[test]
fn an_index_in_a_directory_that_may_only_be_read_can_be_asked() {
    let place = archive();
    let directory = place.path("read #1%?only");
    fs::create_dir(&directory).unwrap();
    let index = directory.join("x.db");
    fs::copy(place.path("x.db"), &index).unwrap();
    permit(&index, 0o444);
    permit(&directory, 0o555);
    let index = index.to_str().unwrap();
    for command in [&["find"][..], &["status"], &["check"]] {
        let run = run(unprivileged(&place).args(command).args(["--index", index])).expect(0);
        assert!(!run.stdout.is_empty() && run.stderr.is_empty(), "{run:?}");
    }
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 1, "no file beside the index");
    permit(&directory, 0o755);
}

#[test]
fn a_port_or_address_that_cannot_be_had_is_told_with_what_to_do() {
    let place = Place::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let run = run(place.command().args(["serve", "--port", &port])).expect(2);
    assert!(run.stderr.contains("another process has the port") && run.stderr.contains("ss -ltnp"), "{run:?}");
    says(&place, &["serve", "--bind", "eth0"], &["`eth0` is no IP address", "interface"]);
    fs::write(place.path("FILE"), "").unwrap();
    let run = super::run(place.command().args(["serve", "--port", "0", "--storage", "FILE"])).expect(2);
    assert!(run.stderr.contains("FILE is a file, not a directory"), "{run:?}");
}

#[test]
fn an_address_without_an_ae_title_is_no_peer() {
    let place = Place::new();
    says(&place, &["echo", "127.0.0.1:23701"], &["AET=127.0.0.1:23701"]);
    says(&place, &["serve", "--peer", "A=a:1", "--peer", "A=b:2"], &["--peer: A is named twice"]);
}

#[test]
fn settings_that_mean_nothing_are_refused() {
    let place = Place::new();
    for (text, parts) in [
        ("[[peers]]\nae_title = \"A\"\n", &["write [[peer]]"][..]),
        ("port = 1\nport = 2\n", &["`port` is set twice, first in line 1"]),
        ("[find]\nassumed_character_set = \"latin\"\n", &["latin", "character set"]),
        ("[log]\nfilter = \"infos\"\n", &["`infos`", "no level"]),
    ] {
        fs::write(place.path("dcmdex.toml"), text).unwrap();
        says(&place, &["config", "check"], parts);
    }
}

#[test]
fn an_option_with_one_hyphen_is_recognised() {
    let place = Place::new();
    says(&place, &["scan", "-index", "a.db", "."], &["did you mean `--index`"]);
    says(&place, &["find", "-level=STUDY"], &["did you mean `--level`"]);
    says(&place, &["status", "-config", "x"], &["did you mean `--config`"]);
}

#[test]
fn help_on_help_is_that_of_the_command() {
    let place = Place::new();
    for command in [&["index"][..], &["worklist"], &[]] {
        let help = |more: &[&'static str]| place.run(command.iter().chain(more).copied()).expect(0).stdout;
        assert_eq!(help(&["help", "--help"]), help(&["help"]), "{command:?}");
    }
}

#[test]
fn an_index_that_cannot_be_made_is_told_with_its_directory() {
    says(&Place::new(), &["scan", ".", "--index", "/proc/x.db"], &["/proc/x.db", "hint: no file can be made in /proc"]);
}

#[test]
fn an_index_that_is_not_there_yet_is_told_with_the_way_to_one() {
    let place = Place::new();
    for command in ["find", "status", "check"] {
        says(&place, &[command], &["there is no index at ", "hint: `dcmdex scan PATH`", "--index FILE"]);
    }
}

#[test]
fn only_what_has_a_range_is_told_to_use_one() {
    let place = Place::new();
    says(&place, &["find", "StudyDate>2004"], &["StudyDate=2004-2005"]);
    let of_a_number = place.run(["find", "NumberOfStudyRelatedInstances>5"]).expect(2).stderr;
    assert!(of_a_number.contains("--sort NumberOfStudyRelatedInstances:desc"), "{of_a_number}");
    assert!(!of_a_number.contains("2004"), "{of_a_number}");
    says(
        &place,
        &["find", "--level", "IMAGE", "TransferSyntaxUID"],
        &["hint: --level IMAGE AvailableTransferSyntaxUID"],
    );
}
