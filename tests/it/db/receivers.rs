//! Receivers of events that several nodes on one index have.

use dcmdex::db::{EventChanges as _, EventRecording, EventSearch as _};

use super::*;

#[test]
fn a_receiver_of_another_node_keeps_its_place_for_a_week() {
    let dir = tempfile::tempdir().unwrap();
    let index = dir.path().join("index.db");
    let options = WriterOptions { recording: EventRecording::All, ..WriterOptions::default() };
    let writer = Writer::open(&index, options).unwrap();
    let handle = writer.handle();
    let names = || {
        let receivers = Reader::open(&index).unwrap().event_progress().unwrap().receivers;
        receivers.into_iter().map(|receiver| receiver.0).collect::<Vec<_>>()
    };
    handle.keep_receivers(vec!["ris".into()]).unwrap();
    store(&writer, record("1.2", "1.4", "1.2", &[]), location(Place::Managed, "/o", "1.2"));
    assert_eq!(handle.keep_receivers(vec!["emr".into()]).unwrap(), 0);
    assert_eq!(names(), ["emr", "ris"]);
    #[expect(clippy::disallowed_methods, reason = "a test ages what the index holds")]
    let connection = rusqlite::Connection::open(&index).unwrap();
    connection.execute("UPDATE event SET at_ms = 0", []).unwrap();
    assert_eq!(handle.keep_receivers(vec!["emr".into()]).unwrap(), 1);
    assert_eq!(names(), ["emr"], "nobody has served it");
}
