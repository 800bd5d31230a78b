//! An order says the same however it is written: with other delimiters, line ends, segments and
//! character sets.

use dcmdex::db::WorklistColumn;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::hl7::{Ris, only, value};
use crate::util::engine::with_each_index;

/// MSH-18, how the bytes are made, and letters that the set has. Bytes of the Japanese and Chinese
/// ones look like delimiters.
const SETS: [(&str, &encoding_rs::Encoding, &str); 4] = [
    ("UNICODE UTF-8", encoding_rs::UTF_8, "[A-Za-zÄÖÜßéŁ山田王許]{1,12}"),
    ("8859/1", encoding_rs::WINDOWS_1252, "[A-Za-zÄÖÜßéñ]{1,12}"),
    ("ISO IR87", encoding_rs::ISO_2022_JP, "[A-Za-z山田時許本木]{1,12}"),
    ("GB 18030-2000", encoding_rs::GB18030, "[A-Za-z王李張許龍]{1,12}"),
];

/// How a message is written.
#[derive(Clone, Debug)]
struct Hand {
    /// Field, component, repetition, escape, subcomponent.
    delimiters: [char; 5],
    line_end: &'static str,
    set: usize,
    /// Z-segments, and where they stand.
    strangers: Vec<usize>,
    /// Whether segments are there that an order can do without.
    visit: bool,
    zds: bool,
    /// Whether fields have a second repetition, and segments empty fields at their end.
    repeats: bool,
    trailing: usize,
}

impl Hand {
    /// A value as it stands in a message.
    fn escaped(&self, text: &str) -> String {
        let [field, component, repetition, escape, subcomponent] = self.delimiters;
        let letters = [(field, 'F'), (component, 'S'), (repetition, 'R'), (escape, 'E'), (subcomponent, 'T')];
        let one = |c: char| match letters.iter().find(|(delimiter, _)| *delimiter == c) {
            Some((_, letter)) => format!("{escape}{letter}{escape}"),
            None => c.to_string(),
        };
        text.chars().map(one).collect()
    }

    fn segment(&self, name: &str, fields: &[(usize, String)]) -> String {
        let last = fields.iter().map(|(number, _)| *number).max().unwrap_or(0) + self.trailing;
        let at = |number| fields.iter().find(|(known, _)| *known == number).map_or("", |(_, text)| text.as_str());
        let parts: Vec<&str> = std::iter::once(name).chain((1..=last).map(at)).collect();
        parts.join(&self.delimiters[0].to_string())
    }

    /// An order with this name and description.
    fn message(&self, family: &str, description: &str) -> Vec<u8> {
        let [field, component, repetition, escape, subcomponent] = self.delimiters;
        let again = |text: String| if self.repeats { format!("{text}{repetition}OTHER") } else { text };
        let name = format!("{}{component}Given", self.escaped(family));
        let code = format!("CODE{component}{}", self.escaped(description));
        let header = format!("MSH{field}{component}{repetition}{escape}{subcomponent}");
        let header =
            [&header, "RIS", "SITE", "", "", "20261129100000", "", &format!("ORM{component}O01"), "M1", "P", "2.3.1"]
                .join(&field.to_string());
        let header = format!("{header}{}{}", field.to_string().repeat(6), SETS[self.set].0);
        let mut segments = vec![self.segment("PID", &[(3, again("P1".into())), (5, again(name))])];
        if self.visit {
            segments.push(self.segment("PV1", &[(2, "I".into())]));
        }
        segments.push(self.segment("ORC", &[(1, "NW".into()), (2, "PL1".into())]));
        segments.push(self.segment("OBR", &[(4, code), (18, "ACC1".into()), (24, "CT".into())]));
        if self.zds {
            segments.push(self.segment("ZDS", &[(1, format!("1.2.3{component}RIS"))]));
        }
        for place in &self.strangers {
            let at = place % (segments.len() + 1);
            segments.insert(at, self.segment("ZZ9", &[(3, "stranger".into())]));
        }
        segments.insert(0, header);
        let text = segments.join(self.line_end) + self.line_end;
        SETS[self.set].1.encode(&text).0.into_owned()
    }
}

fn hand() -> impl Strategy<Value = Hand> {
    let delimiters = prop_oneof![
        Just(['|', '^', '~', '\\', '&']),
        // The escape characters of ISO 2022 need no delimiter of their own.
        Just("|^~\\&#$*!%@;:?".chars().collect::<Vec<_>>())
            .prop_shuffle()
            .prop_map(|all| [all[0], all[1], all[2], all[3], all[4]]),
    ];
    let line_end = prop_oneof![Just("\r"), Just("\n"), Just("\r\n")];
    let strangers = prop::collection::vec(0_usize..10, 0..4);
    let shape = (any::<bool>(), any::<bool>(), any::<bool>(), 0_usize..4);
    (delimiters, line_end, 0..SETS.len(), strangers, shape).prop_map(
        |(delimiters, line_end, set, strangers, (visit, zds, repeats, trailing))| Hand {
            delimiters,
            line_end,
            set,
            strangers,
            visit,
            zds,
            repeats,
            trailing,
        },
    )
}

/// A hand, a family name, and a description with delimiters in it.
fn order() -> impl Strategy<Value = (Hand, String, String)> {
    hand().prop_flat_map(|hand| {
        let letters = SETS[hand.set].2;
        let description = (letters, "[|^~&#$*!%@;]{0,4}[A-Z]").prop_map(|(begin, end)| begin + &end);
        (Just(hand), letters, description)
    })
}

fn an_order_says_the_same_however_it_is_written() {
    let mut runner = TestRunner::new(Config { cases: 60, failure_persistence: None, ..Config::default() });
    runner
        .run(&order(), |(hand, family, description)| {
            let ris = Ris::new(&[]);
            ris.accept_bytes(&hand.message(&family, &description));
            let row = only(ris.open());
            let column = |column| row.value(column).to_owned();
            prop_assert_eq!(column(WorklistColumn::PatientName), format!("{family}^Given"));
            prop_assert_eq!(column(WorklistColumn::PatientId), "P1");
            prop_assert_eq!(column(WorklistColumn::AccessionNumber), "ACC1");
            prop_assert_eq!(column(WorklistColumn::Modality), "CT");
            prop_assert_eq!(value(&row, "/00321060/Value/0"), description);
            prop_assert_eq!(column(WorklistColumn::StudyInstanceUid) == "1.2.3", hand.zds);
            Ok(())
        })
        .unwrap();
}

with_each_index! {
    an_order_says_the_same_however_it_is_written,
}
