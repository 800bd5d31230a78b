//! Whose orders a correction changes, and what an order that changes keeps.

use dcmdex::db::{WorklistColumn, WorklistRow};

use super::hl7::{PID, Ris, message, only, orm, segment, value};
use crate::util::engine::with_each_index;

/// An order of a patient, with these further fields of OBR.
fn order_of(pid: &str, number: u32, control: &str, time: &str, fields: &[(usize, &str)]) -> String {
    let accession = format!("A{number}");
    let obr = segment("OBR", &[&[(18, accession.as_str())], fields].concat());
    message("ORM^O01", time, &[pid, &format!("ORC|{control}|PL{number}"), &obr])
}

fn merge(pairs: &[&str]) -> String {
    message("ADT^A40", "20261129120000", pairs)
}

/// Patient ID, issuer and name of the only item that has this accession number.
fn patient(ris: &Ris, accession: &str) -> [String; 3] {
    let rows = ris.open().into_iter().filter(|row| row.value(WorklistColumn::AccessionNumber) == accession);
    let row = only(rows.collect());
    ["/00100020/Value/0", "/00100021/Value/0", "/00100010/Value/0/Alphabetic"].map(|path| value(&row, path))
}

/// Modality, station, description of the step and of the procedure.
fn described(row: &WorklistRow) -> [String; 4] {
    let step = |tag: &str| value(row, &format!("/00400100/Value/0/{tag}/Value/0"));
    [step("00080060"), step("00400001"), step("00400007"), value(row, "/00321060/Value/0")]
}

// HL7 2.5.1, 3.4.9.1: MRG-1 is a CX, so its assigning authority is part of the identifier.
fn a_merge_of_another_authority_changes_no_patient_with_the_same_number() {
    for (merge_of, renames) in [
        (["PID|||PX^^^OTHER||Neu^Other", "MRG|P1^^^OTHER"], false),
        // The number that goes is of the authority of the one that stays.
        (["PID|||PX^^^OTHER||Neu^Other", "MRG|P1"], false),
        (["PID|||PX^^^HOSP||Neu^Other", "MRG|P1"], true),
        (["PID|||PX^^^OTHER||Neu^Other", "MRG|P1^^^HOSP"], true),
        (["PID|||PX||Neu^Other", "MRG|P1"], true),
    ] {
        let ris = Ris::new(&[]);
        ris.accept(&order_of("PID|||P1^^^HOSP||Doe^Jane", 1, "NW", "20261129100000", &[]));
        ris.accept(&merge(&merge_of));
        let [id, _, name] = patient(&ris, "A1");
        let expected = if renames { ("PX", "Neu^Other") } else { ("P1", "Doe^Jane") };
        assert_eq!((id.as_str(), name.as_str()), expected, "{merge_of:?}");
    }
}

// HL7 2.5.1, 3.3.40: the group of PID and MRG repeats.
fn a_merge_of_several_patients_changes_each() {
    let ris = Ris::new(&[]);
    for number in 1..=3 {
        let pid = format!("PID|||P{number}^^^HOSP||Old^N{number}");
        ris.accept(&order_of(&pid, number, "NW", "20261129100000", &[]));
    }
    let pairs = ["PID|||Q1^^^HOSP||New^One", "MRG|P1^^^HOSP", "PID|||Q2^^^HOSP||New^Two", "PV1|1|I", "MRG|P2^^^HOSP"];
    ris.accept(&merge(&pairs));
    assert_eq!(patient(&ris, "A1"), ["Q1", "HOSP", "New^One"]);
    assert_eq!(patient(&ris, "A2"), ["Q2", "HOSP", "New^Two"]);
    assert_eq!(patient(&ris, "A3"), ["P3", "HOSP", "Old^N3"]);
}

