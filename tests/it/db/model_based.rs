//! Random scans, arrivals and removals. Afterwards the index equals a new one made of the files
//! that exist then.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::PathBuf;

use dcmdex::db::{Admin, Arrivals, Correction, KnownLocation, ScanLedger, Search, Stored};
use dcmdex::model::attribute::{ATTRIBUTES, AttributeId, AttributeId::*};
use dcmdex::model::checksum::Checksum;
use dcmdex::model::level::QueryRetrieveLevel::{Image, Series, Study};
use dcmdex::model::location::Place;
use dcmdex::model::record::{Common, InstanceRecord};
use proptest::prelude::*;
use rusqlite::Connection;
use rusqlite::types::Value;

use super::engines::{Engine, Sqlite, stored};
use super::*;

/// Values of an object. There are few of each, so that objects agree and disagree in all ways.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Content {
    instance: u8,
    series: u8,
    study: u8,
    patient: u8,
    /// Name, birth date and sex of the patient, from [`PEOPLE`].
    person: u8,
    /// Value of one attribute at each level. 0 means none.
    said: [u8; 4],
    size: u8,
}

/// Patient values of objects: none, two people, one of them incomplete, and one with an invalid
/// date.
const PEOPLE: &[[&str; 3]] = &[
    ["", "", ""],
    ["SMITH^ANNE", "19800101", "F"],
    ["MILLER^BOB", "19500101", "M"],
    ["SMITH", "", ""],
    ["MILLER^ROBERT", "1 January 1950", ""],
];

fn content() -> impl Strategy<Value = Content> {
    let said = [0..3_u8, 0..3_u8, 0..3_u8, 0..2_u8];
    (0..6_u8, 0..8_u8, 0..8_u8, 0..12_u8, 0..10_u8, said, 0..2_u8).prop_map(
        |(instance, series, study, patient, person, said, size)| {
            // Mostly each instance has its series, study and patient; sometimes it has another.
            let series = if series < 6 { instance / 2 } else { series - 6 };
            let study = if study < 6 { series / 2 } else { study - 6 };
            // Often several studies have one Patient ID, and then often say other things of the
            // patient.
            let patient = match patient {
                0..3 => study,
                3..6 => 0,
                patient => patient - 6,
            };
            let person = if person < 5 { person } else { study + 1 };
            Content { instance, series, study, patient, person, said, size }
        },
    )
}

impl Content {
    fn uid(&self) -> String {
        Self::uid_of(self.instance)
    }

    pub(super) fn uid_of(instance: u8) -> String {
        // One of them is not valid.
        if instance == 5 { "1.2.3.05".to_owned() } else { format!("1.2.3.{instance}") }
    }

    fn record(&self) -> Box<InstanceRecord> {
        let (study, series) = (format!("1.9.{}", self.study), format!("1.8.{}", self.series));
        // Two patients with an ID, one whose issuer is named, or named otherwise, or not at all,
        // and one without an ID.
        let (patient, issuer) =
            [("A", ""), ("B", ""), ("C", "X"), ("C", "W"), ("C", ""), ("", "")][usize::from(self.patient)];
        let [name, birth_date, sex] = PEOPLE[usize::from(self.person)];
        let text = |said: u8| ["", "b", "aa"][usize::from(said)];
        record(
            &study,
            &series,
            &self.uid(),
            &[
                (PatientID, patient),
                (IssuerOfPatientID, issuer),
                (PatientName, name),
                (PatientBirthDate, birth_date),
                (PatientSex, sex),
                (PatientComments, text(self.said[0])),
                // A folder parts studies by their year.
                (StudyDate, ["", "20240101"][usize::from(self.study % 2)]),
                (StudyDescription, text(self.said[1])),
                (Modality, ["", "CT", "MR"][usize::from(self.said[2])]),
                (InstanceNumber, if self.said[3] == 0 { "1" } else { "2" }),
            ],
        )
    }

    /// The same in the study that its instance always has here.
    fn in_one_study(self) -> Self {
        let series = self.instance / 2;
        Self { series, study: series / 2, ..self }
    }

    fn size(&self) -> u64 {
        1000 + u64::from(self.size)
    }

