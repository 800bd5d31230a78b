//! The DICOMweb plugin of Orthanc: as a client of dcmdex, and beside it on the same questions.
//!
//! Every difference in the answers is in a list, with the clause of PS3.18 that explains it. Any
//! other difference fails the test. A listed difference that no longer occurs fails it too.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::util::http;
use crate::util::peers::{self, Server, free_port, orthanc};
use crate::web::{TestWeb, archive};

const PLUGIN: &str = "/usr/share/orthanc/plugins/libOrthancDicomWeb.so";

const CT: &str = "2.25.222357566655179818184128349088455852959";

/// Orthanc with its plugin and these objects.
struct Orthanc {
    address: SocketAddr,
    _server: Server,
    _directory: TempDir,
}

impl Orthanc {
    /// `None` if Orthanc or the plugin is not installed.
    fn start(files: &[PathBuf], servers: Value) -> Option<Self> {
        let mut command = orthanc()?;
        peers::program(PLUGIN)?;
        let directory = TempDir::new().unwrap();
        let (web, dicom) = (free_port(), free_port());
        let settings = json!({
            "HttpPort": web, "DicomPort": dicom, "AuthenticationEnabled": false, "RemoteAccessAllowed": false,
            "StorageDirectory": directory.path().join("storage"), "IndexDirectory": directory.path().join("storage"),
            "Plugins": [PLUGIN], "DicomWeb": { "Enable": true, "Root": "/dicom-web/", "Servers": servers },
        });
        let file = directory.path().join("orthanc.json");
        fs::write(&file, settings.to_string()).unwrap();
        let server = Server::start(command.arg(&file), &[web]);
        let orthanc = Self { address: ([127, 0, 0, 1], web).into(), _server: server, _directory: directory };
        for file in files {
            http::request(orthanc.address, "POST", "/instances", &[], &fs::read(file).unwrap()).expect(200);
        }
        Some(orthanc)
    }

    fn get(&self, path: &str) -> http::Answer {
        http::request(self.address, "GET", path, &[("Accept", "application/dicom+json")], b"")
    }

    /// Sends an order to the plugin's client side.
    #[track_caller]
    fn order(&self, path: &str, order: &Value) -> http::Answer {
        let path = format!("/dicom-web/servers/dcmdex/{path}");
        http::request(self.address, "POST", &path, &[], order.to_string().as_bytes()).expect(200)
    }

    fn count(&self) -> u64 {
        self.get("/statistics").json()["CountInstances"].as_u64().unwrap()
    }
}

/// The objects of the bundled folder that follow the standard, in a folder of their own.
fn objects(folder: &Path) -> Vec<PathBuf> {
    fn copy(from: &Path, to: &Path, files: &mut Vec<PathBuf>) {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
            let (source, target) = (entry.path(), to.join(entry.file_name()));
            if source.is_file() {
                fs::copy(&source, &target).unwrap();
                files.push(target);
            } else if entry.file_name() != "odd" {
                copy(&source, &target, files);
            }
        }
    }
    let mut files = Vec::new();
    copy(&archive(), folder, &mut files);
    files.sort();
    files
}

#[test]
fn orthanc_stores_searches_and_retrieves() {
    let folder = TempDir::new().unwrap();
    let files = objects(folder.path());
    let web = TestWeb::storing(|_| {}, None);
    let servers = json!({ "dcmdex": { "Url": format!("http://{}/dicom-web/", web.address) } });
    let Some(orthanc) = Orthanc::start(&files, servers) else { return };
    let held = orthanc.count();
    let studies = orthanc.get("/studies").json();
    let stored = orthanc.order("stow", &json!({ "Resources": studies, "Synchronous": true })).json();
    assert!(stored.get("HttpError").is_none(), "{stored}");
    let instances = web.get("/instances").expect(200).json();
    assert_eq!(instances.as_array().unwrap().len() as u64, held);
    let found = |uri: &str, arguments: Value| {
        let found = orthanc.order("qido", &json!({ "Uri": uri, "Arguments": arguments })).json();
        found.as_array().unwrap().len()
    };
    assert_eq!(found("/studies", json!({})), 6);
    assert_eq!(found("/studies", json!({ "PatientID": "HD-1001" })), 2);
    assert_eq!(found("/studies", json!({ "PatientName": "Müller*" })), 2);
    assert_eq!(found("/series", json!({ "Modality": "CT" })), 2);
    // It gets back what it gave away.
    let one = studies[0].as_str().unwrap();
    let uid = orthanc.get(&format!("/studies/{one}")).json()["MainDicomTags"]["StudyInstanceUID"].clone();
    http::request(orthanc.address, "DELETE", &format!("/studies/{one}"), &[], b"").expect(200);
    assert!(orthanc.count() < held);
    let retrieved = orthanc.order("retrieve", &json!({ "Resources": [{ "Study": uid }], "Synchronous": true })).json();
    assert!(retrieved["ReceivedInstancesCount"].as_str().is_some_and(|count| count != "0"), "{retrieved}");
    assert_eq!(orthanc.count(), held);
}