fn a_value_that_was_made_follows_what_it_was_made_of() {
    let (early, late) = ("20261129100000", "20261129110000");
    let ris = Ris::new(&[]);
    ris.accept(&order_of(PID, 1, "NW", early, &[(4, "CTH^CT Head^L"), (24, "CT")]));
    assert_eq!(described(&only(ris.open())), ["CT", "CT1", "CT Head", "CT Head"]);
    let first = only(ris.open());
    ris.accept(&order_of(PID, 1, "XO", late, &[(4, "MRK^MR Knee^L"), (24, "MR")]));
    let row = only(ris.open());
    assert_eq!(described(&row), ["MR", "UNKNOWN", "MR Knee", "MR Knee"]);
    assert_eq!(row.warnings.len(), 1, "{:?}", row.warnings);
    ris.accept(&order_of(PID, 1, "XO", late, &[(4, "CTA^CT Abdomen^L"), (24, "CT")]));
    let row = only(ris.open());
    assert_eq!(described(&row), ["CT", "CT1", "CT Abdomen", "CT Abdomen"]);
    assert!(row.warnings.is_empty(), "{:?}", row.warnings);
    // Identifiers and the start stay.
    for column in [WorklistColumn::StudyInstanceUid, WorklistColumn::StepId, WorklistColumn::StartTime] {
        assert_eq!(row.value(column), first.value(column));
    }
    // A message that says nothing of it changes nothing of it.
    ris.accept(&order_of(PID, 1, "SC", late, &[]));
    assert_eq!(described(&only(ris.open())), ["CT", "CT1", "CT Abdomen", "CT Abdomen"]);
}

fn a_value_of_the_former_examination_or_patient_goes_with_it() {
    let (early, late) = ("20261129100000", "20261129110000");
    let ris = Ris::new(&["station_ae_title = OBR-21"]);
    let given = [(4, "CTH^CT Head^L^CTHN^Head native^L"), (21, "CT7"), (24, "CT")];
    ris.accept(&order_of(PID, 1, "NW", early, &given));
    assert_eq!(described(&only(ris.open())), ["CT", "CT7", "Head native", "CT Head"]);
    // The same examination, and less said of it.
    ris.accept(&order_of(PID, 1, "XO", late, &[(24, "CT")]));
    assert_eq!(described(&only(ris.open())), ["CT", "CT7", "Head native", "CT Head"]);
    ris.accept(&order_of("PID|||P2^^^ISS", 1, "XO", late, &[(4, "MRK^MR Knee^L"), (24, "MR")]));
    let row = only(ris.open());
    assert_eq!(described(&row), ["MR", "UNKNOWN", "MR Knee", "MR Knee"]);
    assert_eq!(row.value(WorklistColumn::PatientName), "P2", "the name was that of another patient");
}

