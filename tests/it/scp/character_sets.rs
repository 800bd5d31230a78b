//! Every character set over the network. Stored text is found in its own character set and in
//! Unicode, and is returned without the loss of a character.
//!
//! The statuses of PS3.4 table C.4-1 are tested too, with their elements.

use dcmdex::encoding::syntax::Encoding;
use dcmdex::model::matching::KeyValue;
use dcmdex::qr::{Hierarchy, Identifier, PendingStatus};
use dicom_core::Tag;
use dicom_dictionary_std::tags;

use crate::util::node::TestNode;
use crate::util::scripted::{DataSet, IMPLICIT_VR_LITTLE_ENDIAN, Received, ScriptedPeer, find_command, store_command};

const STUDY_ROOT: &str = "1.2.840.10008.5.1.4.1.2.2.1";
const CT: &str = "1.2.840.10008.5.1.4.1.1.2";
const CONTEXTS: &[(&str, &[&str])] = &[(STUDY_ROOT, &[IMPLICIT_VR_LITTLE_ENDIAN]), (CT, &[IMPLICIT_VR_LITTLE_ENDIAN])];

const NAME: Tag = Tag(0x0010, 0x0010);
const CHARACTER_SET: Tag = Tag(0x0008, 0x0005);

/// Specific Character Set, a name encoded in it, and the decoded name. The codecs of Python made
/// the bytes, with the escape sequences of PS3.3 tables C.12-3 and C.12-4.
const NAMES: &[(&str, &[u8], &str)] = &[
    ("ISO_IR 100", b"M\xFCller^\xC4nne", "Müller^Änne"),
    ("ISO_IR 101", b"\xA3ukasz^\xAF\xF3\xB3\xE6", "Łukasz^Żółć"),
    ("ISO_IR 109", b"\xD8usta^\xA1al", "Ĝusta^Ħal"),
    ("ISO_IR 110", b"\xD3irsis^\xAB\xBA", "Ķirsis^Ģē"),
    ("ISO_IR 144", b"\xB8\xD2\xD0\xDD\xDE\xD2^\xBF\xF1\xE2\xE0", "Иванов^Пётр"),
    ("ISO_IR 127", b"\xE2\xC8\xC7\xE6\xEA^\xE4\xE6\xD2\xC7\xD1", "قباني^لنزار"),
    ("ISO_IR 126", b"\xC4\xE9\xEF\xED\xF5\xF3\xE9\xEF\xF2", "Διονυσιος"),
    ("ISO_IR 138", b"\xF9\xF8\xE5\xEF^\xE3\xE1\xE5\xF8\xE4", "שרון^דבורה"),
    ("ISO_IR 148", b"\xC7avu\xFEo\xF0lu^I\xFE\xFDl", "Çavuşoğlu^Işıl"),
    ("ISO_IR 203", b"\xBCuvr\xE9^\xB4an\xA4", "Œuvré^Žan€"),
    ("ISO_IR 13", b"\xD4\xCF\xC0\xDE^\xC0\xDB\xB3", "ﾔﾏﾀﾞ^ﾀﾛｳ"),
    ("ISO_IR 166", b"\xB9\xD2\xC1^\xCA\xA1\xD8\xC5", "นาม^สกุล"),
    ("ISO_IR 192", b"Wang^XiaoDong=\xE7\x8E\x8B^\xE5\xB0\x8F\xE4\xB8\x9C", "Wang^XiaoDong=王^小东"),
    ("GB18030", b"Wang^XiaoDong=\xCD\xF5^\xD0\xA1\xB6\xAB", "Wang^XiaoDong=王^小东"),
    ("GBK", b"Wang^XiaoDong=\xCD\xF5^\xD0\xA1\xB6\xAB", "Wang^XiaoDong=王^小东"),
    ("ISO 2022 IR 6\\ISO 2022 IR 100", b"\x1B-AM\xFCller^\x1B-A\xC4nne", "Müller^Änne"),
    ("ISO 2022 IR 6\\ISO 2022 IR 101", b"\x1B-B\xA3ukasz^\x1B-B\xAF\xF3\xB3\xE6", "Łukasz^Żółć"),
    ("ISO 2022 IR 6\\ISO 2022 IR 109", b"\x1B-C\xD8usta^\x1B-C\xA1al", "Ĝusta^Ħal"),
    ("ISO 2022 IR 6\\ISO 2022 IR 110", b"\x1B-D\xD3irsis^\x1B-D\xAB\xBA", "Ķirsis^Ģē"),
    ("ISO 2022 IR 6\\ISO 2022 IR 144", b"\x1B-L\xB8\xD2\xD0\xDD\xDE\xD2^\x1B-L\xBF\xF1\xE2\xE0", "Иванов^Пётр"),
    ("ISO 2022 IR 6\\ISO 2022 IR 127", b"\x1B-G\xE2\xC8\xC7\xE6\xEA^\x1B-G\xE4\xE6\xD2\xC7\xD1", "قباني^لنزار"),
    ("ISO 2022 IR 6\\ISO 2022 IR 126", b"\x1B-F\xC4\xE9\xEF\xED\xF5\xF3\xE9\xEF\xF2", "Διονυσιος"),
    ("ISO 2022 IR 6\\ISO 2022 IR 138", b"\x1B-H\xF9\xF8\xE5\xEF^\x1B-H\xE3\xE1\xE5\xF8\xE4", "שרון^דבורה"),
    ("ISO 2022 IR 6\\ISO 2022 IR 148", b"\x1B-M\xC7avu\xFEo\xF0lu^\x1B-MI\xFE\xFDl", "Çavuşoğlu^Işıl"),
    ("ISO 2022 IR 6\\ISO 2022 IR 203", b"\x1B-b\xBCuvr\xE9^\x1B-b\xB4an\xA4", "Œuvré^Žan€"),
    ("ISO 2022 IR 6\\ISO 2022 IR 166", b"\x1B-T\xB9\xD2\xC1^\x1B-T\xCA\xA1\xD8\xC5", "นาม^สกุล"),
    ("ISO 2022 IR 6\\ISO 2022 IR 13", b"\x1B)I\xD4\xCF\xC0\xDE^\x1B)I\xC0\xDB\xB3", "ﾔﾏﾀﾞ^ﾀﾛｳ"),
    (
        "\\ISO 2022 IR 87",
        b"Yamada^Tarou=\x1B$B;3ED\x1B(B^\x1B$BB@O:\x1B(B=\x1B$B$d$^$@\x1B(B^\x1B$B$?$m$&\x1B(B",
        "Yamada^Tarou=山田^太郎=やまだ^たろう",
    ),
    (
        "ISO 2022 IR 13\\ISO 2022 IR 87",
        b"\xD4\xCF\xC0\xDE^\xC0\xDB\xB3=\x1B$B;3ED\x1B(J^\x1B$BB@O:\x1B(J=\x1B$B$d$^$@\x1B(J^\x1B$B$?$m$&\x1B(J",
        "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう",
    ),
    ("\\ISO 2022 IR 159", b"A^B=\x1B$(D0!0\x22\x1B(B", "A^B=丂丄"),
    (
        "\\ISO 2022 IR 149",
        b"Hong^Gildong=\x1B$)C\xFB\xF3^\x1B$)C\xD1\xCE\xD4\xD7=\x1B$)C\xC8\xAB^\x1B$)C\xB1\xE6\xB5\xBF",
        "Hong^Gildong=洪^吉洞=홍^길동",
    ),
    ("\\ISO 2022 IR 58", b"Zhang^XiaoDong=\x1B$)A\xD5\xC5^\x1B$)A\xD0\xA1\xB6\xAB", "Zhang^XiaoDong=张^小东"),
    ("ISO_IR 6", b"Doe^John", "Doe^John"),
];