/// A question: its name, its path, the differences, and the clause of PS3.18 and our reason for
/// them.
type Question = (&'static str, String, &'static [&'static str], &'static str);

/// Attributes that differ in each answer. Ours are in UTF-8 (F.2: (0008,0005) is `ISO_IR 192`),
/// theirs in the character set of their configuration. Retrieve URLs are those of each node.
/// Instance Availability and Timezone Offset From UTC are in Tables 10.6.3-3 to 5; Orthanc leaves
/// them out.
const EVERYWHERE: [&str; 4] = ["00080005", "00080056", "00080201", "00081190"];

const NOT_DECODED: &str = "8.3.4.1: values are percent-encoded, and Orthanc does not decode them";
const NO_CONTENT: &str = "10.6.3: no results are 204";
const OWN_ORDER: &str = "8.3.4.4: the order is the server's; ours is by date, theirs by number of its row";
/// Orthanc keeps names in the character set of its configuration, where some letters are lost.
const NAMES: &str = "F.2.2: the groups of a name; Orthanc loses letters that ISO 8859-1 has not";
const LEVELS: &str =
    "Tables 10.6.3-3 to 5: what a search of all studies adds, and one of a study does not; Orthanc adds other ones";

fn questions() -> Vec<Question> {
    let of_study = |rest: &str| format!("/studies/{CT}{rest}");
    let series = format!("/studies/{CT}/series/{CT}.1/instances");
    vec![
        ("all studies", "/studies".into(), &["other: 00100010"], NAMES),
        ("patient by ID", "/studies?PatientID=HD-1001".into(), &[], ""),
        ("key by tag", "/studies?00100020=HD-1001".into(), &[], ""),
        ("pattern in an ID", "/studies?PatientID=?D-1*".into(), &[], ""),
        ("percent-encoded pattern", "/studies?PatientID=%3FD-1%2A".into(), &["2 only ours"], NOT_DECODED),
        ("name in other case", "/studies?PatientName=smith*".into(), &[], ""),
        (
            "family name alone",
            "/studies?PatientName=Smith".into(),
            &["1 only ours"],
            "PS3.4 C.2.2.2.1 leaves the matching of names to the server; people type a family name",
        ),
        ("name with accents", "/studies?PatientName=M%C3%BCller*".into(), &["2 only ours"], NOT_DECODED),
        (
            "name without accents",
            "/studies?PatientName=MULLER*".into(),
            &["2 only ours"],
            "PS3.4 C.2.2.2.1: names may be matched without regard to accents",
        ),
        ("ideographic name", "/studies?PatientName=*%E5%B1%B1%E7%94%B0*".into(), &["1 only ours"], NOT_DECODED),
        (
            "fuzzy matching",
            "/studies?PatientName=smyth&fuzzymatching=true".into(),
            &["1 only ours"],
            "8.3.4.2: Orthanc passes the parameter over, without a Warning",
        ),
        ("date", "/studies?StudyDate=20240105".into(), &["other: 00100010"], NAMES),
        ("date range", "/studies?StudyDate=20240101-20240229".into(), &["other: 00100010"], NAMES),
        (
            "date and time",
            "/studies?StudyDate=20230101-20241231&StudyTime=080000-110000".into(),
            &["2 only ours", "other: 00100010"],
            "8.3.4.1.1: date and time are matched as one",
        ),
        (
            "time to the minute",
            "/studies?StudyTime=1015".into(),
            &["1 only ours"],
            "PS3.4 C.2.2.2.1: times are compared by their meaning",
        ),
        ("accession number", "/studies?AccessionNumber=A2023-101".into(), &[], ""),
        ("list of UIDs", format!("/studies?StudyInstanceUID={CT},1.2.3"), &[], ""),
        ("modality in study", "/studies?ModalitiesInStudy=CT".into(), &[], ""),
        ("two modalities", "/studies?ModalitiesInStudy=CT,MR".into(), &["other: 00100010"], NAMES),
        (
            "a key that is spelt wrong",
            "/studies?PatientNam=x".into(),
            &["status 400, theirs 200", "6 only theirs"],
            "8.3.4.1: keys are keywords; answering with everything hides the fault",
        ),
        ("limit", "/studies?limit=2".into(), &["2 only ours", "2 only theirs"], OWN_ORDER),
        ("limit and offset", "/studies?limit=2&offset=4".into(), &["2 only ours", "2 only theirs"], OWN_ORDER),
        ("behind the end", "/studies?offset=100".into(), &["status 204, theirs 200"], NO_CONTENT),
        (
            "a limit that is none",
            "/studies?limit=-1".into(),
            &["status 400, theirs 500"],
            "8.5: the fault is the client's",
        ),
        ("nothing", "/studies?PatientID=NOBODY".into(), &["status 204, theirs 200"], NO_CONTENT),
        ("no such study", "/studies/1.2.3/series".into(), &["status 204, theirs 200"], NO_CONTENT),
        ("empty value", "/studies?AccessionNumber=".into(), &["other: 00100010"], NAMES),
        ("includefield", format!("/studies?StudyInstanceUID={CT}&includefield=StudyDescription"), &[], ""),
        (
            "series of all studies",
            "/series?Modality=CT".into(),
            &["not theirs: 00080061 00201206 00201208 00400244 00400245 00400275"],
            LEVELS,
        ),
        (
            "series of a study",
            of_study("/series"),
            &[
                "not theirs: 00400244 00400245 00400275",
                "not ours: 00080020 00080030 00080050 00080090 00100010 00100020 00100030 00100040 00200010",
            ],
            LEVELS,
        ),
        (
            "instances of a study",
            of_study("/instances"),
            &[
                "not theirs: 00201209 00280008 00400244 00400245 00400275",
                "not ours: 00080020 00080030 00080050 00080090 00100010 00100020 00100030 00100040 00200010",
            ],
            LEVELS,
        ),
        (
            "instance of a series by number",
            format!("{series}?InstanceNumber=3"),
            &[
                "not theirs: 00280008",
                "not ours: 00080020 00080030 00080050 00080060 00080090 0008103E 00100010 00100020 00100030 00100040 00200010 \
                 00200011",
            ],
            LEVELS,
        ),
        (
            "sequence",
            "/series?RequestAttributesSequence.ScheduledProcedureStepID=STEP1".into(),
            &["9 only theirs", "not theirs: 00080061 00201206 00201208 00400244 00400245 00400275"],
            "8.3.4.1: a path into a sequence is a key; Orthanc passes it over",
        ),
    ]
}

/// The entities of an answer by their UID.
fn entities(answer: &http::Answer, path: &str) -> BTreeMap<String, Value> {
    let resource = path.split('?').next().unwrap().rsplit('/').next().unwrap();
    let uid = match resource {
        "studies" => "0020000D",
        "series" => "0020000E",
        _ => "00080018",
    };
    if answer.status != 200 {
        return BTreeMap::new();
    }
    let all = answer.json().as_array().cloned().unwrap();
    all.into_iter().map(|entity| (entity[uid]["Value"][0].as_str().unwrap().to_owned(), entity)).collect()
}

/// What differs between the answers to a question.
fn differences(ours: &http::Answer, theirs: &http::Answer, path: &str) -> Vec<String> {
    let mut told = Vec::new();
    if ours.status != theirs.status {
        told.push(format!("status {}, theirs {}", ours.status, theirs.status));
    }
    let (ours, theirs) = (entities(ours, path), entities(theirs, path));
    for (who, one, other) in [("ours", &ours, &theirs), ("theirs", &theirs, &ours)] {
        let only = one.keys().filter(|uid| !other.contains_key(*uid)).count();
        if only > 0 {
            told.push(format!("{only} only {who}"));
        }
    }
    let mut kinds = [("not theirs", BTreeSet::new()), ("not ours", BTreeSet::new()), ("other", BTreeSet::new())];
    for (uid, entity) in &ours {
        let Some(other) = theirs.get(uid) else { continue };
        let (one, other) = (entity.as_object().unwrap(), other.as_object().unwrap());
        for tag in one.keys().chain(other.keys()).filter(|tag| !EVERYWHERE.contains(&tag.as_str())) {
            let kind = match (one.get(tag), other.get(tag)) {
                (Some(_), None) => 0,
                (None, _) => 1,
                (Some(one), Some(other)) if one.get("Value") != other.get("Value") => 2,
                _ => continue,
            };
            kinds[kind].1.insert(tag.clone());
        }
    }
    for (kind, tags) in kinds.into_iter().filter(|(_, tags)| !tags.is_empty()) {
        told.push(format!("{kind}: {}", tags.into_iter().collect::<Vec<_>>().join(" ")));
    }
    told
}

#[test]
fn orthanc_answers_the_same_but_for_what_is_listed() {
    let folder = TempDir::new().unwrap();
    let files = objects(folder.path());
    let Some(orthanc) = Orthanc::start(&files, json!({})) else { return };
    let web = TestWeb::with(folder.path(), |_| {}, None);
    let mut unlisted = Vec::new();
    for (name, path, accepted, why) in questions() {
        let theirs = orthanc.get(&format!("/dicom-web{path}"));
        let found = differences(&web.get(&path), &theirs, &path);
        if found != accepted || accepted.is_empty() != why.is_empty() {
            unlisted.push(format!("{name}: {found:?}, listed {accepted:?}"));
        }
    }
    assert!(unlisted.is_empty(), "{unlisted:#?}");
}
