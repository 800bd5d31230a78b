//! HL7 messages: what they want is in the worklist before they are acknowledged.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use dcmdex::db::open::{Reader, Writer, WriterOptions};
use dcmdex::db::{WorklistColumn, WorklistRow, WorklistSearch, WorklistState};
use dcmdex::listening::TlsSource;
use dcmdex::mllp::{MllpListener, Options, SharedSenders};
use dcmdex::model::clock::Clock;
use dcmdex::ul::tls::Tls;
use dcmdex::worklist::{AckCode, Hl7Intake, Hl7Map, Intake, IntakeOptions};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::scp::tls::tls_stream;
use crate::util::certificates::{Authority, Identity, SelfSigned};
use crate::util::engine::{index_at, with_each_index};
use crate::util::scripted::connected;

/// An index with a way in for messages.
pub(super) struct Ris {
    directory: TempDir,
    hl7: Arc<Hl7Intake>,
    writer: Option<Writer>,
}

impl Ris {
    pub(super) fn new(lines: &[&str]) -> Self {
        Self::with(lines, "")
    }

    /// Prefers the identifiers of this authority.
    pub(super) fn with(lines: &[&str], authority: &str) -> Self {
        let directory = TempDir::new().unwrap();
        let writer = Writer::open(&index_at(directory.path()), WriterOptions::default()).unwrap();
        let stations = vec![("CT".to_owned(), "CT1".to_owned())];
        let options = IntakeOptions { stations, ..IntakeOptions::default() };
        let intake = Arc::new(Intake::new(Box::new(writer.handle()), options));
        let mut map = Hl7Map::default();
        lines.iter().for_each(|line| map.replace(line).unwrap());
        map.set_patient_authority(authority);
        let hl7 = Arc::new(Hl7Intake::new(intake, map, Clock::System));
        Self { directory, hl7, writer: Some(writer) }
    }

    #[track_caller]
    pub(super) fn accept(&self, message: &str) {
        self.accept_bytes(message.as_bytes());
    }

    #[track_caller]
    pub(super) fn accept_bytes(&self, message: &[u8]) {
        let acknowledgment = self.hl7.take(message, "test");
        assert_eq!(acknowledgment.code, AckCode::Accept, "{}", acknowledgment.text);
    }

    fn refuse(&self, message: &str) -> (AckCode, String) {
        let acknowledgment = self.hl7.take(message.as_bytes(), "test");
        (acknowledgment.code, acknowledgment.text)
    }

    fn reader(&self) -> Reader {
        Reader::open(&index_at(self.directory.path())).unwrap()
    }

    pub(super) fn rows(&self) -> Vec<WorklistRow> {
        super::rows_of(&mut self.reader())
    }

    pub(super) fn open(&self) -> Vec<WorklistRow> {
        self.rows().into_iter().filter(|row| row.state.is_open()).collect()
    }
}

impl Drop for Ris {
    fn drop(&mut self) {
        if let Some(writer) = self.writer.take() {
            drop(writer);
        }
    }
}

pub(super) fn message(kind: &str, time: &str, segments: &[&str]) -> String {
    format!("MSH|^~\\&|RIS|SITE|DCMDEX|X|{time}||{kind}|MSG1|P|2.5.1||||||UNICODE UTF-8\r{}\r", segments.join("\r"))
}

pub(super) const PID: &str = "PID|1||P1^^^ISS||Müller^Jürgen^K^jr^Dr||19700131|M";
const PV1: &str = "PV1|1|I|WARD^7|||||55^Referrer^Rita^^^Dr|||||||B6||||V99^^^HIS&1.2.276&ISO^VN";

/// A segment with these fields.
pub(super) fn segment(name: &str, fields: &[(usize, &str)]) -> String {
    let last = fields.iter().map(|(number, _)| *number).max().unwrap_or(0);
    let field = |number| fields.iter().find(|(known, _)| *known == number).map_or("", |(_, text)| *text);
    std::iter::once(name).chain((1..=last).map(field)).collect::<Vec<_>>().join("|")
}

