//! A PostgreSQL server that is killed, or says nothing any more, and is there again later.

use std::path::PathBuf;

use dcmdex::db::ScanLedger;
use dcmdex::model::attribute::AttributeId::SOPInstanceUID;
use dcmdex::model::level::QueryRetrieveLevel::Image;

use super::engines::try_to_store;
use super::*;
use crate::util::network::FarNetwork;
use crate::util::postgres::{PostgresServer, USER, database_of};

/// A server that is killed loses what it has not synced.
const DURABLE: &[&str] = &["fsync=on"];

/// A server with an index of three instances. Its silence counts after a second.
fn filled() -> (PostgresServer, PathBuf, Writer) {
    let server = PostgresServer::start(DURABLE);
    let (index, writer) = filled_at(&server.database());
    (server, index, writer)
}

/// An index of three instances in an empty database.
fn filled_at(database: &Path) -> (PathBuf, Writer) {
    let index = PathBuf::from(format!("{}&connect_timeout=1", database.display()));
    let options = WriterOptions { durability: Durability::Full, ..WriterOptions::default() };
    let writer = Writer::open(&index, options).unwrap();
    for number in 0..3 {
        assert_eq!(store_number(&writer, number).unwrap(), StoreOutcome::New);
    }
    (index, writer)
}

fn store_number(writer: &Writer, number: usize) -> Result<StoreOutcome, Error> {
    let uid = format!("1.2.3.{number}");
    let received = Received::new(record("1.2", "1.2.3", &uid, &[]), location(Place::Managed, "/objects", &uid));
    try_to_store(&writer.handle(), received).map(|stored| stored.outcome)
}

fn count(reader: &mut Reader) -> Result<u64, Error> {
    reader.find(&request(Image, &[SOPInstanceUID]), |_| ControlFlow::Continue(()))
}

/// Asks and stores while the server is away, and after it is back.
fn assert_told_and_goes_on((index, writer): (PathBuf, Writer), away: impl FnOnce(), back: impl FnOnce()) {
    let mut reader = Reader::open(&index).unwrap();
    assert_eq!(count(&mut reader).unwrap(), 3);
    away();
    for gone in [count(&mut reader), count(&mut reader), Reader::open(&index).map(|_| 0)] {
        let Err(Error::ServerGone { server, .. }) = &gone else { panic!("{gone:?}") };
        assert!(server.starts_with("postgresql://") && !server.contains("user"), "{server}");
    }
    let refused = store_number(&writer, 3).unwrap_err();
    assert!(matches!(refused, Error::ServerGone { .. } | Error::InDoubt { .. }), "{refused}");
    back();
    store_number(&writer, 4).unwrap();
    store_number(&writer, 3).unwrap();
    assert_eq!(count(&mut reader).unwrap(), 5);
    assert_sound(&index);
}

#[test]
fn a_server_that_was_killed_is_told_and_found_again() {
    let (server, index, writer) = filled();
    assert_told_and_goes_on((index, writer), || server.kill_and_hold(), || server.let_start());
}

#[test]
fn a_server_that_says_nothing_is_told_and_found_again() {
    let (server, index, writer) = filled();
    assert_told_and_goes_on((index, writer), || server.stop(), || server.go_on());
}

#[test]
fn a_server_behind_a_cut_cable_is_told_and_found_again() {
    let Some(network) = FarNetwork::make() else { return };
    let server = PostgresServer::start_in(&network, DURABLE);
    let near = server.database();
    let far = format!("postgresql://{USER}@{}/{}?sslmode=disable", network.address(), database_of(&near));
    let filled = filled_at(far.as_ref());
    let other = Writer::open(&near, WriterOptions::default()).unwrap();
    let away = || {
        network.cut();
        // A node on the other side goes on with the same study.
        store_number(&other, 2).unwrap();
    };
    assert_told_and_goes_on(filled, away, || network.join());
}

#[test]
fn a_server_that_is_killed_within_a_query_ends_it() {
    let (server, index, writer) = filled();
    for number in 3..40 {
        let uid = format!("1.{number}.1");
        store(
            &writer,
            record(&format!("1.{number}"), &uid, &format!("{uid}.1"), &[]),
            location(Place::Managed, "/o", &uid),
        );
    }
    let mut reader = Reader::open(&index).unwrap();
    let mut is_killed = false;
    let ended = reader.find(&request(Image, &[SOPInstanceUID]), |_| {
        if !std::mem::replace(&mut is_killed, true) {
            server.kill();
        }
        ControlFlow::Continue(())
    });
    assert!(matches!(ended, Err(Error::ServerGone { .. })), "{ended:?}");
    server.wait();
    store_number(&writer, 3).unwrap();
    assert_eq!(count(&mut reader).unwrap(), 41);
}

#[test]
fn a_scan_waits_for_a_server_that_starts_again() {
    let (server, index, writer) = filled();
    let mut reader = Reader::open(&index).unwrap();
    // On a busy machine, the start can take longer than they wait.
    let again = |asked: Result<u64, Error>| matches!(asked, Err(Error::ServerGone { .. } | Error::InDoubt { .. }));
    server.kill();
    let mut files = || Ok(reader.directory_files(Path::new("/objects"))?.len() as u64);
    while again(files()) {}
    assert_eq!(files().unwrap(), 3);
    server.kill();
    let scan = || {
        writer.handle().scanned(scanned("/a", vec![file("x", record("1.2", "1.2.3", "1.2.3.9", &[]))])).unwrap();
        writer.handle().flush().map(|tally| tally.indexed)
    };
    while again(scan()) {}
    assert_eq!(count(&mut Reader::open(&index).unwrap()).unwrap(), 4);
}