    /// Returns the file name of a managed object with this content.
    fn own_name(&self) -> String {
        let Self { series, study, patient, said: [a, b, c, d], size, .. } = self;
        format!("{}~{series}{study}{patient}{a}{b}{c}{d}{size}", self.uid())
    }
}

#[derive(Clone, Debug)]
pub(super) enum Step {
    /// Writes or changes a file.
    Write {
        at: u8,
        content: Content,
    },
    /// Replaces a file by something that is not an instance.
    Spoil {
        at: u8,
    },
    /// Removes a file.
    Remove {
        at: u8,
    },
    Move {
        from: u8,
        to: u8,
    },
    Swap {
        one: u8,
        other: u8,
    },
    Copy {
        from: u8,
        to: u8,
    },
    /// Moves all files of a directory.
    MoveDirectory {
        from: u8,
        to: u8,
    },
    /// Scans everything done so far.
    Scan {
        prune: bool,
    },
    /// Receives an object, which is kept completely or as metadata only.
    Receive {
        content: Content,
        keep: bool,
        policy: ReceivePolicy,
    },
    /// Ends the writer and starts another one.
    Restart,
    /// Makes a correction of [`RULES`], or ends it. Only one file has them.
    Correct(u8),
    /// Removes an instance, as an operator does. A folder cannot.
    Withdraw {
        instance: u8,
        takes_objects: bool,
    },
    /// Moves what is to go there to the trash, and brings back all of the newest removal.
    Undo,
}

/// Values of attributes.
type Values = &'static [(AttributeId, &'static str)];

/// Keys and new values of corrections. They follow from each other, and they contradict each other.
const RULES: &[(Values, Values)] = &[
    (&[(PatientID, "A")], &[(PatientID, "B"), (PatientName, "MILLER^BOB")]),
    (&[(PatientID, "C"), (IssuerOfPatientID, "X")], &[(IssuerOfPatientID, "W")]),
    (&[(StudyInstanceUID, "1.9.0")], &[(PatientID, "A"), (PatientBirthDate, "")]),
    (&[(SeriesInstanceUID, "1.8.1")], &[(PatientName, "")]),
    (&[(PatientID, "B"), (PatientSex, "")], &[(PatientSex, "O"), (PatientID, "C")]),
    (&[(StudyInstanceUID, "1.9.1"), (PatientName, "SMITH")], &[(PatientName, "SMITH^ANNE")]),
];

fn rule(at: u8) -> Correction {
    let (keys, values) = RULES[usize::from(at)];
    let owned = |list: Values| list.iter().map(|(id, value)| (*id, (*value).to_owned())).collect();
    Correction::new(owned(keys), owned(values), (i64::from(at), "DCMDEX".to_owned())).unwrap()
}

impl Step {
    /// The same with instances that never change their studies.
    pub(super) fn in_one_study(self) -> Self {
        match self {
            Self::Write { at, content } => Self::Write { at, content: content.in_one_study() },
            Self::Receive { content, keep, policy } => Self::Receive { content: content.in_one_study(), keep, policy },
            other => other,
        }
    }
}

fn policy() -> impl Strategy<Value = ReceivePolicy> {
    let duplicates = vec![DuplicatePolicy::KeepBoth, DuplicatePolicy::KeepFirst, DuplicatePolicy::Replace];
    let known = vec![KnownPolicy::KeepOwn, KnownPolicy::TrustArchive];
    (prop::sample::select(duplicates), prop::sample::select(known))
        .prop_map(|(duplicates, known)| ReceivePolicy { duplicates, known })
}

const FILES: u8 = 9;

pub(super) fn step() -> impl Strategy<Value = Step> {
    let at = || 0..FILES;
    prop_oneof![
        6 => (at(), content()).prop_map(|(at, content)| Step::Write { at, content }),
        1 => at().prop_map(|at| Step::Spoil { at }),
        2 => at().prop_map(|at| Step::Remove { at }),
        2 => (at(), at()).prop_map(|(from, to)| Step::Move { from, to }),
        1 => (at(), at()).prop_map(|(one, other)| Step::Swap { one, other }),
        2 => (at(), at()).prop_map(|(from, to)| Step::Copy { from, to }),
        1 => (0..3_u8, 0..3_u8).prop_map(|(from, to)| Step::MoveDirectory { from, to }),
        5 => any::<bool>().prop_map(|prune| Step::Scan { prune }),
        2 => (content(), any::<bool>(), policy())
            .prop_map(|(content, keep, policy)| Step::Receive { content, keep, policy }),
        1 => Just(Step::Restart),
    ]
}