pub(super) fn orm(control: &str, time: &str) -> String {
    message(
        "ORM^O01^ORM_O01",
        time,
        &[
            PID,
            PV1,
            &format!("ORC|{control}|PL1^RIS|FI1^RIS||SC||^^^209912311530^^S"),
            &segment(
                "OBR",
                &[
                    (2, "PL1^RIS"),
                    (3, "FI1^RIS"),
                    (4, "CTHEAD^CT of the head^LOCAL^PROT1^Head routine^99P"),
                    (13, "Alert"),
                    (16, "77^Asker^Anna"),
                    (18, "ACC1"),
                    (19, "RP1"),
                    (20, "SPS1"),
                    (24, "CT"),
                    (27, "^^^209912311530"),
                    (31, "W19^Fall^ICD"),
                    (34, "^Tech^Tina"),
                ],
            ),
            "ZDS|1.2.840.99.1^RIS^Application^DICOM",
        ],
    )
}

/// The only row.
#[track_caller]
pub(super) fn only(mut rows: Vec<WorklistRow>) -> WorklistRow {
    assert_eq!(rows.len(), 1);
    rows.remove(0)
}

pub(super) fn value(row: &WorklistRow, path: &str) -> String {
    let item: serde_json::Value = serde_json::from_str(&row.item).unwrap();
    let value = item.pointer(path).unwrap_or(&serde_json::Value::Null);
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn an_order_becomes_an_item_by_the_mapping_of_ihe() {
    let ris = Ris::new(&[]);
    ris.accept(&orm("NW", "20261129100000"));
    let row = only(ris.open());
    let column = |column| row.value(column).to_owned();
    assert_eq!(column(WorklistColumn::StudyInstanceUid), "1.2.840.99.1");
    assert_eq!(
        (column(WorklistColumn::StepId), column(WorklistColumn::AccessionNumber)),
        ("SPS1".into(), "ACC1".into())
    );
    assert_eq!(
        (column(WorklistColumn::StartDate), column(WorklistColumn::StartTime)),
        ("20991231".into(), "1530".into())
    );
    assert_eq!((column(WorklistColumn::Modality), column(WorklistColumn::StationAeTitle)), ("CT".into(), "CT1".into()));
    // HL7 has the suffix before the prefix, and DICOM after it.
    assert_eq!(column(WorklistColumn::PatientName), "Müller^Jürgen^K^Dr^jr");
    assert_eq!(column(WorklistColumn::PerformingPhysicianName), "Tech^Tina");
    for (path, expected) in [
        ("/00100021/Value/0", "ISS"),
        ("/00100030/Value/0", "19700131"),
        ("/00100040/Value/0", "M"),
        ("/001021C0/Value/0", "3"),
        ("/00080090/Value/0/Alphabetic", "Referrer^Rita^^Dr"),
        ("/00321032/Value/0/Alphabetic", "Asker^Anna"),
        ("/00321064/Value/0/00080100/Value/0", "CTHEAD"),
        ("/00321060/Value/0", "CT of the head"),
        ("/00401001/Value/0", "RP1"),
        ("/00401003/Value/0", "STAT"),
        ("/00380010/Value/0", "V99"),
        ("/00402016/Value/0", "PL1"),
        ("/00402017/Value/0", "FI1"),
        ("/00400026/Value/0/00400031/Value/0", "RIS"),
        ("/00400027/Value/0/00400031/Value/0", "RIS"),
        ("/00380014/Value/0/00400031/Value/0", "HIS"),
        ("/00380014/Value/0/00400032/Value/0", "1.2.276"),
        ("/00401002/Value/0", "Fall"),
        ("/0040100A/Value/0/00080102/Value/0", "ICD"),
        ("/00400100/Value/0/00400008/Value/0/00080104/Value/0", "Head routine"),
        ("/00400100/Value/0/00400007/Value/0", "Head routine"),
    ] {
        assert_eq!(value(&row, path), expected, "{path}");
    }
    assert_eq!(row.generated, ["ScheduledStationAETitle"], "the order lacks nothing else");
}

// PS3.5 6.2.1.1, HL7 table 0465.
fn the_representations_of_a_name_are_its_component_groups() {
    let name_of = |fields: &[(&str, usize, &str)], path: &str| {
        let ris = Ris::new(&[]);
        let field = |name: &str| {
            fields.iter().filter(|(of, ..)| *of == name).map(|(_, at, text)| (*at, *text)).collect::<Vec<_>>()
        };
        let pid = segment("PID", &[&field("PID")[..], &[(3, "P1"), (5, "Doe")]].concat());
        let obr = segment("OBR", &[&field("OBR")[..], &[(4, "X"), (18, "A1")]].concat());
        ris.accept(&message("ORM^O01", "20261129100000", &[&pid, "ORC|NW|1", &obr]));
        let item: serde_json::Value = serde_json::from_str(&only(ris.open()).item).unwrap();
        dcmdex::model::matching::joined_values(item.pointer(path).unwrap().as_array().unwrap())
    };
    for (field, name) in [
        ("Yamada^Taro^^^^^L^A~山田^太郎^^^^^L^I~やまだ^たろう^^^^^L^P", "Yamada^Taro=山田^太郎=やまだ^たろう"),
        ("山田^太郎^^^^^L^I~Yamada^Taro^^^^^L^A", "Yamada^Taro=山田^太郎"),
        ("Yamada^Taro~やまだ^たろう^^^^^^P", "Yamada^Taro==やまだ^たろう"),
        ("山田^太郎^^^^^L^I", "=山田^太郎"),
        ("王^小东", "王^小东"),
        // Another name of the patient is no group.
        ("Doe^Jane^^^^^L~Roe^Jane^^^^^M~別^名^^^^^A^I", "Doe^Jane"),
    ] {
        assert_eq!(name_of(&[("PID", 5, field)], "/00100010/Value"), name, "{field}");
    }
    let asker = "77^Yamada^Taro^^^^^^^L^^^^^A~77^山田^太郎^^^^^^^L^^^^^I~88^王^小东^^^^^^^L^^^^^P";
    assert_eq!(name_of(&[("OBR", 16, asker)], "/00321032/Value"), "Yamada^Taro=山田^太郎");
}

fn the_same_order_is_one_item_and_changes_and_is_cancelled() {
    let ris = Ris::new(&[]);
    ris.accept(&orm("NW", "20261129100000"));
    ris.accept(&orm("NW", "20261129100001"));
    assert_eq!(ris.rows().len(), 1);
    ris.accept(&orm("XO", "20261129100002").replace("209912311530", "210001010800"));
    let row = only(ris.open());
    assert_eq!(row.value(WorklistColumn::StartDate), "21000101");
    // A cancellation names the order, and perhaps little else.
    ris.accept(&message("ORM^O01", "20261129100003", &[PID, "ORC|CA|PL1^RIS|FI1^RIS"]));
    assert!(ris.open().is_empty());
    // The order again, after the cancellation, is a new one.
    ris.accept(&orm("NW", "20261129110000"));
    assert_eq!(ris.open().len(), 1);
    ris.accept(&orm("SC", "20261129110001").replace("||SC||", "||CM||"));
    assert_eq!(ris.rows()[0].state, WorklistState::Done);
}

fn a_cancellation_that_overtakes_its_order_wins() {
    let ris = Ris::new(&[]);
    ris.accept(&message("ORM^O01", "20261129100003", &[PID, "ORC|CA|PL1^RIS|FI1^RIS"]));
    ris.accept(&orm("NW", "20261129100000"));
    assert!(ris.open().is_empty());
    ris.accept(&orm("NW", "20261129100005"));
    assert_eq!(ris.open().len(), 1);
    assert_eq!(ris.rows().len(), 1, "nothing is left of the cancellation");
}

fn what_an_order_lacks_stays_when_it_comes_again() {
    let ris = Ris::new(&[]);
    let plain = |time: &str| {
        let order: [&str; 3] = [
            "PID|||P2||Doe^Jane",
            "ORC|NW|PL2",
            &segment("OBR", &[(2, "PL2"), (4, "X^Knee"), (18, "ACC2"), (24, "MR")]),
        ];
        message("ORM^O01", time, &order)
    };
    ris.accept(&plain("20261129100000"));
    let first = only(ris.open());
    ris.accept(&plain("20261129100100"));
    let again = only(ris.open());
    for column in [WorklistColumn::StudyInstanceUid, WorklistColumn::StartDate, WorklistColumn::StartTime] {
        assert_eq!(first.value(column), again.value(column));
    }
    assert!(first.generated.iter().any(|name| name == "StudyInstanceUID"), "{:?}", first.generated);
    assert_eq!(first.generated, again.generated);
}

fn attributes_that_a_message_omits_stay_and_empty_ones_go() {
    let ris = Ris::new(&[]);
    let pid = "PID|||P1^^^ISS||Doe^Jane||19800101|F";
    let obr = |fields: &[(usize, &str)]| {
        let always = [(2, "PL1"), (18, "ACC1")];
        segment("OBR", &[always.as_slice(), fields].concat())
    };
    let order = [
        pid,
        "PV1||I|W1|||||R1^Referrer|||||||B6",
        "AL1|1||^Latex",
        "ORC|NW|PL1",
        &obr(&[(4, "X^Head^L^PR^Protocol^L"), (5, "S"), (13, "Alert"), (24, "CT"), (31, "C1^Why^L")]),
        "OBX|1|NM|29463-7^Body weight^LN||70|kg",
    ];
    let kept = [
        ("/00100030/Value/0", "19800101"),
        ("/00100040/Value/0", "F"),
        ("/00101030/Value/0", "70"),
        ("/00102110/Value/0", "Latex"),
        ("/00102000/Value/0", "Alert"),
        ("/001021C0/Value/0", "3"),
        ("/00401003/Value/0", "STAT"),
        ("/00401002/Value/0", "Why"),
        ("/0040100A/Value/0/00080100/Value/0", "C1"),
        ("/00080090/Value/0/Alphabetic", "Referrer"),
        ("/00400100/Value/0/00400008/Value/0/00080100/Value/0", "PR"),
    ];
    let values = || kept.map(|(pointer, _)| value(&only(ris.rows()), pointer).trim_matches('"').to_owned());
    ris.accept(&message("ORM^O01", "20261129100000", &order));
    assert_eq!(values(), kept.map(|(_, value)| value));
    // A status names little more than the order.
    let status = ["PID|||P1^^^ISS", "ORC|SC|PL1|||IP", &obr(&[(4, "X^Head^L"), (24, "CT")])];
    ris.accept(&message("ORM^O01", "20261129100001", &status));
    assert_eq!(values(), kept.map(|(_, value)| value));
    // An empty field says that there is nothing.
    let none = "\"\"";
    let empty = [
        &segment("PID", &[(3, "P1^^^ISS"), (7, none), (8, none)]),
        &segment("PV1", &[(8, none), (15, none)]),
        &segment("AL1", &[(3, none)]),
        "ORC|XO|PL1",
        &obr(&[(4, "Y^Knee^L"), (5, none), (13, none), (24, "CT"), (31, none)]),
        "OBX|1|NM|29463-7^Body weight^LN||\"\"|kg",
    ];
    ris.accept(&message("ORM^O01", "20261129100002", &empty));
    assert_eq!(values(), kept.map(|_| "null"));
    // What was said of one patient is not said of another.
    ris.accept(&message("ORM^O01", "20261129100003", &order));
    ris.accept(&message("ORM^O01", "20261129100004", &["PID|||P2^^^ISS", "ORC|XO|PL1", &obr(&[(4, "X"), (24, "CT")])]));
    assert_eq!(values(), kept.map(|_| "null"));
}

fn each_imaging_procedure_control_is_a_step() {
    let ris = Ris::new(&[]);
    let order = message(
        "OMI^O23^OMI_O23",
        "20261129100000",
        &[
            PID,
            "ORC|NW|PL3^RIS|FI3^RIS",
            "TQ1|1||||||20991231090000||R",
            "OBR|1|PL3^RIS|FI3^RIS|HEART^Heart^L",
            "IPC|ACC3|RP3|1.2.840.99.3|S1|MR|PRT1^One^L|NAME1|ROOM1|MR1",
            "IPC|ACC3|RP3|1.2.840.99.3|S2|CT|PRT2^Two^L|NAME2|ROOM2|CT2",
        ],
    );
    ris.accept(&order);
    let steps: Vec<_> = ris
        .open()
        .iter()
        .map(|row| {
            [WorklistColumn::StepId, WorklistColumn::Modality, WorklistColumn::StationAeTitle]
                .map(|c| row.value(c).to_owned())
        })
        .collect();
    assert_eq!(steps, [["S1", "MR", "MR1"], ["S2", "CT", "CT2"]]);
    ris.accept(&order);
    assert_eq!(ris.rows().len(), 2);
}

fn a_patient_is_corrected_and_merged() {
    let ris = Ris::new(&[]);
    ris.accept(&orm("NW", "20261129100000"));
    ris.accept(&message("ADT^A08", "20261129100001", &["PID|||P1^^^ISS||Mueller^Juergen||19700201|M"]));
    let row = only(ris.open());
    assert_eq!(
        (row.value(WorklistColumn::PatientName), value(&row, "/00100030/Value/0")),
        ("Mueller^Juergen", "19700201".into())
    );
    ris.accept(&message("ADT^A08", "20261129100002", &["PID|||P1^^^OTHER||Nobody"]));
    assert_eq!(ris.open()[0].value(WorklistColumn::PatientName), "Mueller^Juergen", "another issuer's patient");
    ris.accept(&message("ADT^A40", "20261129100003", &["PID|||P9^^^ISS||Mueller^Juergen", "MRG|P1^^^ISS"]));
    assert_eq!(ris.open()[0].value(WorklistColumn::PatientId), "P9");
    assert_eq!(ris.open()[0].value(WorklistColumn::AccessionNumber), "ACC1");
    ris.accept(&message("ADT^A01", "20261129100003", &["PID|||P9"]));
}

/// A message of one order with observations.
fn with_observations(control: &str, number: u32, observations: &[&str]) -> String {
    let (order, obr) = (format!("ORC|{control}|PL{number}"), segment("OBR", &[(4, "X"), (18, &format!("A{number}"))]));
    let segments: Vec<&str> = [PID, &order, &obr].into_iter().chain(observations.iter().copied()).collect();
    message("ORM^O01", "20261129100000", &segments)
}

fn weight_and_height_come_from_the_observations_that_name_them() {
    let ris = Ris::new(&[]);
    let measures = |row: &WorklistRow| (value(row, "/00101030/Value/0"), value(row, "/00101020/Value/0"));
    let none = "null".to_owned();
    for (number, observations, expected) in [
        (1, ["OBX|1|NM|29463-7^Body weight^LN||70.5|kg", "OBX|2|NM|8302-2^Body height^LN||175|cm"], ("70.5", "1.75")),
        (2, ["OBX|1|NM|99^Pulse||60|/min", "OBX|2|NM|X^Y^99Z^3141-9^Weight^LN||150|[lb_av]"], ("68.039", "")),
        (3, ["OBX|1|ST|WT^BODY WEIGHT||3200|g^gram^UCUM", "OBX|2|ST|^body height||1.8|M"], ("3.2", "1.8")),
        // Without a unit that is known, and without a number.
        (4, ["OBX|1|NM|29463-7^^LN||70", "OBX|2|NM|8302-2^^LN||tall|cm"], ("", "")),
    ] {
        ris.accept(&with_observations("NW", number, &observations));
        let row = ris.open().into_iter().find(|row| row.value(WorklistColumn::AccessionNumber) == format!("A{number}"));
        let expected =
            [expected.0, expected.1].map(|text| if text.is_empty() { none.clone() } else { text.to_owned() });
        assert_eq!(<[String; 2]>::from(measures(&row.unwrap())), expected, "{observations:?}");
    }
    // A correction of the patient has its observations without an order.
    ris.accept(&message("ADT^A08", "20261129100001", &[PID, "PV1|1|I", "OBX|1|NM|29463-7^^LN||71|kg"]));
    assert!(ris.open().iter().all(|row| measures(row).0 == "71"));
}

fn a_weight_can_come_from_another_field() {
    let ris = Ris::new(&["patient_weight = ZPT-2", "patient_size ="]);
    ris.accept(&with_observations("NW", 1, &["ZPT|1|82.5", "OBX|1|NM|8302-2^^LN||175|cm"]));
    let row = only(ris.open());
    assert_eq!((value(&row, "/00101030/Value/0"), value(&row, "/00101020")), ("82.5".into(), "null".into()));
}

fn what_cannot_be_used_is_refused_with_its_reason_and_listed() {
    let ris = Ris::new(&[]);
    let order = |pid: &str, obr: &str| message("ORM^O01", "20261129100000", &[pid, "ORC|NW|PL7", obr]);
    for (message, code, reason) in [
        ("MSH|^~\\&|hello\r".to_owned(), AckCode::Reject, "it names no message type (MSH-9)"),
        (order("PID|||||Secret^Name", "OBR|1|||||||||||||||||ACC7"), AckCode::Error, "names no patient"),
        (order("PID|||P7||Secret^Name", "OBR|1|||X^Knee"), AckCode::Error, "nothing tells it apart"),
        (message("ORM^O01", "", &["PID|||P7"]), AckCode::Error, "neither ORC nor OBR"),
        (orm("ZZ", ""), AckCode::Error, "order control ZZ"),
        (message("ORU^R01", "", &["PID|||P7", "OBR|1"]), AckCode::Reject, "ORUR01 is not supported"),
        ("hello".to_owned(), AckCode::Reject, "no HL7 version 2 message"),
    ] {
        let (found, text) = ris.refuse(&message);
        assert_eq!(found, code, "{text}");
        assert!(text.contains(reason) && !text.contains("Secret"), "{text}");
    }
    let problems = ris.reader().worklist_problems().unwrap();
    assert_eq!(problems.len(), 7);
    assert!(problems.iter().all(|problem| !problem.reason.contains("Secret")), "{problems:?}");
    assert!(problems[1].origin.contains("MSG1"), "{problems:?}");
    assert!(ris.rows().is_empty(), "nothing of them came in");
}

fn the_acknowledgment_of_a_message_that_cannot_be_read_names_it() {
    let ris = Ris::new(&[]);
    let strange = orm("NW", "20261129100000").replacen("UNICODE UTF-8", "KLINGON", 1);
    let long = format!("{}{}", orm("NW", "20261129100000"), "NTE|1\r".repeat(10_000));
    for (message, reason) in [(strange, "MSH-18"), (long, "more than 10000 segments")] {
        let acknowledgment = ris.hl7.take(message.as_bytes(), "test");
        let bytes = String::from_utf8(acknowledgment.bytes).unwrap();
        assert!(acknowledgment.text.contains(reason) && bytes.contains("\rMSA|AR|MSG1|"), "{bytes}");
        assert!(bytes.starts_with("MSH|^~\\&|DCMDEX||RIS|SITE|") && bytes.contains("||ACK^O01^ACK|"), "{bytes}");
    }
    assert!(ris.reader().worklist_problems().unwrap().iter().all(|problem| problem.origin.contains("MSG1")));
}

fn any_line_of_the_mapping_can_be_replaced() {
    let ris = Ris::new(&["accession_number = ORC-3.1", "modality=OBR-21", "station_ae_title = ZZZ-1"]);
    let order: [&str; 4] =
        ["PID|||P8", "ORC|NW|PL8|FI8", &segment("OBR", &[(4, "X"), (18, "ACC8"), (21, "US")]), "ZZZ|US7"];
    ris.accept(&message("ORM^O01", "20261129100000", &order));
    let row = only(ris.open());
    let columns = [WorklistColumn::AccessionNumber, WorklistColumn::Modality, WorklistColumn::StationAeTitle];
    assert_eq!(columns.map(|column| row.value(column)), ["FI8", "US", "US7"]);
}

/// Starts a listener, runs `test` with its address, and stops it.
fn listening(ris: &Ris, change: impl FnOnce(&mut Options), test: impl FnOnce(SocketAddr)) {
    listening_with(ris, None, change, test);
}

fn listening_with(ris: &Ris, tls: Option<TlsSource>, change: impl FnOnce(&mut Options), test: impl FnOnce(SocketAddr)) {
    let long = Duration::from_secs(300);
    let mut options = Options {
        bind: SocketAddr::from(([127, 0, 0, 1], 0)),
        senders: SharedSenders::default(),
        max_connections: 20,
        max_connections_of_one: 10,
        idle_timeout: long,
        read_timeout: long,
        write_timeout: long,
        drain_timeout: long,
    };
    change(&mut options);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let shutdown = CancellationToken::new();
    let listener = runtime.block_on(MllpListener::bind(options, Arc::clone(&ris.hl7), tls)).unwrap();
    let address = listener.local_addr();
    let running = runtime.spawn(listener.run(shutdown.clone()));
    test(address);
    shutdown.cancel();
    runtime.block_on(running).unwrap();
}

/// Sends a message, and returns its acknowledgment.
pub(crate) fn send(stream: &mut (impl Read + Write), message: &str) -> String {
    try_send(stream, message).unwrap()
}

fn try_send(stream: &mut (impl Read + Write), message: &str) -> std::io::Result<String> {
    stream.write_all(&[b"\x0B", message.as_bytes(), b"\x1C\r"].concat())?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\x1C\r") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        answer.extend(byte);
    }
    Ok(String::from_utf8(answer).unwrap())
}

