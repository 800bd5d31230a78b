//! Running a query to its end, or until it is stopped.

use std::ops::ControlFlow;

use dcmdex::db::Arrivals;
use dcmdex::db::open::Reader;
use dcmdex::model::attribute::AttributeId;
use dcmdex::model::level::{InformationModel, QueryRetrieveLevel};
use dcmdex::qr::{self, FindError, NegotiatedOptions, Options, Query, QueryStop, keys};
use tempfile::TempDir;

use crate::db;

/// Builds an index of ten studies, one per day, alternately at 10:00 and 12:00.
fn ten_studies() -> (TempDir, Reader) {
    let directory = TempDir::new().unwrap();
    let index = directory.path().join("index.db");
    let writer = db::writer(&index);
    let files = (1..=10).map(|day| {
        let uid = format!("1.{day}");
        let (date, time) = (format!("202401{day:02}"), if day % 2 == 0 { "10" } else { "12" });
        let values = [(AttributeId::StudyDate, date.as_str()), (AttributeId::StudyTime, time)];
        db::file(&format!("{day}.dcm"), db::record(&uid, &format!("{uid}.1"), &format!("{uid}.1.1"), &values))
    });
    writer.handle().scanned(db::scanned("/archive", files.collect())).unwrap();
    writer.close().unwrap();
    let reader = Reader::open(&index).unwrap();
    (directory, reader)
}

fn query(of: &[&str], limit: Option<u64>) -> Query {
    let identifier = keys::identifier(QueryRetrieveLevel::Study, of.iter().copied()).unwrap();
    let negotiated = NegotiatedOptions { combined_date_time: true, ..NegotiatedOptions::default() };
    qr::parse(InformationModel::StudyRoot, &identifier, negotiated, &Options { limit, ..Options::default() }).unwrap()
}

/// Returns the dates of the answers and the result.
fn run(reader: &mut Reader, query: &Query) -> (Vec<String>, Result<u64, FindError>) {
    let stop = QueryStop::new(reader);
    let at = query.request.return_keys.iter().position(|key| key.attribute == AttributeId::StudyDate).unwrap();
    let mut dates = Vec::new();
    let ended = qr::run(reader, query, &stop, |answer| {
        dates.push(answer.values[at].to_owned());
        ControlFlow::Continue(())
    });
    (dates, ended)
}

#[test]
fn one_answer_more_than_the_limit_is_an_error_after_as_many_as_the_limit() {
    let (_directory, mut reader) = ten_studies();
    for of in [&["StudyDate"][..], &["StudyDate=20231201-", "StudyTime=00-"]] {
        let (dates, ended) = run(&mut reader, &query(of, Some(9)));
        assert_eq!(dates.len(), 9, "{of:?}");
        assert!(matches!(ended, Err(FindError::TooManyMatches(9))), "{of:?} {ended:?}");
        let (dates, ended) = run(&mut reader, &query(of, Some(10)));
        assert_eq!((dates.len(), ended.unwrap()), (10, 10), "{of:?}");
    }
}

#[test]
fn the_newest_study_comes_first() {
    let (_directory, mut reader) = ten_studies();
    let (dates, _) = run(&mut reader, &query(&["StudyDate"], None));
    assert!(dates.is_sorted_by(|one, next| one > next), "{dates:?}");
}

// PS3.4 C.2.2.2.5.4.
#[test]
fn a_combined_range_counts_its_answers_after_sorting_out() {
    let (_directory, mut reader) = ten_studies();
    let of = ["StudyDate=20240102-20240105", "StudyTime=11-11"];
    let (dates, ended) = run(&mut reader, &query(&of, Some(3)));
    assert_eq!(dates, ["20240104", "20240103"]);
    assert_eq!(ended.unwrap(), 2);
}

#[test]
fn a_query_that_is_stopped_says_why() {
    let (_directory, mut reader) = ten_studies();
    let query = query(&["StudyDate"], None);
    let outcome = |reader: &mut Reader, first: fn(&QueryStop), at_answer: fn(&QueryStop) -> ControlFlow<()>| {
        let stop = QueryStop::new(reader);
        first(&stop);
        let mut answers = 0;
        let ended = qr::run(reader, &query, &stop, |_| {
            answers += 1;
            at_answer(&stop)
        });
        // Too late now; and the reader may be at the next query.
        stop.cancel();
        (answers, ended)
    };
    let go_on = |_: &QueryStop| ControlFlow::Continue(());
    assert!(matches!(outcome(&mut reader, QueryStop::cancel, go_on), (0, Err(FindError::Cancelled))));
    assert!(matches!(outcome(&mut reader, QueryStop::time_out, go_on), (0, Err(FindError::TimeLimit))));
    let cancel = |stop: &QueryStop| {
        stop.cancel();
        stop.time_out();
        ControlFlow::Continue(())
    };
    assert!(matches!(outcome(&mut reader, |_| {}, cancel), (1, Err(FindError::Cancelled))), "the first reason counts");
    let refuse = |_: &QueryStop| ControlFlow::Break(());
    assert!(matches!(outcome(&mut reader, |_| {}, refuse), (1, Err(FindError::Cancelled))));
    assert!(matches!(outcome(&mut reader, |_| {}, go_on), (10, Ok(10))), "the reader is as good as before");
}