/// Steps for engines that operators can remove from.
pub(super) fn step_or_correction() -> impl Strategy<Value = Step> {
    prop_oneof![3 => step(), 1 => (0..RULES.len() as u8).prop_map(Step::Correct)]
}

pub(super) fn step_or_removal() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => step(),
        3 => (0..6_u8, any::<bool>()).prop_map(|(instance, takes_objects)| Step::Withdraw { instance, takes_objects }),
        1 => Just(Step::Undo),
    ]
}

/// Steps for engines that operators can do everything with.
pub(super) fn step_or_operation() -> impl Strategy<Value = Step> {
    prop_oneof![6 => step_or_removal(), 1 => (0..RULES.len() as u8).prop_map(Step::Correct)]
}

/// Content of a file. `None` if it is not an instance.
type File = (Option<Content>, i64);

fn directory_of(at: u8) -> String {
    format!("/d{}", at / 3)
}

fn name_of(at: u8) -> OsString {
    format!("f{}", at % 3).into()
}

fn found(at: u8, (content, mtime_ms): &File, known: bool) -> ScannedFile {
    let outcome = match content {
        Some(content) => FileOutcome::Instance(content.record()),
        None => FileOutcome::NotIndexed { kind: NotIndexed::Failed, reason: "not-dicom", detail: String::new() },
    };
    let size = content.as_ref().map_or(7, Content::size);
    ScannedFile { file_name: name_of(at), size, mtime_ms: *mtime_ms, known, reread: false, outcome }
}

/// Makes a record share values with the one before, like records that the scanner reads in
/// sequence.
fn share_memory(record: &mut InstanceRecord, before: &mut Option<Common>) {
    let Some(common) = before else {
        *before = record.share();
        return;
    };
    let mut sharing = InstanceRecord::like(common);
    for attribute in ATTRIBUTES.iter().filter(|attribute| record.value(attribute.id) != common.value(attribute.id)) {
        sharing.set(attribute.id, record.value(attribute.id));
    }
    assert_eq!(sharing, *record);
    *record = sharing;
}

/// Scans everything, as the scanner does.
fn scan(engine: &impl Engine, files: &BTreeMap<u8, File>, prune: bool) {
    let (mut reader, arrivals) = (engine.reader(), engine.arrivals());
    for directory in 0..FILES / 3 {
        let path = PathBuf::from(format!("/d{directory}"));
        let known = reader.directory_files(&path).unwrap();
        let mut unit = scanned(path.to_str().unwrap(), Vec::new());
        let mut there = BTreeSet::new();
        let mut common = None;
        for (&at, file) in files.iter().filter(|(at, _)| *at / 3 == directory) {
            there.insert(name_of(at));
            let mut seen = found(at, file, known.contains_key(&name_of(at)));
            if let FileOutcome::Instance(record) = &mut seen.outcome {
                share_memory(record, &mut common);
            }
            match known.get(&name_of(at)) {
                Some(known) if (known.size, known.mtime_ms) == (seen.size, seen.mtime_ms) => {
                    if known.missing {
                        unit.returned.push(name_of(at));
                    }
                }
                Some(_) | None => unit.files.push(seen),
            }
        }
        for (name, file) in known.iter().filter(|(name, _)| !there.contains(*name)) {
            match (file.is_indexed(), file.missing) {
                (true, true) => {}
                (true, false) => unit.missing.push(name.clone()),
                (false, _) => unit.vanished.push(name.clone()),
            }
        }
        arrivals.scanned(unit).unwrap();
        // What is known of the next directory may depend on this one.
        arrivals.flush().unwrap();
    }
    let roots = (0..FILES / 3).map(|directory| PathBuf::from(format!("/d{directory}"))).collect();
    let missing = arrivals.resolve_missing(roots, Vec::new(), prune).unwrap();
    assert!(!prune || missing == 0);
    arrivals.flush().unwrap();
}