fn a_message_over_the_network_is_there_when_it_is_acknowledged() {
    let ris = Ris::new(&[]);
    listening(
        &ris,
        |_| {},
        |address| {
            for number in 0..3 {
                let mut stream = connected(address);
                let message = orm("NW", "20261129100000")
                    .replace("ACC1", &format!("ACC1{number}"))
                    .replace("PL1", &format!("PL1{number}"));
                let message =
                    message.replace("FI1", &format!("FI1{number}")).replace("99.1^", &format!("99.1{number}^"));
                let answer = send(&mut stream, &message);
                assert!(
                    answer.contains("\rMSA|AA|MSG1\r") && answer.starts_with("\x0BMSH|^~\\&|DCMDEX||RIS|SITE|"),
                    "{answer:?}"
                );
                assert_eq!(ris.open().len(), number + 1);
            }
        },
    );
}

fn bad_senders_harm_nobody() {
    let ris = Ris::new(&[]);
    listening(
        &ris,
        |options| options.max_connections_of_one = 3,
        |address| {
            // Never ended, too long, no MLLP at all.
            let mut endless = connected(address);
            endless.write_all(b"\x0BMSH|^~\\&|never").unwrap();
            let mut long = connected(address);
            let _cut = long.write_all(&[b"\x0B".as_slice(), &vec![b'x'; (1 << 20) + 10]].concat());
            assert_eq!(long.read(&mut [0; 10]).unwrap_or(0), 0, "it is closed");
            let mut web = connected(address);
            let _cut = web.write_all(&[b'G'; 3000]);
            assert_eq!(web.read(&mut [0; 10]).unwrap_or(0), 0);
            // One place is taken by the endless one. Those that are over give theirs back.
            let answer = loop {
                let mut good = connected(address);
                if good.write_all(&[b"\x0B", orm("NW", "").as_bytes(), b"\x1C\r"].concat()).is_err() {
                    continue;
                }
                let mut answer = Vec::new();
                let read = BufReader::new(good).read_until(0x1C, &mut answer);
                if read.is_ok() && !answer.is_empty() {
                    break String::from_utf8(answer).unwrap();
                }
            };
            assert!(answer.contains("MSA|AA"), "{answer}");
            // More than it may have at one time are closed at once.
            let more: Vec<_> = (0..10).map(|_| connected(address)).collect();
            let closed = more.into_iter().filter(|stream| {
                stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
                matches!((&*stream).read(&mut [0; 1]), Ok(0))
            });
            assert!(closed.count() >= 7);
        },
    );
    let reasons: Vec<_> = ris.reader().worklist_problems().unwrap().into_iter().map(|problem| problem.reason).collect();
    for reason in ["a message is too long", "what came is no MLLP"] {
        assert!(reasons.iter().any(|found| found.contains(reason)), "{reason}: {reasons:?}");
    }
}

