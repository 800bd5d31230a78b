//! The views, as other programs read them.

use dcmdex::db::Arrivals;
use dcmdex::model::attribute::AttributeId::*;

use super::*;
use crate::util::peers;

/// Returns what an engine reads from all views of an index.
fn read_by(engine: &str, index: &Path) -> Option<String> {
    let mut command = peers::python_peer("duckdb_views.py")?;
    Some(peers::run(command.arg(engine).arg(index)).expect_success())
}

/// DuckDB reads the text of a view with its own engine.
#[test]
fn duckdb_reads_from_every_view_what_sqlite_does() {
    let dir = tempfile::tempdir().unwrap();
    let index = dir.path().join("index.db");
    super::migrating::fill(&index);
    let writer = writer(&index);
    let odd = [
        ("1.2.3.100", "101112.123000", "7", "1.2.3.100.dcm"),
        ("1.2.3.101", "101113", "8", "0001.dcm"),
        ("1.2.3.103", "about noon", "x9", "0002.dcm"),
        ("1.2.9", "", "", "it's odd"),
        ("no uid", "10", "1", "!"),
    ];
    let files = odd.map(|(uid, time, number, name)| {
        let more = [(ContentTime, time), (AcquisitionTime, time), (InstanceNumber, number), (ImageType, name)];
        file(name, record("1.5", "1.6", uid, &more))
    });
    writer.handle().scanned(scanned("/archive", files.into())).unwrap();
    let metadata = location(Place::MetadataOnly, "", "");
    store(&writer, record("1.7", "1.7.1", "1.7.1.1", &[]), metadata);
    writer.close().unwrap();
    let Some(through_duckdb) = read_by("duckdb", &index) else { return };
    let through_sqlite = read_by("sqlite", &index).unwrap();
    for view in ["patients", "studies", "series", "instances"] {
        assert!(through_sqlite.contains(&format!("[\"{view}\"")), "{view}");
    }
    for (duckdb, sqlite) in through_duckdb.lines().zip(through_sqlite.lines()) {
        assert_eq!(duckdb, sqlite);
    }
    assert_eq!(through_duckdb.lines().count(), through_sqlite.lines().count());
}