/// Returns everything in an index, in a form that does not depend on the order of arrival.
pub(super) fn dump(index: &Path) -> BTreeMap<&'static str, Vec<Vec<Value>>> {
    #[expect(clippy::disallowed_methods, reason = "the test looks at the tables themselves")]
    let connection = Connection::open(index).unwrap();
    let columns = |level| {
        let own = ATTRIBUTES.iter().filter(|a| a.level == level && a.is_stored());
        own.map(|a| format!("\"{}\"", a.column)).collect::<Vec<_>>().join(", ")
    };
    let own = ATTRIBUTES.iter().filter(|a| a.level == QueryRetrieveLevel::Patient && a.is_stored());
    let patient = own.map(|a| format!("p.{}", a.column)).collect::<Vec<_>>().join(" || '|' || ");
    let queries = [
        (
            "patients",
            format!(
                "SELECT {}, patient_name_norm, identity, values_hash, person FROM patient",
                columns(QueryRetrieveLevel::Patient)
            ),
        ),
        // What came before and after a restart lies in two groups, as two arrivals (docs/adr/0015).
        (
            "patients of instances",
            format!(
                "SELECT {patient}, s.study_instance_uid, e.series_instance_uid, sum(h.instance_count), a.text FROM instance_group h \
                 JOIN study_series e ON e.id = h.series JOIN study s ON s.id = e.study \
                 JOIN patient p ON p.id = ifnull(h.patient, s.patient) LEFT JOIN asserted_values a ON a.id = h.patient_values \
                 GROUP BY p.id, e.id, a.id"
            ),
        ),
        (
            "two people",
            format!(
                "SELECT t.patient_id, t.issuer_of_patient_id, {patient}, {} FROM two_people t JOIN patient p ON p.id = t.one \
                 JOIN patient o ON o.id = t.other",
                patient.replace("p.", "o.")
            ),
        ),
        (
            "studies",
            format!(
                "SELECT {patient}, {}, series_count, instance_count, modalities_in_study, sop_classes_in_study \
                 FROM study s JOIN patient p ON p.id = s.patient",
                columns(Study)
            ),
        ),
        (
            "further patients",
            format!(
                "SELECT s.study_instance_uid, {patient} FROM study_patient x JOIN study s ON s.id = x.study \
                 JOIN patient p ON p.id = x.patient"
            ),
        ),
        (
            "series",
            format!(
                "SELECT s.study_instance_uid, {}, e.instance_count FROM study_series e JOIN study s ON s.id = e.study",
                columns(Series)
            ),
        ),
        ("instances", format!("SELECT study_instance_uid, series_instance_uid, {}, path, size, mtime FROM instances", columns(Image))),
        (
            "copies",
            "SELECT s.study_instance_uid, e.series_instance_uid, CASE typeof(c.uid_suffix) WHEN 'text' THEN c.uid_suffix ELSE CASE WHEN hex(c.uid_suffix) GLOB 'B*' \
             THEN replace(replace(substr(hex(c.uid_suffix), 2), 'A', '.'), 'F', '') \
             ELSE h.uid_prefix || replace(replace(hex(c.uid_suffix), 'A', '.'), 'F', '') END END, d.path, c.file_name, c.size, c.mtime_ms, \
             c.differs, c.record FROM copy c JOIN instance_group h ON h.id = c.instance_group JOIN study_series e ON e.id = h.series \
             JOIN study s ON s.id = e.study JOIN directory d ON d.id = c.directory"
                .to_owned(),
        ),
        ("not indexed", "SELECT d.path, f.file_name, f.size, f.reason FROM unindexed_file f JOIN directory d ON d.id = f.directory".to_owned()),
        (
            "conflicts",
            "SELECT c.kind, c.sop_instance_uid, d.path, c.file_name FROM conflict c JOIN directory d ON d.id = c.directory \
             WHERE c.kind = 'invalid-uid'"
                .to_owned(),
        ),
        (
            "missing",
            "SELECT d.path, m.file_name FROM missing_file m JOIN directory d ON d.id = m.directory".to_owned(),
        ),
        // Nothing is left behind.
        ("look-ups", "SELECT hash FROM uid_lookup UNION ALL SELECT hash FROM uid_lookup_recent".to_owned()),
        (
            "what is said",
            "SELECT text FROM asserted_values WHERE id NOT IN (SELECT patient_values FROM instance_group WHERE patient_values IS NOT NULL \
             UNION SELECT study_values FROM instance_group WHERE study_values IS NOT NULL \
             UNION SELECT series_values FROM instance_group WHERE series_values IS NOT NULL)"
                .to_owned(),
        ),
    ];
    queries
        .into_iter()
        .map(|(title, sql)| {
            let mut statement = connection.prepare(&sql).unwrap();
            let width = statement.column_count();
            let rows = statement
                .query_map([], |row| (0..width).map(|at| row.get(at)).collect::<Result<Vec<Value>, _>>())
                .unwrap();
            let mut rows: Vec<_> = rows.map(Result::unwrap).collect();
            rows.sort_by_key(|row| format!("{row:?}"));
            (title, rows)
        })
        .collect()
}

