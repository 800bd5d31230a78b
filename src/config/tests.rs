//! Tests of settings that come from several sources.

use std::path::Path;

use toml::Value;

use super::*;

/// Loads a settings file with this text.
pub(super) fn load_text(text: &str) -> Result<Config, Vec<SettingProblem>> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join(DEFAULT_FILE);
    std::fs::write(&file, text).unwrap();
    Config::load(&Sources { file: Some(file), ..Sources::default() }, Path::new("/nowhere")).map_err(|error| {
        let Error::Invalid(problems) = error else { panic!("{error}") };
        problems
    })
}

fn with_flags(flags: &[(&str, Value)]) -> Result<Config, Error> {
    let flags = flags
        .iter()
        .map(|(path, value)| Flag { path: (*path).to_owned(), value: value.clone(), flag: "--flag" })
        .collect();
    Config::load(&Sources { flags, ..Sources::default() }, Path::new("/nowhere"))
}

fn problems(flags: &[(&str, Value)]) -> Vec<String> {
    match with_flags(flags) {
        Err(Error::Invalid(problems)) => problems.iter().map(ToString::to_string).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_defaults_work_with_no_file() {
    let config = with_flags(&[]).unwrap();
    assert_eq!(config.index, Path::new("/nowhere/dcmdex-data/index.db"));
    assert_eq!(config.storage, Path::new("/nowhere/dcmdex-data/objects"));
    assert_eq!(config.node.ae_title.as_str(), "DCMDEX");
    assert_eq!(config.node.bind.to_string(), "127.0.0.1:11112");
    assert!(!config.is_reachable_from_outside());
    assert!(config.scan.jobs.first >= 16);
    assert!(config.settings().all(|(_, setting)| setting.origin == Origin::Default));
}

#[test]
fn all_problems_are_told_at_once() {
    let told = problems(&[
        ("port", Value::Integer(70_000)),
        ("bind", "everywhere".into()),
        ("ae_title", "MUCH_TOO_LONG_A_TITLE".into()),
        ("store.durability", "some".into()),
        ("log.filter", "dcmdex=loud".into()),
        ("peers.ARCHIVE", "pacs".into()),
        ("find.assumed_character_set", "latin".into()),
        ("find.names", "fuzzy".into()),
    ]);
    assert_eq!(told.len(), 8, "{told:#?}");
    assert!(told.iter().all(|line| line.starts_with("option --flag: ")), "{told:#?}");
    assert!(told.iter().any(|line| line.contains("`some` is not one of `full`, `os`")), "{told:#?}");
}

#[test]
fn an_index_inside_the_storage_directory_is_refused() {
    let told = problems(&[("storage", "data".into()), ("index", "data/index.db".into())]);
    assert_eq!(told, ["option --flag: `index`: the index must not be inside the storage directory"]);
}

#[test]
fn an_index_inside_the_storage_directory_is_found_by_any_name() {
    let directory = tempfile::tempdir().unwrap();
    let inside = |path: &str| directory.path().join(path).to_str().unwrap().to_owned();
    std::fs::create_dir_all(inside("storage/below")).unwrap();
    std::os::unix::fs::symlink("storage/below", inside("link")).unwrap();
    for (index, storage, refused) in [
        ("storage/index.db", "storage", true),
        ("other/../storage/index.db", "storage", true),
        ("storage/not/yet/../index.db", "./storage/", true),
        ("link/index.db", "storage", true),
        ("link/../index.db", "storage", true),
        ("storage/below/index.db", "link", true),
        ("not/yet/index.db", "other/../not", true),
        ("link/../../index.db", "storage", false),
        ("storage/../index.db", "storage", false),
        ("storage/index.db", "link", false),
        ("storage-of-index/index.db", "storage", false),
    ] {
        let config = with_flags(&[("storage", inside(storage).into()), ("index", inside(index).into())]);
        assert_eq!(config.is_err(), refused, "{index} {storage}: {config:?}");
    }
}

#[test]
fn one_port_cannot_be_with_and_without_tls() {
    let files = [("tls.certificate", "c".into()), ("tls.key", "k".into()), ("tls.authorities", "a".into())];
    let with = |more: &[(&str, Value)]| with_flags(&[&files[..], more].concat());
    let both = [("port", Value::Integer(104)), ("tls.port", Value::Integer(104))];
    let Err(Error::Invalid(told)) = with(&both) else { panic!("not refused") };
    let told: Vec<_> = told.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        ["option --flag: `tls.port`: 104 is already the port without TLS (`port`); only `tls.only` allows this"]
    );
    // The node listens on one of them only.
    with(&[&both[..], &[("tls.only", true.into())]].concat()).unwrap();
    with_flags(&both).unwrap();
    // Each takes a free port.
    with(&[("port", Value::Integer(0)), ("tls.port", Value::Integer(0))]).unwrap();
}

#[test]
fn one_peer_may_not_have_more_associations_than_there_are() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("dcmdex.toml");
    let told = |text: &str| {
        std::fs::write(&file, text).unwrap();
        let told = Config::load(&Sources { file: Some(file.clone()), ..Sources::default() }, Path::new("/nowhere"));
        told.err().map(|error| error.to_string().replace(directory.path().to_str().unwrap(), "")).unwrap_or_default()
    };
    assert_eq!(
        told("[network]\nmax_associations = 10\nmax_associations_per_peer = 11\n"),
        "/dcmdex.toml:3: `network.max_associations_per_peer`: it is more than `network.max_associations` (10)"
    );
    assert_eq!(
        told("[[peer]]\nae_title = \"A\"\nmax_associations = 11\n[network]\nmax_associations = 10\n"),
        "/dcmdex.toml:3: `max_associations` of a peer is more than `network.max_associations` (10)"
    );
    // An equal limit is allowed, and so is an unchanged default.
    assert_eq!(told("[network]\nmax_associations = 10\nmax_associations_per_peer = 10\n"), "");
    assert_eq!(told("[network]\nmax_associations = 10\n"), "");
}

#[test]
fn paths_in_a_file_are_relative_to_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("dcmdex.toml");
    std::fs::write(&file, "index = \"x.db\"\n").unwrap();
    let sources = Sources { file: Some(file), ..Sources::default() };
    let config = Config::load(&sources, Path::new("/nowhere")).unwrap();
    assert_eq!(config.index, directory.path().join("x.db"));
    assert_eq!(config.storage, Path::new("/nowhere/dcmdex-data/objects"));
}

#[test]
fn a_named_file_that_is_not_there_is_an_error() {
    let sources = Sources { file: Some("/nowhere/dcmdex.toml".into()), ..Sources::default() };
    assert!(matches!(Config::load(&sources, Path::new("/nowhere")), Err(Error::Read { .. })));
}
