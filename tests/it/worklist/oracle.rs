//! Questions to the worklist, compared with a slow matcher that is written straight from PS3.4.

use std::ops::ControlFlow;

use dcmdex::db::WorklistSearch;
use dcmdex::db::open::Reader;
use dcmdex::model::matching::NameMatching;
use dcmdex::worklist::{WorklistOptions, WorklistQuery, WorklistView};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::*;
use crate::util::engine::{index_at, with_each_index};

/// An item as the oracle sees it: attributes by tag, with a `step` mark for those of the sequence.
type Flat = Vec<((bool, u16, u16), String)>;

const NAME: (bool, u16, u16) = (false, 0x0010, 0x0010);
const PATIENT: (bool, u16, u16) = (false, 0x0010, 0x0020);
const ACCESSION: (bool, u16, u16) = (false, 0x0008, 0x0050);
const REFERRING: (bool, u16, u16) = (false, 0x0008, 0x0090);
const MODALITY: (bool, u16, u16) = (true, 0x0008, 0x0060);
const STATION: (bool, u16, u16) = (true, 0x0040, 0x0001);
const DATE: (bool, u16, u16) = (true, 0x0040, 0x0002);
const TIME: (bool, u16, u16) = (true, 0x0040, 0x0003);
const PERFORMER: (bool, u16, u16) = (true, 0x0040, 0x0006);
const LOCATION: (bool, u16, u16) = (true, 0x0040, 0x0011);
const ALL: [(bool, u16, u16); 10] =
    [ACCESSION, REFERRING, NAME, PATIENT, MODALITY, STATION, DATE, TIME, PERFORMER, LOCATION];

/// PS3.4 C.2.2.2.4: `*` is any text, `?` one character.
fn wild(pattern: &[char], text: &[char]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some(('*', rest)) => (0..=text.len()).any(|skip| wild(rest, &text[skip..])),
        Some(('?', rest)) => text.split_first().is_some_and(|(_, text)| wild(rest, text)),
        Some((one, rest)) => text.split_first().is_some_and(|(first, text)| first == one && wild(rest, text)),
    }
}

fn wild_text(pattern: &str, text: &str) -> bool {
    wild(&pattern.chars().collect::<Vec<_>>(), &text.chars().collect::<Vec<_>>())
}

/// A time filled up to its first second, or its last.
fn second(time: &str, last: bool) -> String {
    let filling = if last { "235959" } else { "000000" };
    format!("{time}{}", &filling[time.len()..])
}

fn range(key: &str) -> Option<(&str, &str)> {
    key.split_once('-')
}

fn within(value: &str, low: &str, high: &str) -> bool {
    (low.is_empty() || value >= low) && (high.is_empty() || value <= high)
}

/// Whether one value fulfils one key.
fn one_matches(tag: (bool, u16, u16), key: &str, value: &str) -> bool {
    match tag {
        DATE => match range(key) {
            Some((low, high)) => within(value, low, high),
            None => value == key,
        },
        TIME => {
            let value = second(value, false);
            match range(key) {
                Some((low, high)) => {
                    let low = if low.is_empty() { String::new() } else { second(low, false) };
                    let high = if high.is_empty() { String::new() } else { second(high, true) };
                    within(&value, &low, &high)
                }
                None => within(&value, &second(key, false), &second(key, true)),
            }
        }
        NAME | REFERRING | PERFORMER => {
            // C.2.2.2.1: a name is compared without case here, and its first components are enough.
            let (key, value) = (key.to_uppercase(), value.to_uppercase());
            wild_text(&key, &value)
                || key.split('^').zip(value.split('^')).all(|(key, value)| wild_text(key, value))
                    && key.split('^').count() <= value.split('^').count()
                    && !key.contains(['*', '?'])
        }
        _ => wild_text(key, value),
    }
}

/// PS3.4 K.2.2: all keys must match. An unknown value matches no key with a value (K.2.2.1.1.1).
fn matches(item: &Flat, keys: &Flat) -> bool {
    let value = |tag| item.iter().find(|(known, _)| *known == tag).map_or("", |(_, value)| value.as_str());
    let key = |tag| keys.iter().find(|(known, _)| *known == tag).map_or("", |(_, key)| key.as_str());
    let both = match (range(key(DATE)), range(key(TIME))) {
        (Some((from, to)), Some((first, last)))
            if (from.is_empty() == first.is_empty()) && (to.is_empty() == last.is_empty()) =>
        {
            let moment = |date: &str, time: &str, last| {
                if date.is_empty() { String::new() } else { format!("{date}{}", second(time, last)) }
            };
            let value = moment(value(DATE), value(TIME), false);
            Some(within(&value, &moment(from, first, false), &moment(to, last, true)))
        }
        _ => None,
    };
    keys.iter().all(|(tag, key)| {
        if key.is_empty() || key.chars().all(|c| c == '*') || both.is_some() && matches!(*tag, DATE | TIME) {
            return true;
        }
        let value = value(*tag);
        !value.is_empty() && value.split('\\').any(|value| one_matches(*tag, key, value))
    }) && both.unwrap_or(true)
}

fn one_of(texts: &'static [&'static str]) -> impl Strategy<Value = String> {
    prop::sample::select(texts).prop_map(str::to_owned)
}