/// The existing files and objects, and their index.
pub(super) struct World<E> {
    pub(super) engine: E,
    files: BTreeMap<u8, File>,
    /// The last state of each place that a scan has seen.
    seen: BTreeMap<u8, File>,
    /// The managed objects.
    managed: BTreeSet<Content>,
    metadata: BTreeMap<u8, Content>,
    time: i64,
}

impl<E: Engine> World<E> {
    pub(super) fn new() -> Self {
        let (files, seen) = (BTreeMap::new(), BTreeMap::new());
        let (managed, metadata) = (BTreeSet::new(), BTreeMap::new());
        Self { engine: E::create(), files, seen, managed, metadata, time: 5_000 }
    }

    fn write(&mut self, at: u8, content: Option<Content>) {
        self.time += 1;
        self.files.insert(at, (content, self.time));
    }

    pub(super) fn take(&mut self, step: Step) {
        match step {
            Step::Write { at, content } => self.write(at, Some(content)),
            Step::Spoil { at } => self.write(at, None),
            Step::Remove { at } => _ = self.files.remove(&at),
            Step::Move { from, to } => {
                if let Some(file) = self.files.remove(&from) {
                    self.files.insert(to, file);
                }
            }
            Step::Swap { one, other } => {
                let (first, second) = (self.files.remove(&one), self.files.remove(&other));
                self.files.extend(first.map(|file| (other, file)));
                self.files.extend(second.map(|file| (one, file)));
            }
            Step::Copy { from, to } => {
                if let Some((content, _)) = self.files.get(&from).cloned() {
                    self.write(to, content);
                }
            }
            Step::MoveDirectory { from, to } if from != to => {
                for name in 0..3 {
                    self.files.remove(&(to * 3 + name));
                    if let Some(file) = self.files.remove(&(from * 3 + name)) {
                        self.files.insert(to * 3 + name, file);
                    }
                }
            }
            Step::MoveDirectory { .. } => {}
            Step::Scan { prune } => self.scan(prune),
            Step::Receive { content, keep, policy } => self.receive(content, keep, policy),
            Step::Restart => self.engine.restart(),
            Step::Correct(at) => self.engine.toggle(rule(at)),
            Step::Withdraw { instance, takes_objects } => {
                self.time += 1;
                let (arrivals, uid) = (self.engine.arrivals(), Content::uid_of(instance));
                let removal = arrivals.begin_removal(self.time, takes_objects).unwrap();
                arrivals.remove(removal, takes_objects, vec![uid]).unwrap();
                self.managed.retain(|content| content.instance != instance);
                self.metadata.remove(&instance);
            }
            Step::Undo => self.undo(),
        }
    }