fn few_bytes_that_are_no_message_are_listed_too() {
    let ris = Ris::new(&[]);
    let tls = [22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3];
    listening(
        &ris,
        |_| {},
        |address| {
            // Line ends between messages are nothing strange.
            for bytes in [orm("NW", "").as_bytes(), &tls, b"", b"\r\n"] {
                let mut stream = connected(address);
                stream.write_all(bytes).unwrap();
                stream.shutdown(std::net::Shutdown::Write).unwrap();
                assert_eq!(stream.read(&mut [0; 10]).unwrap(), 0);
            }
        },
    );
    let mut reasons: Vec<_> =
        ris.reader().worklist_problems().unwrap().into_iter().map(|problem| problem.reason).collect();
    let expected =
        ["the sender speaks TLS, and this port does not", "what came is no MLLP: no message begins with the byte 0B"];
    reasons.sort();
    assert_eq!(reasons, expected);
}

fn only_senders_of_the_settings_may_send() {
    let ris = Ris::new(&[]);
    listening(
        &ris,
        |options| options.senders = vec!["10.0.0.0/8".parse().unwrap()].into(),
        |address| {
            let mut stream = connected(address);
            let _cut = stream.write_all(&[b"\x0B", orm("NW", "").as_bytes(), b"\x1C\r"].concat());
            assert_eq!(stream.read(&mut [0; 10]).unwrap_or(0), 0);
        },
    );
    assert!(ris.rows().is_empty());
}