fn padded(mut bytes: Vec<u8>) -> Vec<u8> {
    if bytes.len() % 2 == 1 {
        bytes.push(b' ');
    }
    bytes
}

fn store(peer: &mut ScriptedPeer, instance: &str, data_set: &DataSet) {
    peer.send_message(3, &store_command(1, CT, instance), Some(&data_set.0));
    assert_eq!(peer.receive_message().status(), 0);
}

fn ask(peer: &mut ScriptedPeer, keys: &DataSet) -> (Vec<Received>, Received) {
    peer.send_message(1, &find_command(1, STUDY_ROOT), Some(&keys.0));
    let mut pending = Vec::new();
    loop {
        let response = peer.receive_message();
        if response.data_set.is_none() {
            return (pending, response);
        }
        pending.push(response);
    }
}

fn identifier(response: &Received) -> Identifier {
    Identifier::decode(response.data_set.as_ref().unwrap(), Encoding::ImplicitLittle, "").unwrap()
}

/// Builds a study of the patient with this name.
fn study(set: &str, name: &[u8], number: usize) -> DataSet {
    DataSet::default()
        .text(0x0008, 0x0005, set)
        .uid(0x0008, 0x0016, CT)
        .uid(0x0008, 0x0018, &format!("1.2.{number}.1.1"))
        .bytes(0x0010, 0x0010, &padded(name.to_vec()))
        .text(0x0010, 0x0020, &format!("P{number}"))
        .uid(0x0020, 0x000D, &format!("1.2.{number}"))
        .uid(0x0020, 0x000E, &format!("1.2.{number}.1"))
}