    /// Brings back what the newest removal took, as far as no object has to be read again.
    fn undo(&mut self) {
        let (mut reader, arrivals) = (self.engine.reader(), self.engine.arrivals());
        arrivals.trashed(reader.files_for_trash(None, 99).unwrap()).unwrap();
        let Some(newest) = reader.removals().unwrap().first().copied() else { return };
        let instances = reader.instances_of_removal(newest.id, "", 99).unwrap();
        arrivals.lift_removed(instances.into_iter().map(|(uid, _)| uid).collect()).unwrap();
        arrivals.forget_removed(reader.files_of_removal(newest.id, "", 99).unwrap()).unwrap();
        arrivals.end_removal(newest.id).unwrap();
    }

    fn scan(&mut self, prune: bool) {
        scan(&self.engine, &self.files, prune);
        self.seen.extend(self.files.clone());
    }

    fn store(&self, content: &Content, keep: bool, policy: ReceivePolicy, compared: Compared) -> Stored {
        let mut place = match keep {
            true => location(Place::Managed, "/objects", &content.own_name()),
            false => location(Place::MetadataOnly, "", ""),
        };
        place.size = content.size();
        let checksum = keep.then(|| Checksum::of(content.own_name().as_bytes()));
        let received = Received { checksum, policy, compared, ..Received::new(content.record(), place) };
        stored(&self.engine.arrivals(), received)
    }

    /// Returns the file at a location, if it is as the index knows it.
    fn file_at(&self, location: &Location) -> Option<&Content> {
        let at = self.files.keys().find(|&&at| location.path() == Some(path_of(at)))?;
        let (content, mtime_ms) = &self.files[at];
        let content = content.as_ref()?;
        ((content.size(), *mtime_ms) == (location.size, location.mtime_ms)).then_some(content)
    }

    /// Receives an object as the node does.
    fn receive(&mut self, content: Content, keep: bool, policy: ReceivePolicy) {
        let known = self.engine.reader().known_locations(&content.uid()).unwrap();
        let is_object = |known: &KnownLocation| known.location.place != Place::MetadataOnly;
        if !keep && policy.duplicates == DuplicatePolicy::Replace && known.iter().any(is_object) {
            // A description that takes the place of an object: what an index has then depends on
            // what was there before.
            return;
        }
        let is_known = self.managed.contains(&content);
        let compared = match self.managed.iter().any(|managed| managed.instance == content.instance) {
            _ if !keep => Compared::Nothing,
            _ if is_known => Compared::Same,
            true => Compared::Other,
            false => Compared::Nothing,
        };
        let mut stored = self.store(&content, keep, policy, compared);
        let first = stored.first.map(|first| first.location);
        let in_place = first.filter(|first| first.place == Place::InPlace);
        match in_place.map(|first| self.file_at(&first).cloned()) {
            Some(None) => stored = self.store(&content, keep, policy, Compared::FirstIsGone),
            Some(Some(first)) if matches!(stored.outcome, StoreOutcome::Identical { uncompared: Some(_) }) => {
                // The size is that of the file, whose meta information is another.
                let is_same = Content { size: 0, ..first } == Content { size: 0, ..content.clone() };
                let compared = if is_same { Compared::FirstIsNotOther } else { Compared::FirstIsOther };
                stored = self.store(&content, keep, policy, compared);
            }
            Some(Some(_)) | None => {}
        }
        self.received(content, keep, &stored.outcome);
    }

    fn received(&mut self, content: Content, keep: bool, outcome: &StoreOutcome) {
        let instance = content.instance;
        if let StoreOutcome::Replaced { previous } = outcome {
            self.managed.retain(|managed| !previous.contains(&PathBuf::from("/objects").join(managed.own_name())));
        }
        let is_taken = matches!(
            outcome,
            StoreOutcome::New | StoreOutcome::Completed | StoreOutcome::KeptCopy { .. } | StoreOutcome::Replaced { .. }
        );
        if keep && is_taken {
            self.managed.insert(content);
            self.metadata.remove(&instance);
        } else if !keep && matches!(outcome, StoreOutcome::Replaced { .. }) {
            self.metadata.insert(instance, content);
        } else if !keep && *outcome != StoreOutcome::KeptFirst {
            let has_own = self.managed.iter().any(|managed| managed.instance == instance);
            if !has_own {
                self.metadata.entry(instance).or_insert(content);
            }
        }
    }
}