fn the_same_order_from_two_senders_at_once_is_one_item() {
    let ris = Ris::new(&[]);
    listening(
        &ris,
        |_| {},
        |address| {
            let senders: Vec<_> = (0..8)
                .map(|_| {
                    std::thread::spawn(move || {
                        let mut stream = connected(address);
                        (0..5).map(|_| send(&mut stream, &orm("NW", "20261129100000"))).collect::<Vec<_>>()
                    })
                })
                .collect();
            for sender in senders {
                assert!(sender.join().unwrap().iter().all(|answer| answer.contains("MSA|AA")));
            }
        },
    );
    assert_eq!(ris.rows().len(), 1);
}

fn the_mapping_is_documented() {
    let mut table = String::from("| line | fields |\n|---|---|\n");
    for (name, fields) in Hl7Map::lines() {
        table.push_str(&format!("| `{name}` | {fields} |\n"));
    }
    crate::util::generated::assert_generated("docs/worklist.md", &[("Mapping", table)]);
}

fn over_tls_a_sender_shows_the_certificate_that_the_settings_demand() {
    let (ours, other) = (Authority::new("ours"), Authority::new("other"));
    // A certificate that is named for one AE title is for DICOM alone.
    let pinned = SelfSigned::as_openssl("PINNED");
    let mut options = ours.options(&ours.identity("NODE"));
    options.pinned.push(ring::digest::digest(&ring::digest::SHA256, &pinned.der).as_ref().try_into().unwrap());
    let tls = Arc::new(Tls::load(&options).unwrap());
    let source: TlsSource = Arc::new(move || tls.hl7());
    let ris = Ris::new(&[]);
    listening_with(
        &ris,
        Some(source),
        |_| {},
        |address| {
            let answer = |identity: Option<&Identity>| {
                let mut stream = tls_stream(address, &ours, identity);
                try_send(&mut stream, &orm("NW", "20261129100000")).ok()
            };
            assert_eq!(answer(None), None, "no certificate");
            assert_eq!(answer(Some(&other.identity("RIS"))), None, "another authority");
            assert_eq!(answer(Some(&pinned.identity)), None, "a certificate of an AE title");
            assert!(ris.rows().is_empty());
            assert!(answer(Some(&ours.identity("RIS"))).unwrap().contains("MSA|AA|MSG1"));
            // Without TLS nothing is taken.
            let mut plain = connected(address);
            assert!(try_send(&mut plain, &orm("NW", "20261129100000").replace("ACC1", "ACC2")).is_err());
        },
    );
    assert_eq!(only(ris.open()).value(WorklistColumn::AccessionNumber), "ACC1");
}

