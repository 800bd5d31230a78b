//! Whose identifier counts, and what a change or a cancellation does to the steps of an order.

use dcmdex::db::{WorklistColumn, WorklistState};

use super::hl7::{PID, Ris, message, only, orm, segment, value};
use crate::util::engine::with_each_index;

/// An order of HL7 2.5.1 with these steps.
fn omi(control: &str, time: &str, steps: &[&str]) -> String {
    let control = format!("ORC|{control}|PL3^RIS|FI3^RIS");
    let steps = steps.iter().map(|step| format!("IPC|ACC3|RP3|1.2.840.99.3|{step}|MR|||||MR1"));
    let mut segments = vec![PID.to_owned(), control, "OBR|1|PL3^RIS|FI3^RIS|HEART^Heart^L".to_owned()];
    segments.extend(steps);
    message("OMI^O23^OMI_O23", time, &segments.iter().map(String::as_str).collect::<Vec<_>>())
}

/// The steps and their states.
fn steps(ris: &Ris) -> Vec<(String, WorklistState)> {
    let mut steps: Vec<_> =
        ris.rows().iter().map(|row| (row.value(WorklistColumn::StepId).to_owned(), row.state)).collect();
    steps.sort();
    steps
}

fn patient(ris: &Ris) -> (String, String) {
    let row = only(ris.open());
    (row.value(WorklistColumn::PatientId).to_owned(), value(&row, "/00100021/Value/0"))
}

// IHE RAD TF-2, 4.4: PID-3 is a list of identifiers, each with authority and type.
fn of_several_identifiers_the_medical_record_number_counts() {
    for (identifiers, expected) in [
        ("A1^^^NATION^NH~B2^^^SITE^MR", ("B2", "SITE")),
        ("A1^^^NATION^NH~B2^^^SITE^PI", ("B2", "SITE")),
        ("C3^^^CLINIC^PI~B2^^^SITE^MR", ("B2", "SITE")),
        ("A1^^^NATION~B2^^^SITE", ("A1", "NATION")),
        ("^^^SITE^MR~A1^^^NATION^NH", ("A1", "NATION")),
    ] {
        let ris = Ris::new(&[]);
        ris.accept(&orm("NW", "20261129100000").replace("P1^^^ISS", identifiers));
        assert_eq!(patient(&ris), (expected.0.to_owned(), expected.1.to_owned()), "{identifiers}");
    }
}

fn the_authority_of_the_settings_counts_before_the_type() {
    let identifiers = "B2^^^SITE^MR~A1^^^NATION&1.2.276&ISO^NH";
    for (authority, expected) in [("NATION", "A1"), ("1.2.276", "A1"), ("SITE", "B2"), ("ELSEWHERE", "B2"), ("", "B2")]
    {
        let ris = Ris::with(&[], authority);
        ris.accept(&orm("NW", "20261129100000").replace("P1^^^ISS", identifiers));
        assert_eq!(patient(&ris).0, expected, "{authority}");
        // A merge names the former patient in the same way.
        let merged = format!("MRG|{identifiers}");
        ris.accept(&message("ADT^A40", "20261129100003", &["PID|||P9^^^SITE||Doe^Jane", &merged]));
        assert_eq!(patient(&ris).0, "P9", "{authority}");
    }
}

// HL7 2.5.1, 2.10.4.1: segments that repeat replace all former ones.
fn a_change_that_drops_a_step_cancels_it() {
    let ris = Ris::new(&[]);
    ris.accept(&omi("NW", "20261129100000", &["S1", "S2", "S3"]));
    // A new order replaces nothing: some senders write one message for each step.
    ris.accept(&omi("NW", "20261129100001", &["S4"]));
    assert_eq!(ris.open().len(), 4);
    ris.accept(&omi("XO", "20261129100002", &["S1", "S3"]));
    use WorklistState::{Cancelled, Scheduled};
    let expected = [("S1", Scheduled), ("S2", Cancelled), ("S3", Scheduled), ("S4", Cancelled)];
    assert_eq!(steps(&ris), expected.map(|(step, state)| (step.to_owned(), state)));
    // It comes back if a later change names it again.
    ris.accept(&omi("XO", "20261129100003", &["S1", "S2", "S3"]));
    assert_eq!(ris.open().len(), 3);
}

fn orders_of_one_study_in_one_message_do_not_cancel_each_other() {
    let ris = Ris::new(&[]);
    let order = |step: &str| {
        let (placer, ipc) = (format!("ORC|XO|PL{step}"), format!("IPC|ACC3|RP3|1.2.840.99.3|{step}|MR"));
        [placer, "OBR|1|||HEART^Heart^L".to_owned(), ipc]
    };
    let segments: Vec<String> = [PID.to_owned()].into_iter().chain(order("S1")).chain(order("S2")).collect();
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    ris.accept(&message("OMI^O23^OMI_O23", "20261129100000", &segments));
    assert_eq!(ris.open().len(), 2);
}

// ORM has no segment for each step, so one that is left out may be in another message.
fn a_change_without_step_segments_cancels_no_other_step() {
    let ris = Ris::new(&[]);
    ris.accept(&orm("NW", "20261129100000"));
    ris.accept(&orm("NW", "20261129100001").replace("SPS1", "SPS2").replace("PL1", "PL2").replace("FI1", "FI2"));
    ris.accept(&orm("XO", "20261129100002"));
    assert_eq!(ris.open().len(), 2);
}

// IHE RAD TF-2, 4.13 (RAD-13): with DC, "all remaining SPS" are cancelled.
fn a_discontinued_order_leaves_steps_that_have_started() {
    let ris = Ris::new(&[]);
    ris.accept(&omi("NW", "20261129100000", &["S1", "S2"]));
    ris.accept(&omi("SC", "20261129100001", &["S1"]).replace("FI3^RIS\r", "FI3^RIS||IP\r"));
    ris.accept(&message("OMI^O23", "20261129100002", &[PID, "ORC|DC|PL3^RIS|FI3^RIS"]));
    use WorklistState::{Cancelled, Done, Started};
    assert_eq!(steps(&ris), [("S1".to_owned(), Started), ("S2".to_owned(), Cancelled)]);
    ris.accept(&omi("SC", "20261129100003", &["S1"]).replace("FI3^RIS\r", "FI3^RIS||CM\r"));
    // What is done stays done, whatever comes late.
    ris.accept(&message("OMI^O23", "20261129100004", &[PID, "ORC|CA|PL3^RIS|FI3^RIS"]));
    assert_eq!(steps(&ris), [("S1".to_owned(), Done), ("S2".to_owned(), Cancelled)]);
    let obr = segment("OBR", &[(4, "X"), (18, "ACC9")]);
    ris.accept(&message("ORM^O01", "20261129100005", &[PID, "ORC|NW|PL9", &obr]));
    ris.accept(&message("ORM^O01", "20261129100006", &[PID, "ORC|CA|PL9"]));
    assert!(ris.open().is_empty());
}

with_each_index! {
    of_several_identifiers_the_medical_record_number_counts,
    the_authority_of_the_settings_counts_before_the_type,
    a_change_that_drops_a_step_cancels_it,
    orders_of_one_study_in_one_message_do_not_cancel_each_other,
    a_change_without_step_segments_cancels_no_other_step,
    a_discontinued_order_leaves_steps_that_have_started,
}