impl World<Sqlite> {
    /// Builds an index of the current files, and of missing files that the index kept. If several
    /// files hold an instance, the first one of the old index comes first, because that depends on
    /// the past.
    fn anew(&self) -> Self {
        let contents = dump(&self.engine.path());
        let paths = |title: &str, of: &dyn Fn(&[Value]) -> String| -> BTreeSet<String> {
            contents[title].iter().map(|row| of(row)).collect()
        };
        let text = |value: &Value| match value {
            Value::Text(text) => text.clone(),
            _ => String::new(),
        };
        let first = paths("instances", &|row| text(&row[row.len() - 3]));
        let missing = paths("missing", &|row| format!("{}/{}", text(&row[0]), text(&row[1])));
        let mut anew = Self::new();
        let rules = self.engine.reader().corrections().unwrap();
        rules.into_iter().filter(|rule| rule.undone_ms.is_none()).for_each(|rule| anew.engine.toggle(rule));
        let is_first = |content: &Content| first.contains(&format!("/objects/{}", content.own_name()));
        let (own_firsts, own_others): (Vec<_>, Vec<_>) = self.managed.iter().partition(|content| is_first(content));
        for (contents, keep) in [(own_firsts, true), (self.metadata.values().collect(), false)] {
            for content in contents {
                anew.receive(content.clone(), keep, ReceivePolicy::default());
            }
        }
        let mut files = self.files.clone();
        let name = |at: u8| path_of(at).to_str().unwrap().to_owned();
        let gone: Vec<u8> = (0..FILES).filter(|&at| missing.contains(&name(at))).collect();
        files.extend(gone.iter().map(|at| (*at, self.seen[at].clone())));
        let (firsts, others): (Vec<_>, Vec<_>) = files.iter().partition(|(at, _)| first.contains(&name(**at)));
        for (&at, file) in firsts.into_iter().chain(others) {
            anew.engine.arrivals().scanned(scanned(&directory_of(at), vec![found(at, file, false)])).unwrap();
        }
        anew.engine.arrivals().flush().unwrap();
        anew.files = files.clone();
        for content in own_others {
            anew.receive(content.clone(), true, ReceivePolicy::default());
        }
        for at in gone {
            files.remove(&at);
        }
        scan(&anew.engine, &files, false);
        anew
    }
}