fn a_start_that_is_no_date_never_becomes_one_of_today() {
    let ris = Ris::new(&[]);
    let starting = |start: &str| orm("NW", "20261129100000").replace("209912311530", start);
    for start in ["20261399", "next week", "202612"] {
        let (code, text) = ris.refuse(&starting(start));
        assert_eq!(code, AckCode::Error, "{text}");
        assert!(text.contains("Scheduled Procedure Step Start Date") && !text.contains(start), "{text}");
    }
    assert!(ris.rows().is_empty());
    assert!(!ris.reader().worklist_problems().unwrap().is_empty());
    ris.accept(&starting("2099-12-30"));
    assert_eq!(only(ris.open()).value(WorklistColumn::StartDate), "20991230");
    // A message about what has begun does not fail for its start.
    ris.accept(&starting("20261399").replace("ORC|NW|PL1^RIS|FI1^RIS||SC", "ORC|SC|PL1^RIS|FI1^RIS||IP"));
    assert_eq!(only(ris.rows()).value(WorklistColumn::StartDate), "20991230");
}

with_each_index! {
    a_start_that_is_no_date_never_becomes_one_of_today,
    an_order_becomes_an_item_by_the_mapping_of_ihe,
    the_representations_of_a_name_are_its_component_groups,
    the_same_order_is_one_item_and_changes_and_is_cancelled,
    a_cancellation_that_overtakes_its_order_wins,
    what_an_order_lacks_stays_when_it_comes_again,
    attributes_that_a_message_omits_stay_and_empty_ones_go,
    each_imaging_procedure_control_is_a_step,
    a_patient_is_corrected_and_merged,
    weight_and_height_come_from_the_observations_that_name_them,
    a_weight_can_come_from_another_field,
    what_cannot_be_used_is_refused_with_its_reason_and_listed,
    any_line_of_the_mapping_can_be_replaced,
    a_message_over_the_network_is_there_when_it_is_acknowledged,
    bad_senders_harm_nobody,
    few_bytes_that_are_no_message_are_listed_too,
    the_acknowledgment_of_a_message_that_cannot_be_read_names_it,
    only_senders_of_the_settings_may_send,
    the_same_order_from_two_senders_at_once_is_one_item,
    the_mapping_is_documented,
    over_tls_a_sender_shows_the_certificate_that_the_settings_demand,
}