// HL7 2.5.1, 3.4.6: each allergy has a segment of its own.
fn all_allergies_and_alerts_reach_the_modality() {
    let ris = Ris::new(&[]);
    let obr = segment("OBR", &[(4, "X"), (12, "DNR^Do not~INF^Infectious"), (13, "PACEMAKER~MRSA~MRSA"), (18, "A1")]);
    let allergies =
        ["AL1|1|DA|70618^PENICILLIN", "AL1|2|MA|^IODINATED CONTRAST||ANAPHYLAXIS", "AL1|3|FA|LATEX", "AL1|4|DA|\"\""];
    let segments = [&[PID], &allergies[..], &["ORC|NW|PL1", &obr]].concat();
    ris.accept(&message("ORM^O01", "20261129100000", &segments));
    let row = only(ris.open());
    for (tag, expected) in [
        ("00102110", r#"["PENICILLIN","IODINATED CONTRAST","LATEX"]"#),
        ("00102000", r#"["PACEMAKER","MRSA"]"#),
        // It has one value (PS3.6).
        ("00380500", r#"["Do not, Infectious"]"#),
    ] {
        assert_eq!(value(&row, &format!("/{tag}/Value")), expected);
    }
    // A correction of the patient has them too.
    ris.accept(&message("ADT^A08", "20261129110000", &[PID, "AL1|1|DA|70618^PENICILLIN", "AL1|2|DA|^NICKEL"]));
    assert_eq!(value(&only(ris.open()), "/00102110/Value"), r#"["PENICILLIN","NICKEL"]"#);
}

fn an_older_message_changes_nothing() {
    let named = |control: &str, time: &str, name: &str| orm(control, time).replace("Müller^Jürgen^K^jr^Dr", name);
    let ris = Ris::new(&[]);
    let name = || only(ris.rows()).value(WorklistColumn::PatientName).to_owned();
    ris.accept(&named("NW", "20261129110000", "Newer^X"));
    ris.accept(&named("NW", "20261129090000", "Older^X"));
    ris.accept(&named("XO", "20261129090000", "Older^X"));
    assert_eq!(name(), "Newer^X");
    // The same again is a newer message too.
    ris.accept(&named("NW", "20261129120000", "Newer^X"));
    ris.accept(&named("XO", "20261129113000", "Older^X"));
    assert_eq!(name(), "Newer^X");
    ris.accept(&message("ORM^O01", "20261129113000", &[PID, "ORC|CA|PL1^RIS|FI1^RIS"]));
    assert_eq!(ris.open().len(), 1, "an older cancellation");
    // The clock of another sender may be slow.
    ris.accept(&named("XO", "20261129080000", "Other^X").replace("|RIS|SITE|", "|HIS|SITE|"));
    assert_eq!(name(), "Other^X");
    ris.accept(&message("ORM^O01", "20261129130000", &[PID, "ORC|CA|PL1^RIS|FI1^RIS"]));
    assert!(ris.open().is_empty());
}

// The same sender says it all, and its messages overtake each other.
fn an_older_message_changes_nothing_of_the_patient() {
    let ris = Ris::new(&[]);
    let pid = |name: &str| format!("PID|||P1||{name}");
    let corrected = |time: &str, name: &str| ris.accept(&message("ADT^A08", time, &[&pid(name)]));
    let ordered = |time: &str, name: &str, modality: &str| {
        ris.accept(&order_of(&pid(name), 1, "XO", time, &[(24, modality)]));
    };
    let said = || {
        let row = only(ris.open());
        [WorklistColumn::PatientName, WorklistColumn::Modality].map(|column| row.value(column).to_owned())
    };
    ordered("20261129100000", "First^N", "CT");
    corrected("20261129101000", "Second^N");
    corrected("20261129100500", "Older^N");
    assert_eq!(said(), ["Second^N", "CT"]);
    // It is newer than the order before, and says of the patient what is older.
    ordered("20261129100700", "Older^N", "MR");
    assert_eq!(said(), ["Second^N", "MR"]);
    corrected("20261129100900", "Older^N");
    assert_eq!(said(), ["Second^N", "MR"]);
    ordered("20261129102000", "Third^N", "CR");
    corrected("20261129101500", "Older^N");
    ordered("20261129101800", "Older^N", "US");
    assert_eq!(said(), ["Third^N", "CR"]);
    corrected("20261129102100", "Fourth^N");
    assert_eq!(said(), ["Fourth^N", "CR"]);
    // The clock of another sender may be slow.
    ris.accept(&message("ADT^A08", "20261129080000", &[&pid("Other^N")]).replace("|RIS|SITE|", "|HIS|SITE|"));
    assert_eq!(said(), ["Other^N", "CR"]);
}

// HL7 2.5.1, 2.A.77: a time stamp may have an offset from UTC and fractions of a second. It may end
// with its day.
fn which_message_is_newer_is_told_as_precisely_as_both_say() {
    let ris = Ris::new(&[]);
    for (number, (first, second, is_taken)) in (1..).zip([
        ("20261129100000+0100", "20261129093000+0000", true),
        ("20261129093000+0000", "20261129100000+0100", false),
        // The clock goes back.
        ("20261025025900+0200", "20261025020100+0100", true),
        ("20261025020100+0100", "20261025025900+0200", false),
        ("20261129100000.900", "20261129100000.100", false),
        ("20261129100000.5", "20261129100000", true),
        ("20261129100000.1234567", "20261129100000.1233", false),
        ("20261129100030", "202611291000", true),
        ("202611291000", "20261129100030", true),
        ("20261129120000", "20261129", true),
        ("20261129120000", "20261128", false),
        ("20261129120000+0000", "20261129+0000", true),
        ("20261129120000+0000", "20261128+0000", false),
        ("20261129", "20261128235959", false),
        ("20261129120000", "tomorrow", true),
        ("20261129120000", "", true),
    ]) {
        let expected = if is_taken { "Second^N" } else { "First^N" };
        for (number, is_order) in [(number, true), (number + 100, false)] {
            let [before, after] = ["First^N", "Second^N"].map(|name| format!("PID|||P{number}||{name}"));
            ris.accept(&order_of(&before, number, "NW", first, &[]));
            ris.accept(&if is_order {
                order_of(&after, number, "XO", second, &[])
            } else {
                message("ADT^A08", second, &[&after])
            });
            assert_eq!(patient(&ris, &format!("A{number}"))[2], expected, "{first}, then {second}");
            ris.accept(&message("ORM^O01", second, &[&after, &format!("ORC|CA|PL{number}")]));
            assert_eq!(ris.open().is_empty(), is_taken, "{first}, then a cancellation of {second}");
            ris.accept(&message("ORM^O01", "20270101", &[&after, &format!("ORC|CA|PL{number}")]));
        }
    }
}

fn orders_of_one_accession_number_are_told_apart_by_their_numbers() {
    let ris = Ris::new(&[]);
    let order = |pid: &str, number: u32, control: &str, time: &str, code: &str| {
        let obr = segment("OBR", &[(4, code), (18, "ACC"), (24, "CT")]);
        ris.accept(&message("ORM^O01", time, &[pid, &format!("ORC|{control}|PL{number}"), &obr]));
    };
    let said = || {
        let described = |row: &WorklistRow| {
            let [id, name] = ["/00100020/Value/0", "/00321060/Value/0"].map(|path| value(row, path));
            format!("{id} {name}")
        };
        let mut all: Vec<_> = ris.open().iter().map(described).collect();
        all.sort();
        all
    };
    let (one, other) = ("PID|||P1||Doe^Jane", "PID|||P2||Roe^Rita");
    for time in ["20261129100000", "20261129100100"] {
        order(one, 1, "NW", time, "C^Chest");
        order(one, 2, "NW", time, "A^Abdomen");
        order(other, 3, "NW", time, "H^Head");
        assert_eq!(said(), ["P1 Abdomen", "P1 Chest", "P2 Head"]);
    }
    let steps: std::collections::BTreeSet<_> = ris
        .open()
        .iter()
        .map(|row| {
            [WorklistColumn::StudyInstanceUid, WorklistColumn::StepId].map(|column| row.value(column).to_owned())
        })
        .collect();
    assert_eq!(steps.len(), 3);
    order(one, 2, "XO", "20261129100200", "P^Pelvis");
    assert_eq!(said(), ["P1 Chest", "P1 Pelvis", "P2 Head"]);
    // An order that nobody knows is none of those.
    order(one, 4, "CA", "20261129100300", "");
    assert_eq!(said(), ["P1 Chest", "P1 Pelvis", "P2 Head"]);
    order(one, 2, "CA", "20261129100300", "");
    assert_eq!(said(), ["P1 Chest", "P2 Head"]);
    // Without a number, the accession number tells the orders of this patient.
    ris.accept(&message("ORM^O01", "20261129100400", &[one, "ORC|CA", &segment("OBR", &[(18, "ACC")])]));
    assert_eq!(said(), ["P2 Head"]);
}

fn orders_of_one_message_and_study_are_told_apart_by_their_numbers() {
    let ris = Ris::new(&[]);
    let zds = "ZDS|1.2.840.99.1^RIS^Application^DICOM";
    let obr = segment("OBR", &[(18, "ACC"), (24, "CT")]);
    ris.accept(&message("ORM^O01", "20261129100000", &[PID, "ORC|NW|PL1", &obr, "ORC|NW|PL2", &obr, zds]));
    let rows = ris.open();
    assert_eq!(rows.len(), 2);
    assert!(rows.iter().all(|row| row.value(WorklistColumn::StudyInstanceUid) == "1.2.840.99.1"));
}

with_each_index! {
    an_older_message_changes_nothing_of_the_patient,
    orders_of_one_accession_number_are_told_apart_by_their_numbers,
    orders_of_one_message_and_study_are_told_apart_by_their_numbers,
    a_merge_of_another_authority_changes_no_patient_with_the_same_number,
    a_merge_of_several_patients_changes_each,
    a_value_that_was_made_follows_what_it_was_made_of,
    a_value_of_the_former_examination_or_patient_goes_with_it,
    all_allergies_and_alerts_reach_the_modality,
    an_older_message_changes_nothing,
    which_message_is_newer_is_told_as_precisely_as_both_say,
}