fn path_of(at: u8) -> PathBuf {
    PathBuf::from(directory_of(at)).join(name_of(at))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(32), max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn the_index_is_what_a_new_one_would_be(steps in prop::collection::vec(step(), 1..30)) {
        as_anew(steps)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(32), max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn a_corrected_index_is_what_a_new_one_with_these_corrections_would_be(
        steps in prop::collection::vec(step_or_correction(), 1..40)
    ) {
        as_anew(steps)?;
    }
}

/// Tests whether the result of a history equals a new index.
fn as_anew(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let mut world = World::<Sqlite>::new();
    for step in steps {
        world.take(step);
    }
    for prune in [false, true] {
        world.scan(prune);
        let (found, expected) = (dump(&world.engine.path()), dump(&world.anew().engine.path()));
        for (title, rows) in &found {
            prop_assert_eq!(rows, &expected[title], "{}", title);
        }
        assert_sound(&world.engine.path());
    }
    Ok(())
}

/// Returns an instance with an invalid UID and the content of this number.
fn version(size: u8) -> Content {
    Content { instance: 5, series: 2, study: 1, patient: 1, person: 1, said: [0; 4], size }
}

/// Returns another instance.
fn another() -> Content {
    Content { instance: 0, series: 0, study: 0, patient: 0, person: 1, said: [0; 4], size: 0 }
}

/// Starts with two files of an instance that contradict each other, the first at 6 and the second
/// at 1. Then it runs these steps.
fn as_anew_after_contradiction(steps: &[Step]) {
    let mut history = vec![
        Step::Write { at: 6, content: version(0) },
        Step::Scan { prune: false },
        Step::Write { at: 1, content: version(1) },
        Step::Scan { prune: false },
    ];
    history.extend_from_slice(steps);
    as_anew(history).unwrap();
}

#[test]
fn a_file_that_is_gone_is_dropped_where_a_changed_file_holds_the_same() {
    as_anew_after_contradiction(&[Step::Move { from: 1, to: 6 }]);
}

#[test]
fn a_file_that_is_gone_is_dropped_where_a_copy_that_holds_the_same_becomes_the_first() {
    as_anew_after_contradiction(&[
        Step::Copy { from: 1, to: 3 },
        Step::Scan { prune: false },
        Step::Remove { at: 1 },
        Step::Scan { prune: false },
        Step::Write { at: 6, content: another() },
    ]);
}

#[test]
fn of_two_files_that_are_gone_and_held_the_same_one_is_kept() {
    as_anew_after_contradiction(&[
        Step::Copy { from: 1, to: 3 },
        Step::Scan { prune: false },
        Step::Remove { at: 1 },
        Step::Remove { at: 3 },
        Step::Scan { prune: false },
        Step::Write { at: 6, content: another() },
    ]);
}

#[test]
fn a_file_that_is_gone_goes_before_what_was_received_without_its_object() {
    as_anew_after_contradiction(&[
        Step::Receive { content: version(1), keep: false, policy: ReceivePolicy::default() },
        Step::Remove { at: 1 },
        Step::Scan { prune: false },
        Step::Write { at: 6, content: another() },
    ]);
}

/// Number of cases. `DCMDEX_CASES` sets it for a longer run.
pub(crate) fn cases(usual: u32) -> u32 {
    #[expect(clippy::disallowed_methods, reason = "a wish of who runs the test")]
    std::env::var("DCMDEX_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    /// Objects that disagree about their patient, study and series give the same answers in any
    /// order.
    #[test]
    fn the_order_of_arrival_does_not_show(
        said in prop::collection::vec(("[AB]", "[a-c]{0,3}", "[0-9]{0,2}", "(CT|MR)?", 0..PEOPLE.len()), 2..8),
        order in any::<prop::sample::Index>(),
    ) {
        let content = |turn: usize| {
            let dir = tempfile::tempdir().unwrap();
            let index = dir.path().join("index.db");
            let writer = writer(&index);
            for step in 0..said.len() {
                let number = (step + turn) % said.len();
                let (patient, description, date, modality, person) = &said[number];
                let [name, birth_date, sex] = PEOPLE[*person];
                let values = [
                    (PatientID, patient.as_str()),
                    (PatientName, name),
                    (PatientBirthDate, birth_date),
                    (PatientSex, sex),
                    (StudyDescription, description),
                    (SeriesDate, date),
                    (Modality, modality),
                    (InstanceNumber, "1"),
                ];
                let uid = format!("1.2.3.{number}");
                let place = location(Place::Managed, "/objects", &uid);
                // Two studies, one of them with two series.
                let (study, series) = ([["1.2", "1.2.1"], ["1.2", "1.2.2"], ["1.3", "1.3.1"]])[number % 3].into();
                assert_eq!(store(&writer, record(study, series, &uid, &values), place), StoreOutcome::New);
            }
            drop(writer);
            assert_sound(&index);
            let patient = [PatientID, PatientName, PatientBirthDate, PatientSex];
            let of_study = [&patient[..], &[StudyInstanceUID, StudyDescription, ModalitiesInStudy]].concat();
            let of_series = [&of_study[..], &[SeriesInstanceUID, SeriesDate, Modality]].concat();
            let of_instance = [&of_series[..], &[SOPInstanceUID]].concat();
            let of_patient =
                [&patient[..], &[NumberOfPatientRelatedStudies, NumberOfPatientRelatedInstances]].concat();
            let mut answers = find(&index, &request(QueryRetrieveLevel::Patient, &of_patient));
            for (level, columns) in [(Study, &of_study), (Series, &of_series), (Image, &of_instance)] {
                let mut found = find(&index, &request(level, columns));
                // Studies of one day come in the order of their arrival.
                found.sort();
                answers.extend(found);
            }
            let status = Reader::open(&index).unwrap().status().unwrap();
            (answers, status.conflicts, status.patients)
        };
        prop_assert_eq!(content(0), content(order.index(said.len())));
    }
}
