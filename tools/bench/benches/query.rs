//! Measures the query engine without index and network.
//!
//! It looks at a value, reads a request and writes an answer.
//!
//! ```text
//! cargo bench -p dcmdex-bench --bench query
//! ```
//!
//! Matches are counted and checked before they are timed. The best of several rounds counts.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a tool for developers: it ends at the first fault, and says what it did"
)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use dcmdex::encoding::syntax::Encoding;
use dcmdex::model::attribute::{Attribute, AttributeId};
use dcmdex::model::find::FindAnswer;
use dcmdex::model::level::{InformationModel, QueryRetrieveLevel};
use dcmdex::model::matching::{KeyValue, MatchPolicy, Matching};
use dcmdex::qr::{self, Identifier, NegotiatedOptions, Options, ResponseWriter, keys};

const ROUNDS: u32 = 20;
const VALUES: usize = 100_000;

fn main() {
    let names: Vec<String> = (0..VALUES).map(name).collect();
    let dates: Vec<String> =
        (0..VALUES).map(|at| format!("20{:02}{:02}{:02}", at % 25, at % 12 + 1, at % 28 + 1)).collect();
    let descriptions: Vec<String> = (0..VALUES).map(|at| format!("CT Schädel {at}")).collect();
    let codes = r#"[{"00080100":{"vr":"SH","Value":["P5-08000"]},"00080102":{"vr":"SH","Value":["SRT"]},"00080104":{"vr":"LO","Value":["CT"]}}]"#;
    let codes: Vec<String> = vec![codes.to_owned(); VALUES / 10];
    for (keyword, key, values) in [
        ("PatientName", "SMITH", &names),
        ("PatientName", "*MITH*", &names),
        ("PatientName", "?m?th*^*", &names),
        ("PatientID", "*mith*", &names),
        ("StudyDescription", "*schadel*", &descriptions),
        ("StudyDate", "20100101-20151231", &dates),
        ("ModalitiesInStudy", "CT\\MR", &dates),
    ] {
        look(keyword, &KeyValue::Text(key.to_owned()), key, values);
    }
    let identifier = keys::identifier(QueryRetrieveLevel::Study, ["ProcedureCodeSequence.CodeValue=P5*"]).unwrap();
    look("ProcedureCodeSequence", &identifier.elements[1].value, "CodeValue=P5*", &codes);

    for character_set in ["", "ISO_IR 192", "ISO_IR 100", "\\ISO 2022 IR 87"] {
        let name = if character_set.ends_with("87") {
            "Yamada^Tarou=山田^太郎=やまだ^たろう"
        } else {
            "Müller^Änne"
        };
        answers(character_set, if character_set.is_empty() { "Smith^John" } else { name });
    }
}

/// Every thirtieth is a Smith; one in ten is not ASCII.
fn name(at: usize) -> String {
    match at % 30 {
        0 => format!("Smith^John {at}"),
        10 => format!("Müller^Änne {at}"),
        20 => format!("Yamada^Tarou{at}=山田^太郎=やまだ^たろう"),
        other => format!("Family{other}^Given{at}"),
    }
}

fn look(keyword: &str, key: &KeyValue, shown: &str, values: &[String]) {
    let attribute = Attribute::by_keyword(keyword).unwrap();
    let matching = Matching::of_key(attribute, key, &MatchPolicy::default()).unwrap();
    let found = values.iter().filter(|value| matching.matches(value)).count();
    let time = best(|| {
        for value in values {
            black_box(matching.matches(value));
        }
    });
    let nanos = time.as_secs_f64() * 1e9 / values.len() as f64;
    println!("{keyword} {shown}: {nanos:.0} ns a value; {found} of {} match", values.len());
}

fn answers(character_set: &str, name: &str) {
    let keys = [
        "PatientName",
        "PatientID",
        "PatientBirthDate",
        "PatientSex",
        "StudyInstanceUID",
        "StudyDate",
        "StudyTime",
        "AccessionNumber",
        "StudyID",
        "StudyDescription",
        "ModalitiesInStudy",
        "NumberOfStudyRelatedInstances",
    ];
    let mut identifier = keys::identifier(QueryRetrieveLevel::Study, keys).unwrap();
    identifier.character_set = character_set.to_owned();
    let parse = |identifier: &Identifier| {
        qr::parse(InformationModel::StudyRoot, identifier, NegotiatedOptions::default(), &Options::default()).unwrap()
    };
    let query = parse(&identifier);
    let value = |id| match id {
        AttributeId::PatientName => name.to_owned(),
        AttributeId::StudyInstanceUID => "2.25.222357566655179818184128349088455852959".to_owned(),
        _ => "20240229".to_owned(),
    };
    let values = query.request.return_keys.iter().map(|key| value(key.attribute)).collect();
    let answer = FindAnswer { values, character_set: character_set.to_owned(), ..FindAnswer::default() };
    let mut writer = ResponseWriter::new(&query, Encoding::ExplicitLittle, "NODE");
    let bytes = writer.write(&answer).to_vec();
    let read = Identifier::decode(&bytes, Encoding::ExplicitLittle, "").unwrap();
    assert_eq!(read.text(AttributeId::PatientName.attribute().tag), Some(name));
    let write = best(|| {
        for _ in 0..10_000 {
            black_box(writer.write(&answer));
        }
    });
    let decode = best(|| {
        for _ in 0..1_000 {
            black_box(parse(&Identifier::decode(&bytes, Encoding::ExplicitLittle, "").unwrap()));
        }
    });
    println!(
        "answer of {} bytes in `{character_set}`: {:.2} us to write; as a request, {:.2} us to read and check",
        bytes.len(),
        write.as_secs_f64() * 1e6 / 10_000.0,
        decode.as_secs_f64() * 1e6 / 1_000.0
    );
}

fn best(mut run: impl FnMut()) -> Duration {
    let time = |run: &mut dyn FnMut()| {
        let start = Instant::now();
        run();
        start.elapsed()
    };
    (0..ROUNDS).map(|_| time(&mut run)).min().unwrap()
}
