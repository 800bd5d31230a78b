//! The word index of patient names. A key finds the same names by it as by testing every name.

use std::collections::BTreeMap;

use dcmdex::db::Arrivals;
use dcmdex::model::attribute::AttributeId::*;
use dcmdex::model::find::MatchingKey;
use dcmdex::model::level::QueryRetrieveLevel::{Patient, Study};
use dcmdex::model::matching::NameMatching;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;

const FAMILY: &[&str] = &[
    "Smith",
    "SMYTH",
    "Smithson",
    "Blacksmith",
    "Meier",
    "Meyer-Maier",
    "van der Berg",
    "O'Brien",
    "Müller",
    "Mueller",
    "Łódzki",
    "Straße",
    "Иванов",
    "Παπαδόπουλος",
    "שלום",
    "山田",
    "ﾔﾏﾀﾞ",
    "김",
    "ＳＭＩＴＨ",
    "50%_[x]",
    "",
];
const GIVEN: &[&str] = &["John", "JOHN PAUL", "Ann-Marie", "Éva", "J.", "太郎", "たろう", "min jun", "Ivan,Igor", ""];
const PARTS: &[&str] = &[
    "smi",
    "MITH",
    "meier",
    "mayr",
    "m?ller",
    "der b",
    "-m",
    "o'b",
    "ra?e",
    "straß",
    "山",
    "ﾀﾞ",
    "ヤマ",
    "nov",
    "김",
    "%_",
    "n",
    "a",
    "^j",
    "jo*n",
    "ＭＩＴ",
];

fn name() -> impl Strategy<Value = String> {
    let group = (select(FAMILY), select(GIVEN)).prop_map(|(family, given)| format!("{family}^{given}"));
    prop_oneof![
        6 => group.clone(),
        2 => (group.clone(), group.clone(), group).prop_map(|(one, two, three)| format!("{one}={two}={three}")),
        1 => "[A-Za-zäß山 ^=.-]{0,12}",
        // More words than are kept.
        1 => (10..90_usize).prop_map(|count| (0..count).map(|n| format!("w{n} ")).collect()),
    ]
}

fn key() -> impl Strategy<Value = (String, NameMatching)> {
    let pattern = (select(PARTS), 0..5_usize).prop_map(|(part, how)| match how {
        0 => format!("*{part}*"),
        1 => format!("{part}*"),
        2 => format!("*{part}"),
        3 => format!("*^{part}*"),
        _ => format!("*={part}*"),
    });
    let words = prop::collection::vec(select(PARTS), 1..3).prop_map(|parts| parts.join(" "));
    prop_oneof![
        4 => pattern.prop_map(|key| (key, NameMatching::LeadingComponents)),
        2 => words.prop_map(|key| (key, NameMatching::Fuzzy)),
        1 => select(FAMILY).prop_map(|key| (key.to_owned(), NameMatching::Fuzzy)),
        1 => name().prop_map(|key| (key, NameMatching::LeadingComponents)),
        1 => "w[0-9]{1,2}\\*?".prop_map(|key| (key, NameMatching::Fuzzy)),
    ]
}

