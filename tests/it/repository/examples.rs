//! The examples print what their documentation says.

use std::path::Path;
use std::process::Command;

use dcmdex::config::{Config, Sources};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

#[path = "../../../examples/index_a_folder.rs"]
#[allow(dead_code, reason = "a test calls what `main` calls")]
mod index_a_folder;
#[path = "../../../examples/query_an_index.rs"]
#[allow(dead_code, reason = "a test calls what `main` calls")]
mod query_an_index;
#[path = "../../../examples/run_a_node.rs"]
#[allow(dead_code, reason = "a test calls what `main` calls")]
mod run_a_node;

#[path = "../../../examples/write_a_table.rs"]
#[allow(dead_code, reason = "a test calls what `main` calls")]
mod write_a_table;

use index_a_folder::index_a_folder;
use query_an_index::query_an_index;
use run_a_node::run_a_node;
use write_a_table::write_a_table;

/// Indexes the bundled archive.
fn indexed(directory: &TempDir) -> std::path::PathBuf {
    let index = directory.path().join("index.db");
    let archive = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/archive");
    let first = index_a_folder(&index, &archive).unwrap();
    assert!(first.indexed > 0 && first.failed > 0, "{first:?}");
    let second = index_a_folder(&index, &archive).unwrap();
    assert_eq!((second.indexed, second.unchanged), (0, first.indexed), "{second:?}");
    index
}

#[test]
fn a_folder_is_indexed_and_the_index_answers() {
    let directory = TempDir::new().unwrap();
    let index = indexed(&directory);
    let studies = query_an_index(&index, ["PatientName=M*", "StudyInstanceUID"]).unwrap();
    assert!(!studies.is_empty());
    let names_begin = |study: &Vec<String>| study.iter().any(|value| value.starts_with('M'));
    assert!(studies.iter().all(names_begin), "{studies:?}");
    assert!(query_an_index(&index, ["PatientName=NOBODY"]).unwrap().is_empty());
}

#[test]
fn instances_become_a_table_with_their_files() {
    let directory = TempDir::new().unwrap();
    let index = indexed(&directory);
    let file = directory.path().join("instances.csv");
    let rows = write_a_table(&index, &file, ["Modality=CT", "StudyDate", "Rows"]).unwrap();
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(rows > 0 && text.lines().count() as u64 == rows + 1, "{text}");
    assert!(text.starts_with("study_date,modality,study_instance_uid,series_instance_uid,rows,path\r\n"), "{text}");
    let paths: Vec<&str> = text.lines().skip(1).filter_map(|line| line.rsplit(',').next()).collect();
    assert!(paths.iter().any(|path| Path::new(path).is_file()), "{paths:?}");
}

#[test]
fn a_node_runs_until_it_is_told_to_stop() {
    let directory = TempDir::new().unwrap();
    let index = indexed(&directory);
    let environment = vec![
        ("DCMDEX_INDEX".into(), index.into_os_string()),
        ("DCMDEX_STORAGE".into(), directory.path().join("objects").into_os_string()),
        ("DCMDEX_PORT".into(), "0".into()),
    ];
    let config = Config::load(&Sources { environment, ..Sources::default() }, directory.path()).unwrap();
    let shutdown = CancellationToken::new();
    let (listening, address) = oneshot::channel();
    let runtime = Runtime::new().unwrap();
    runtime.block_on(async {
        let asked = async {
            let peer = format!("DCMDEX={}", address.await.unwrap());
            let mut echo = Command::new(env!("CARGO_BIN_EXE_dcmdex"));
            echo.args(["echo", &peer]).current_dir(directory.path());
            let echoed = tokio::task::spawn_blocking(move || echo.output().unwrap()).await.unwrap();
            shutdown.cancel();
            echoed
        };
        let tell = |address| listening.send(address).unwrap();
        let (ended, echoed) = tokio::join!(run_a_node(&config, shutdown.clone(), tell), asked);
        ended.unwrap();
        assert!(echoed.status.success(), "{echoed:?}");
    });
}