fn item() -> impl Strategy<Value = Flat> {
    (
        one_of(&["SMITH^JOHN", "SMITH", "SMITHER^JANE", "DOE^JOHN", "SMITH^JANE^A"]),
        one_of(&["P1", "P2", "P10", "p1"]),
        one_of(&["", "REF^A", "REF^B", "OTHER"]),
        one_of(&["CT", "MR", "US"]),
        one_of(&["CT1", "CT2", "CT1\\MR1", "MR1"]),
        one_of(&["20991230", "20991231", "21000101"]),
        one_of(&["08", "0815", "081530", "2359"]),
        one_of(&["", "DOC^X", "DOC^Y"]),
        one_of(&["", "ROOM 1", "ROOM 2"]),
    )
        .prop_map(|(name, patient, referring, modality, station, date, time, performer, location)| {
            [
                (NAME, name),
                (PATIENT, patient),
                (REFERRING, referring),
                (MODALITY, modality),
                (STATION, station),
                (DATE, date),
                (TIME, time),
                (PERFORMER, performer),
                (LOCATION, location),
            ]
            .into()
        })
}

fn key(tag: (bool, u16, u16)) -> impl Strategy<Value = String> {
    match tag {
        NAME => one_of(&["", "*", "SMITH", "smith", "SMITH*", "S?ITH^J*", "DOE^JOHN", "*JANE*", "NOBODY"]),
        PATIENT => one_of(&["", "P1", "P?", "P*", "*1*", "X"]),
        ACCESSION => one_of(&["", "A1", "A3", "A?", "*"]),
        REFERRING => one_of(&["", "REF^A", "REF*", "*"]),
        MODALITY => one_of(&["", "CT", "MR", "?T", "*"]),
        STATION => one_of(&["", "CT1", "MR1", "CT*", "XX"]),
        DATE => one_of(&["", "20991231", "20991230-20991231", "20991231-", "-20991230", "20991231-21000101"]),
        TIME => one_of(&["", "0815", "08", "0800-0820", "0815-", "-081530", "2000-0900", "0816-"]),
        PERFORMER => one_of(&["", "DOC^X", "DOC", "*Y"]),
        _ => one_of(&["", "ROOM 1", "ROOM ?", "*2"]),
    }
}

fn keys() -> impl Strategy<Value = Flat> {
    prop::sample::subsequence(ALL.to_vec(), 0..=5).prop_flat_map(|tags| {
        let keys: Vec<_> = tags.into_iter().map(|tag| key(tag).prop_map(move |key| (tag, key))).collect();
        keys
    })
}

fn item_json(number: usize, item: &Flat) -> Value {
    let (mut root, mut step) = (json!({ "AccessionNumber": format!("A{number}") }), json!({}));
    for ((of_step, group, element), value) in item.iter().filter(|(_, value)| !value.is_empty()) {
        let target = if *of_step { &mut step } else { &mut root };
        target[format!("{group:04X}{element:04X}")] = value.as_str().into();
    }
    root["00400100"] = json!([step]);
    root
}

fn the_answers_are_those_of_a_matcher_written_from_the_standard() {
    let mut runner = TestRunner::new(Config { cases: 12, failure_persistence: None, ..Config::default() });
    let many = (prop::collection::vec(item(), 1..40), prop::collection::vec(keys(), 60));
    runner
        .run(&many, |(items, questions)| {
            let directory = TempDir::new().unwrap();
            let index = index_at(directory.path());
            let objects: Vec<_> = items.iter().enumerate().map(|(at, item)| item_json(at, item)).collect();
            fill(&index, &objects);
            let mut reader = Reader::open(&index).unwrap();
            for question in &questions {
                let expected: Vec<_> = items
                    .iter()
                    .enumerate()
                    .filter(|(at, item)| {
                        let mut item = (*item).clone();
                        item.push((ACCESSION, format!("A{at}")));
                        matches(&item, question)
                    })
                    .map(|(at, _)| format!("A{at}"))
                    .collect();
                let mut answers = answers(&mut reader, question);
                answers.sort_unstable();
                let mut expected = expected;
                expected.sort_unstable();
                prop_assert_eq!(answers, expected, "{:?} of {:?}", question, items);
            }
            Ok(())
        })
        .unwrap();
}

fn answers(reader: &mut Reader, question: &Flat) -> Vec<String> {
    let part = |of_step: bool| -> Vec<_> {
        let keys = question.iter().filter(move |((step, ..), _)| *step == of_step);
        keys.map(|((_, group, element), key)| ((*group, *element), key.as_str())).collect()
    };
    let mut root = part(false);
    if !root.iter().any(|(tag, _)| *tag == (0x0008, 0x0050)) {
        root.push(((0x0008, 0x0050), ""));
    }
    let bytes = identifier(&root, &part(true));
    let identifier = Identifier::decode(&bytes, Encoding::ImplicitLittle, "").unwrap();
    let (names, view) = (NameMatching::default(), WorklistView::default());
    let now = Clock::System.now_ms();
    let query = WorklistQuery::parse(&identifier, names, view, &WorklistOptions::default(), now).unwrap();
    let mut found = Vec::new();
    let collected = reader.worklist(&query.request, &mut |row| {
        if let Some(answer) = query.answer(&row) {
            found.push(answer.item["00080050"]["Value"][0].as_str().unwrap().to_owned());
        }
        ControlFlow::Continue(())
    });
    collected.unwrap();
    found
}

with_each_index! {
    the_answers_are_those_of_a_matcher_written_from_the_standard,
}