/// A patient is named, renamed, or removed.
#[derive(Clone, Debug)]
enum Step {
    Name(usize, String),
    Remove(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![5 => (0..40_usize, name()).prop_map(|(at, name)| Step::Name(at, name)), 1 => (0..40_usize).prop_map(Step::Remove)]
}

fn scan(writer: &Writer, patient: usize, name: Option<&str>, known: bool) {
    let directory = format!("/d{patient}");
    let (id, uid) = (format!("P{patient}"), format!("1.2.{patient}"));
    let found = name.map(|name| {
        let record = record(&uid, &format!("{uid}.1"), &format!("{uid}.1.1"), &[(PatientID, &id), (PatientName, name)]);
        ScannedFile { known, ..file("f", record) }
    });
    let vanished = if name.is_none() { vec!["f".into()] } else { Vec::new() };
    let directory = ScannedDirectory { vanished, ..scanned(&directory, found.into_iter().collect()) };
    writer.handle().scanned(directory).unwrap();
}

fn named(key: &str, names: NameMatching) -> Matching {
    let policy = MatchPolicy { names, ..MatchPolicy::default() };
    Matching::of_key(PatientName.attribute(), &KeyValue::Text(key.into()), &policy).unwrap()
}

/// Returns what a key finds through the index: the Patient IDs, sorted.
fn found(index: &Path, level: QueryRetrieveLevel, matching: &Matching) -> Vec<String> {
    let mut asked = request(level, &[PatientID]);
    if !matches!(matching, Matching::Universal) {
        asked.matching_keys.push(MatchingKey { attribute: PatientName, matching: matching.clone() });
    }
    let mut found: Vec<_> = find(index, &asked).into_iter().map(|mut values| values.remove(0)).collect();
    found.sort();
    found
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 30, max_shrink_iters: 300, ..ProptestConfig::default() })]

    #[test]
    fn nothing_that_matches_is_missed(
        steps in prop::collection::vec(step(), 1..60),
        keys in prop::collection::vec(key(), 30),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let index = dir.path().join("index.db");
        let writer = writer(&index);
        let mut names: BTreeMap<usize, String> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Name(patient, name) => {
                    scan(&writer, patient, Some(&name), names.contains_key(&patient));
                    names.insert(patient, name);
                }
                Step::Remove(patient) => {
                    if names.remove(&patient).is_some() {
                        scan(&writer, patient, None, true);
                        // Who comes back in the same transaction has not been away.
                        writer.handle().flush().unwrap();
                    }
                }
            }
        }
        writer.handle().flush().unwrap();
        drop(writer);
        assert_sound(&index);
        for (key, how) in keys {
            let matching = named(&key, how);
            let stored = |name: &str| record("", "", "", &[(PatientName, name)]).value(PatientName).to_owned();
            let mut expected: Vec<_> =
                names.iter().filter(|(_, name)| matching.matches(&stored(name))).map(|(at, _)| format!("P{at}")).collect();
            expected.sort();
            prop_assert_eq!(&found(&index, Patient, &matching), &expected, "{} {:?}", key, how);
            prop_assert_eq!(&found(&index, Study, &matching), &expected, "{} {:?}", key, how);
        }
    }
}

/// A few matches are looked up, and many are met in answer order. Both ways give the same answers
/// in the same order.
#[test]
fn a_name_that_many_have_is_found_like_one_that_few_have() {
    let dir = tempfile::tempdir().unwrap();
    let index = dir.path().join("index.db");
    let writer = writer(&index);
    let files = (0..6_000).map(|n| {
        let uid = format!("1.2.{n}");
        let name = format!(
            "{}^{n}",
            if n % 7 == 0 {
                "Rare"
            } else if n % 5 == 1 {
                "Some"
            } else {
                "Common"
            }
        );
        let date = format!("2024{:02}{:02}", 1 + n % 12, 1 + n % 28);
        let values = [(PatientID, &*format!("P{n:04}")), (PatientName, &name), (StudyDate, &date)];
        file(&format!("f{n}"), record(&uid, &format!("{uid}.1"), &format!("{uid}.1.1"), &values))
    });
    writer.handle().scanned(scanned("/archive", files.collect())).unwrap();
    drop(writer);
    let mut asked = request(Study, &[StudyDate, PatientID, PatientName]);
    let all = find(&index, &asked);
    for key in ["*OMMO*", "COMM*", "*are*", "RARE", "*som*", "SOME^*", "*1*"] {
        let matching = matching(PatientName, key);
        asked.matching_keys = vec![MatchingKey { attribute: PatientName, matching: matching.clone() }];
        let expected: Vec<_> = all.iter().filter(|values| matching.matches(&values[2])).cloned().collect();
        assert!(!expected.is_empty());
        assert_eq!(find(&index, &asked), expected, "{key}");
        // The first of many come from a sample, in which a page may begin or end.
        for (offset, limit) in [(0, 1), (5, 20), (30, 2_000), (400, 3), (10_000, 1)] {
            let page = FindRequest { offset, limit: Some(limit), ..asked.clone() };
            let expected: Vec<_> = expected.iter().skip(offset as usize).take(limit as usize).cloned().collect();
            assert_eq!(find(&index, &page), expected, "{key} {offset} {limit}");
        }
        let plan = Reader::open(&index).unwrap().explain(&asked).unwrap();
        let sorted = plan.contains("FOR ORDER BY");
        assert_eq!(sorted, expected.len() <= 1_000, "{key}: {plan}");
        assert_eq!(plan.contains("dcm_has"), (1_001..=1_500).contains(&expected.len()), "{key}: {plan}");
    }
    // The same for the beginning of an ID.
    for (key, few) in [("P*", false), ("P00*", true)] {
        let matching = matching(PatientID, key);
        asked.matching_keys = vec![MatchingKey { attribute: PatientID, matching: matching.clone() }];
        let expected: Vec<_> = all.iter().filter(|values| matching.matches(&values[1])).cloned().collect();
        assert_eq!(find(&index, &asked), expected, "{key}");
        assert_eq!(Reader::open(&index).unwrap().explain(&asked).unwrap().contains("FOR ORDER BY"), few, "{key}");
    }
}