fn by_name(set: &str, name: &[u8], number: usize) -> DataSet {
    DataSet::default()
        .text(0x0008, 0x0005, set)
        .text(0x0008, 0x0052, "STUDY")
        .bytes(0x0010, 0x0010, &padded(name.to_vec()))
        .text(0x0010, 0x0020, &format!("P{number}"))
        .uid(0x0020, 0x000D, "")
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

// PS3.3 C.12.1.1.2, PS3.4 C.4.1.1.3.2.
#[test]
fn a_name_in_every_character_set_is_found_and_answered_without_loss() {
    let node = TestNode::start();
    let mut peer = node.associate(CONTEXTS);
    for (number, (set, bytes, _)) in NAMES.iter().enumerate() {
        store(&mut peer, &format!("1.2.{number}.1.1"), &study(set, bytes, number));
    }
    for (number, (set, bytes, name)) in NAMES.iter().enumerate() {
        // Asked in the character set of the object, with the very bytes of it.
        let (answers, last) = ask(&mut peer, &by_name(set, bytes, number));
        assert_eq!((answers.len(), last.status()), (1, 0), "{set} {name}");
        let answer = identifier(&answers[0]);
        assert_eq!(answer.text(NAME), Some(*name), "{set}");
        if name.is_ascii() {
            assert_eq!(answer.text(CHARACTER_SET), None, "{set}: ASCII needs none");
        } else {
            assert_eq!(answer.text(CHARACTER_SET), Some(*set));
            if !set.contains("2022") {
                assert!(contains(answers[0].data_set.as_ref().unwrap(), bytes), "{set}: other bytes for {name}");
            }
        }
        // Asked in Unicode, by a pattern: the family name in the first group.
        let family = name.split(['^', '=']).next().unwrap();
        let (answers, _) = ask(&mut peer, &by_name("ISO_IR 192", format!("{family}*").as_bytes(), number));
        assert_eq!(answers.len(), 1, "{set} {family}*");
        assert_eq!(identifier(&answers[0]).text(NAME), Some(*name), "{set}");
        // Asked without a character set: what the request cannot spell comes in that of the object.
        let (answers, _) = ask(&mut peer, &by_name("", b"", number));
        let answer = identifier(&answers[0]);
        assert_eq!(answer.text(NAME), Some(*name), "{set}");
        let expected = (!name.is_ascii()).then_some(*set);
        assert_eq!(answer.text(CHARACTER_SET), expected, "{name}");
        // A `?` is one character, however many bytes it has.
        let mut pattern = String::from("?");
        pattern.extend(family.chars().skip(1));
        let (answers, _) = ask(&mut peer, &by_name("ISO_IR 192", format!("{pattern}*").as_bytes(), number));
        assert_eq!(answers.len(), 1, "{set} {pattern}*");
    }
    peer.release();
}

// PS3.3 C.12.1.1.2: a reader of an answer may know the Defined Terms only.
#[test]
fn a_name_in_a_misspelt_character_set_is_answered_under_the_defined_term() {
    let node = TestNode::start();
    let mut peer = node.associate(CONTEXTS);
    for (number, (set, bytes, term, name)) in [
        ("iso_ir 144", &b"\xBB\xEE\xDA"[..], "ISO_IR 144", "Люк"),
        ("utf-8", "山田".as_bytes(), "ISO_IR 192", "山田"),
        ("ISO_IR 149", b"\xC8\xAB", "\\ISO 2022 IR 149", "홍"),
    ]
    .into_iter()
    .enumerate()
    {
        store(&mut peer, &format!("1.2.{number}.1.1"), &study(set, bytes, number));
        // The set of the object, then that of the request.
        for keys in [by_name("", b"", number), by_name(set, bytes, number)] {
            let (answers, _) = ask(&mut peer, &keys);
            let [answer] = answers.as_slice() else { panic!("{set}: {} answers", answers.len()) };
            let answer = identifier(answer);
            assert_eq!((answer.text(CHARACTER_SET), answer.text(NAME)), (Some(term), Some(name)), "{set}");
        }
    }
    peer.release();
}

// PS3.3 C.12.1.1.2: an item may have a character set of its own, in objects and in keys.
#[test]
fn items_have_character_sets_of_their_own() {
    let node = TestNode::start();
    let mut peer = node.associate(CONTEXTS);
    let code = |set: &str, meaning: &[u8]| {
        let mut item = DataSet::default();
        if !set.is_empty() {
            item = item.text(0x0008, 0x0005, set);
        }
        let item = item.text(0x0008, 0x0100, "C1").bytes(0x0008, 0x0104, &padded(meaning.to_vec()));
        DataSet::default().bytes(0xFFFE, 0xE000, &item.0).0
    };
    let data_set = DataSet::default()
        .text(0x0008, 0x0005, "ISO_IR 100")
        .uid(0x0008, 0x0016, CT)
        .uid(0x0008, 0x0018, "1.2.1.1.1")
        .bytes(0x0008, 0x1032, &code("ISO_IR 144", b"\xD3\xDE\xDB\xDE\xD2\xD0"))
        .bytes(0x0010, 0x0010, b"M\xFCller")
        .text(0x0010, 0x0020, "P1")
        .uid(0x0020, 0x000D, "1.2.1")
        .uid(0x0020, 0x000E, "1.2.1.1");
    store(&mut peer, "1.2.1.1.1", &data_set);
    let asked = |set: &str, item: Vec<u8>| {
        DataSet::default()
            .text(0x0008, 0x0005, set)
            .text(0x0008, 0x0052, "STUDY")
            .bytes(0x0008, 0x1032, &item)
            .bytes(0x0010, 0x0010, b"")
            .uid(0x0020, 0x000D, "")
    };
    let meaning = "голова";
    for keys in [
        asked("ISO_IR 192", code("", meaning.as_bytes())),
        asked("ISO_IR 100", code("ISO_IR 144", b"\xD3\xDE\xDB*")),
        asked("ISO_IR 192", code("", "ГОЛОВА".as_bytes())),
    ] {
        let (answers, _) = ask(&mut peer, &keys);
        let [answer] = answers.as_slice() else { panic!("{} answers", answers.len()) };
        let answer = identifier(answer);
        assert_eq!(answer.text(NAME), Some("Müller"));
        let items = answer.elements.iter().find(|element| element.tag == Tag(0x0008, 0x1032)).unwrap();
        let KeyValue::Items(items) = &items.value else { panic!("no items") };
        let answered = items[0].iter().find(|element| element.tag == Tag(0x0008, 0x0104)).unwrap();
        assert!(answered.value == KeyValue::Text(meaning.to_owned()));
        assert!(items[0].iter().all(|element| element.tag != CHARACTER_SET), "the answer has one for all");
    }
    assert_eq!(ask(&mut peer, &asked("ISO_IR 192", code("", "рука".as_bytes()))).0.len(), 0);
    peer.release();
}

/// With a wrong or unknown character set, no object is refused and no text is lost.
#[test]
fn character_sets_that_lie_are_no_reason_to_lose_text() {
    let node = TestNode::start();
    let mut peer = node.associate(CONTEXTS);
    store(&mut peer, "1.2.1.1.1", &study("ISO_IR 100", "Müller".as_bytes(), 1));
    store(&mut peer, "1.2.2.1.1", &study("ISO_IR 192", b"M\xFCller", 2));
    store(&mut peer, "1.2.3.1.1", &study("ISO_IR 9999", "Müller".as_bytes(), 3));
    store(&mut peer, "1.2.4.1.1", &study("\\ISO 2022 IR 87", b"\x1B$B\xFF\xFE\x1B", 4));
    for (number, found) in [(1, 0), (2, 1), (3, 1)] {
        let (answers, last) = ask(&mut peer, &by_name("ISO_IR 192", "Müller".as_bytes(), number));
        assert_eq!((answers.len(), last.status()), (found, 0), "study {number}");
    }
    for (set, name) in
        [("ISO_IR 9999", &b"M\xFC*"[..]), ("ISO_IR 192", b"\xFF\xFE*"), ("\\ISO 2022 IR 87", b"\x1B$B\xFF*")]
    {
        let (_, last) = ask(&mut peer, &by_name(set, name, 1));
        assert_eq!(last.status(), 0, "{set}");
    }
    let (answers, _) = ask(&mut peer, &DataSet::default().text(0x0008, 0x0052, "STUDY").text(0x0010, 0x0010, ""));
    assert_eq!(answers.len(), 4);
    peer.release();
}

/// Old objects do not declare their Latin-1, and old stations do not declare that of their keys.
#[test]
fn every_letter_of_undeclared_latin_1_is_kept_and_found() {
    let node = TestNode::start();
    let mut peer = node.associate(CONTEXTS);
    let names = [
        (&b"M\xFCller^\xC4nne"[..], "Müller^Änne"),
        (b"Gr\xF6\xDFe", "Größe"),
        (b"Jos\xE9 \xD1and\xFA", "José Ñandú"),
        (b"F\xE9e^\xC9", "Fée^É"),
        (b"\xC4\xD6\xDC", "ÄÖÜ"),
    ];
    let sets = ["", "ISO_IR 6", "ISO_IR 192", "\\ISO 2022 IR 87", "ISO_IR 9999"];
    let studies = sets.iter().flat_map(|set| names.map(|(bytes, name)| (*set, bytes, name)));
    for (number, (set, bytes, name)) in studies.enumerate() {
        store(&mut peer, &format!("1.2.{number}.1.1"), &study(set, bytes, number));
        for keys in [by_name("ISO_IR 192", name.as_bytes(), number), by_name(set, bytes, number)] {
            let (answers, _) = ask(&mut peer, &keys);
            let [answer] = answers.as_slice() else { panic!("{name} in {set}: {} answers", answers.len()) };
            assert_eq!(identifier(answer).text(NAME), Some(name), "{set}");
        }
    }
    peer.release();
}

/// PS3.4 table C.4-1 and C.4.1.1.3.2: the contents of an answer, and the elements of each final
/// response.
#[test]
fn answers_have_what_was_asked_for_and_statuses_say_why() {
    let node = TestNode::with(|settings| settings.query.limit = Some(2));
    let mut peer = node.associate(CONTEXTS);
    for number in 1..=3 {
        store(&mut peer, &format!("1.2.{number}.1.1"), &study("", b"Doe^John", number));
    }
    let tags =
        |response: &Received| identifier(response).elements.iter().map(|element| element.tag).collect::<Vec<_>>();
    // C.4.1.1.3.2: the keys, the level, the unique keys above, who can be asked for it; nothing
    // else.
    let series = DataSet::default()
        .text(0x0008, 0x0052, "SERIES")
        .text(0x0008, 0x103E, "")
        .uid(0x0020, 0x000D, "1.2.1")
        .uid(0x0020, 0x000E, "");
    let (answers, last) = ask(&mut peer, &series);
    assert_eq!((answers.len(), answers[0].status(), last.status()), (1, 0xFF00, 0));
    let expected = [Tag(8, 0x52), Tag(8, 0x54), Tag(8, 0x103E), Tag(0x20, 0x0D), Tag(0x20, 0x0E)];
    assert_eq!(tags(&answers[0]), expected);
    assert_eq!(identifier(&answers[0]).text(Tag(8, 0x103E)), Some(""), "zero length where there is no value");
    // C.2.2.1.3: an optional key that is not supported is not answered, and the status says so.
    let unsupported =
        DataSet::default().text(0x0008, 0x0052, "STUDY").uid(0x0020, 0x000D, "1.2.1").text(0x0040, 0x2016, "");
    let (answers, _) = ask(&mut peer, &unsupported);
    assert_eq!((answers.len(), answers[0].status()), (1, 0xFF01));
    assert!(!tags(&answers[0]).contains(&Tag(0x40, 0x2016)));
    // A limit announces itself, after as many answers as it allows.
    let all = DataSet::default().text(0x0008, 0x0052, "STUDY").uid(0x0020, 0x000D, "");
    let (answers, last) = ask(&mut peer, &all);
    assert_eq!((answers.len(), last.status()), (2, 0xA700));
    assert_eq!(last.error_comment(), "more than 2 matches; these are the first");
    // What is wrong with an Identifier is named.
    let offending = |response: &Received| response.command.value(tags::OFFENDING_ELEMENT).map(<[u8]>::to_vec);
    let level = Some(vec![0x08, 0, 0x52, 0]);
    for (keys, status, comment, element) in [
        (
            DataSet::default().uid(0x0020, 0x000D, ""),
            0xA900,
            "Query/Retrieve Level (0008,0052) is missing",
            level.clone(),
        ),
        (
            DataSet::default().text(0x0008, 0x0052, "ROOM"),
            0xA900,
            "Query/Retrieve Level (0008,0052) is not a known level",
            level.clone(),
        ),
        (DataSet::default().text(0x0008, 0x0052, "PATIENT"), 0xA900, "Study Root has no level PATIENT", level.clone()),
        (
            DataSet::default().text(0x0008, 0x0020, "2024-x").text(0x0008, 0x0052, "STUDY"),
            0xA900,
            "key (0008,0020): not a range of DA",
            Some(vec![0x08, 0, 0x20, 0]),
        ),
        (DataSet::default().header(0x0008, 0x0052, 99), 0xC001, "element (0008,0052) is cut off", level),
    ] {
        let (answers, last) = ask(&mut peer, &keys);
        assert_eq!((answers.len(), last.status()), (0, status), "{comment}");
        assert!(last.error_comment().len() <= 64, "PS3.7 C.4.2: LO");
        assert!(last.error_comment().starts_with(comment), "{comment}: {}", last.error_comment());
        assert_eq!(offending(&last), element, "{comment}");
    }
    peer.release();
    // Strict hierarchical queries, and FF00 for clients that take FF01 for a failure.
    let directory = node.directory();
    node.stop();
    let node = TestNode::with(|settings| {
        settings.directory = directory;
        settings.query.hierarchy = Hierarchy::Strict;
        settings.query.pending = PendingStatus::AlwaysFf00;
    });
    let mut peer = node.associate(CONTEXTS);
    let (answers, _) = ask(&mut peer, &unsupported);
    assert_eq!((answers.len(), answers[0].status()), (1, 0xFF00));
    let without_study = DataSet::default().text(0x0008, 0x0052, "SERIES").uid(0x0020, 0x000E, "");
    let (answers, last) = ask(&mut peer, &without_study);
    assert_eq!((answers.len(), last.status()), (0, 0xA900));
    assert_eq!(offending(&last), Some(vec![0x20, 0, 0x0D, 0]));
    let other_level =
        DataSet::default().text(0x0008, 0x0052, "STUDY").text(0x0008, 0x0060, "CT").uid(0x0020, 0x000D, "");
    let (answers, last) = ask(&mut peer, &other_level);
    assert_eq!((answers.len(), last.status(), offending(&last)), (0, 0xA900, Some(vec![0x08, 0, 0x60, 0])));
    peer.release();
}
