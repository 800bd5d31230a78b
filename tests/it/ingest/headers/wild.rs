//! Odd objects that real archives hold.

use super::made::*;
use super::*;

const NONE: [&str; 0] = [];

#[test]
fn all_encodings() {
    assert_eq!(assert_read(&file(EXPLICIT_LE, &ELE.data_set())), NONE);
    assert_eq!(assert_read(&file(IMPLICIT_LE, &ILE.data_set())), NONE);
    assert_eq!(assert_read(&file(EXPLICIT_BE, &EBE.data_set())), NONE);
    assert_eq!(assert_read(&file(DEFLATED, &deflate(&ELE.data_set()))), NONE);
    assert_eq!(assert_read(&file("1.2.840.10008.1.2.4.70", &ELE.data_set())), NONE);
}

#[test]
fn private_transfer_syntaxes_are_read_in_the_encoding_that_is_found() {
    for encoding in [ELE, ILE, EBE] {
        let bytes = file("1.2.840.113619.5.2", &encoding.data_set());
        assert_eq!(assert_read(&bytes), NONE);
        let record = instance(whole(&bytes));
        assert_eq!(record.value(AttributeId::AvailableTransferSyntaxUID), "1.2.840.113619.5.2");
    }
}

#[test]
fn a_transfer_syntax_that_is_not_the_one_declared() {
    let wrong = ["data set is not encoded as its transfer syntax says"];
    for (declared, data_set, actual) in [
        (EXPLICIT_LE, ILE.data_set(), IMPLICIT_LE),
        (EXPLICIT_LE, EBE.data_set(), EXPLICIT_BE),
        (IMPLICIT_LE, ELE.data_set(), EXPLICIT_LE),
        (IMPLICIT_LE, EBE.data_set(), EXPLICIT_BE),
        (EXPLICIT_BE, ELE.data_set(), EXPLICIT_LE),
        (EXPLICIT_BE, ILE.data_set(), IMPLICIT_LE),
        (DEFLATED, ELE.data_set(), EXPLICIT_LE),
        ("1.2.840.10008.1.2.4.70", ILE.data_set(), "1.2.840.10008.1.2.4.70"),
    ] {
        let bytes = file(declared, &data_set);
        assert_eq!(assert_read(&bytes), wrong, "{declared} is {actual}");
        assert_eq!(instance(whole(&bytes)).value(AttributeId::AvailableTransferSyntaxUID), actual);
    }
}

#[test]
fn file_meta_information_that_is_missing_or_wrong() {
    let data_set = ELE.data_set();
    let uid = ELE.element(0x0002_0010, "UI", b"1.2.840.10008.1.2.1\0");
    let class = ELE.element(0x0002_0002, "UI", b"1.2.840.10008.5.1.4.1.1.2\0");
    let wrong_length = ["file meta information has a wrong group length"];
    for length in [0_u32, 2, 4_000_000, u32::MAX] {
        let length = ELE.element(0x0002_0000, "UL", &length.to_le_bytes());
        assert_eq!(assert_read(&[prefix(), length, uid.clone(), data_set.clone()].concat()), wrong_length);
    }
    assert_eq!(assert_read(&[prefix(), uid.clone(), data_set.clone()].concat()), NONE, "without group length");
    assert_eq!(assert_read(&[b"DICM".to_vec(), uid.clone(), data_set.clone()].concat()), NONE, "without preamble");
    assert_eq!(assert_read(&[uid.clone(), data_set.clone()].concat()), NONE, "without prefix");
    assert_eq!(assert_read(&[prefix(), data_set.clone()].concat()), NONE, "without meta");
    for encoding in [ELE, ILE, EBE] {
        let no_syntax = [prefix(), class.clone(), encoding.data_set()].concat();
        assert_eq!(assert_read(&no_syntax), ["file meta information has no transfer syntax"]);
        assert_eq!(assert_read(&encoding.data_set()), NONE, "data set alone");
    }
    let implicit = ILE.element(0x0002_0010, "UI", b"1.2.840.10008.1.2.1\0");
    let big = EBE.element(0x0002_0010, "UI", b"1.2.840.10008.1.2.1\0");
    for meta in [implicit, big] {
        let faults = assert_read(&[prefix(), meta, data_set.clone()].concat());
        assert_eq!(faults, ["file meta information is not explicit little endian"]);
    }
    // The deflated data set may begin with the bytes of group 0002; then only the group length
    // tells.
    assert_eq!(assert_read(&file(DEFLATED, &zlib(&data_set))), NONE, "zlib stream");
}

fn zlib(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn uids_of_the_meta_information_stand_in() {
    let meta = [
        prefix(),
        ELE.element(0x0002_0002, "UI", b"1.2.840.10008.5.1.4.1.1.2\0"),
        ELE.element(0x0002_0003, "UI", b"1.2.3.4.5.6\0"),
        ELE.element(0x0002_0010, "UI", b"1.2.840.10008.1.2.1\0"),
        ELE.element(0x0020_000D, "UI", b"1.2.3.4.5\0"),
        ELE.element(0x0020_000E, "UI", b"1.2.3.4.5.1\0"),
    ];
    let record = instance(whole(&meta.concat()));
    assert_eq!(record.value(AttributeId::SOPInstanceUID), "1.2.3.4.5.6");
    assert_eq!(
        faults(&record),
        [
            "UID (0008,0016) taken from the file meta information",
            "UID (0008,0018) taken from the file meta information"
        ]
    );
}

/// Builds the handmade data set with `middle` between its halves.
fn around(encoding: Encoding, middle: &[u8]) -> Vec<u8> {
    let data_set = encoding.data_set();
    let split = encoding.element(0x0008_0005, "CS", b"ISO_IR 100").len()
        + encoding.element(0x0008_0016, "UI", b"1.2.840.10008.5.1.4.1.1.2\0").len();
    [&data_set[..split], middle, &data_set[split..]].concat()
}

fn with(syntax: &str, encoding: Encoding, middle: &[Vec<u8>]) -> Vec<u8> {
    file(syntax, &around(encoding, &middle.concat()))
}

/// Builds the handmade data set with `middle` before Patient's Name. `middle` begins with tags
/// of group 0008 and 0009.
fn before_name(syntax: &str, encoding: Encoding, middle: &[u8]) -> Vec<u8> {
    let data_set = encoding.data_set();
    let name = encoding.header(0x0010_0010, "PN", 8);
    let at = data_set.windows(4).position(|window| *window == name[..4]).unwrap();
    file(syntax, &[&data_set[..at], middle, &data_set[at..]].concat())
}

fn item(encoding: Encoding, length: u32) -> Vec<u8> {
    encoding.header(0xFFFE_E000, "", length)
}

fn item_end(encoding: Encoding) -> Vec<u8> {
    encoding.header(0xFFFE_E00D, "", 0)
}

fn sequence_end(encoding: Encoding) -> Vec<u8> {
    encoding.header(0xFFFE_E0DD, "", 0)
}

#[test]
fn names_inside_sequences_are_not_the_patients() {
    for (syntax, encoding) in [(EXPLICIT_LE, ELE), (IMPLICIT_LE, ILE), (EXPLICIT_BE, EBE)] {
        let name = encoding.element(0x0010_0010, "PN", b"Other^Name");
        let nested = [
            encoding.header(0x0008_0017, "SQ", UNDEFINED),
            item(encoding, UNDEFINED),
            encoding.header(0x0008_1140, "SQ", UNDEFINED),
            item(encoding, name.len() as u32),
            name.clone(),
            sequence_end(encoding),
            name.clone(),
            item_end(encoding),
            sequence_end(encoding),
        ];
        assert_eq!(assert_read(&with(syntax, encoding, &nested)), NONE);
    }
}

#[test]
fn unknown_vr_of_undefined_length_is_implicit_inside() {
    // PS3.5 6.2.2; and, from writers that got it wrong, explicit.
    let name = |encoding: Encoding| encoding.element(0x0010_0010, "PN", b"Other^Name");
    for (syntax, outer) in [(EXPLICIT_LE, ELE), (EXPLICIT_BE, EBE)] {
        for inner in [ILE, ELE] {
            let nested = [
                outer.header(0x0008_0017, "UN", UNDEFINED),
                item(ILE, UNDEFINED),
                name(inner),
                item_end(ILE),
                item(ILE, name(inner).len() as u32),
                name(inner),
                sequence_end(ILE),
            ];
            assert_eq!(assert_read(&with(syntax, outer, &nested)), NONE);
        }
    }
}

#[test]
fn delimiters_that_are_missing_or_stray() {
    let name = ELE.element(0x0008_0100, "SH", b"CODE");
    let open = [ELE.header(0x0008_0017, "SQ", UNDEFINED), item(ELE, UNDEFINED), name.clone()].concat();
    let lacks = ["sequence (0008,0017) has no delimiter at its end"];
    // The item's delimiter.
    assert_eq!(assert_read(&with(EXPLICIT_LE, ELE, &[open.clone(), sequence_end(ELE)])), lacks);
    let two = [open.clone(), item(ELE, UNDEFINED), name.clone(), item_end(ELE), sequence_end(ELE)];
    assert_eq!(assert_read(&with(EXPLICIT_LE, ELE, &two)), lacks);
    // The sequence's.
    assert_eq!(assert_read(&with(EXPLICIT_LE, ELE, &[open.clone(), item_end(ELE)])), lacks);
    for stray in [item_end(ELE), sequence_end(ELE), item(ELE, 0)] {
        let faults = assert_read(&with(EXPLICIT_LE, ELE, &[stray.clone(), stray]));
        assert!(faults.iter().all(|fault| fault.starts_with("stray delimiter at byte ")), "{faults:?}");
    }
}

#[test]
fn elements_without_a_valid_vr() {
    for header in [
        &b"\x08\0\x17\0??\x04\0"[..],
        b"\x08\0\x17\0\0\0\x04\0",
        b"\x08\0\x17\0\x04\0\0\0",
        b"\x08\0\x17\0ZZ\0\0\x04\0\0\0",
    ] {
        let faults = assert_read(&with(EXPLICIT_LE, ELE, &[header.to_vec(), b"abcd".to_vec()]));
        assert_eq!(faults, ["element (0008,0017) has no valid VR"], "{header:?}");
    }
    // A long VR in the short form, as writers do that are older than the VR.
    let faults = assert_read(&with(EXPLICIT_LE, ELE, &[b"\x08\0\x17\0UT\x04\0abcd".to_vec()]));
    assert_eq!(faults, ["element (0008,0017) has no valid VR"]);
}

#[test]
fn the_group_length_says_where_file_meta_information_ends() {
    // A whole group, and a data set that begins with elements of group 0002.
    for (syntax, encoding) in [(EXPLICIT_LE, ELE), (IMPLICIT_LE, ILE), (EXPLICIT_BE, EBE)] {
        for other in ["1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2\0"] {
            let second = encoding.element(0x0002_0010, "UI", other.as_bytes());
            let bytes = file(syntax, &[second, encoding.data_set()].concat());
            assert_eq!(assert_read(&bytes), ["element (0002,0010) is not part of a data set"]);
            assert_eq!(instance(whole(&bytes)).value(AttributeId::AvailableTransferSyntaxUID), syntax);
        }
    }
    // Without a length, and with one that is too small: the first transfer syntax counts, and the
    // group ends where its elements end.
    let first = ELE.element(0x0002_0010, "UI", b"1.2.840.10008.1.2\0");
    let second = ELE.element(0x0002_0010, "UI", b"1.2.840.10008.1.2.4.70");
    let bytes = [prefix(), first.clone(), second.clone(), ILE.data_set()].concat();
    assert_eq!(assert_read(&bytes), NONE);
    assert_eq!(instance(whole(&bytes)).value(AttributeId::AvailableTransferSyntaxUID), IMPLICIT_LE);
    let length = ELE.element(0x0002_0000, "UL", &(first.len() as u32).to_le_bytes());
    let bytes = [prefix(), length.clone(), first, second, ILE.data_set()].concat();
    assert_eq!(assert_read(&bytes), ["file meta information has a wrong group length"]);
    assert_eq!(instance(whole(&bytes)).value(AttributeId::AvailableTransferSyntaxUID), IMPLICIT_LE);
    // What is deflated is no element.
    let syntax = ELE.element(0x0002_0010, "UI", b"1.2.840.10008.1.2.1.99");
    let length = ELE.element(0x0002_0000, "UL", &(syntax.len() as u32).to_le_bytes());
    let more = ELE.element(0x0002_0016, "AE", b"SENDER");
    let bytes = [prefix(), length, syntax, more, deflate(&ELE.data_set())].concat();
    assert_eq!(assert_read(&bytes), ["file meta information has a wrong group length"]);
}

#[test]
fn command_elements_around_a_data_set_are_passed_over() {
    let commands = |encoding: Encoding| {
        let length = if encoding.big { [0, 0, 0, 20] } else { [20, 0, 0, 0] };
        [
            encoding.element(0, "UL", &length),
            encoding.element(0x0000_0002, "UI", b"1.2.840.10008.5.1.4.1.1.7\0"),
            encoding.element(0x0000_0100, "US", &[1, 0]),
            encoding.element(0x0000_1000, "UI", b"1.2.3.9\0"),
        ]
        .concat()
    };
    let no_place = "is not part of a data set";
    for (syntax, encoding) in [(EXPLICIT_LE, ELE), (IMPLICIT_LE, ILE), (EXPLICIT_BE, EBE), (DEFLATED, ELE)] {
        let data_set = match syntax {
            DEFLATED => deflate(&encoding.data_set()),
            _ => encoding.data_set(),
        };
        for other in [ELE, ILE, EBE] {
            if other.big && !encoding.big {
                continue;
            }
            // Between file meta information and data set.
            let faults = assert_read(&file(syntax, &[commands(other), data_set.clone()].concat()));
            assert!(!faults.is_empty() && faults.iter().all(|fault| fault.ends_with(no_place)), "{faults:?}");
        }
        for start in [prefix(), b"DICM".to_vec(), Vec::new()] {
            let faults = assert_read(&[start, commands(ILE), meta(syntax), data_set.clone()].concat());
            assert!(!faults.is_empty() && faults.iter().all(|fault| fault.ends_with(no_place)), "{faults:?}");
        }
        // Behind it, and in its middle.
        if syntax != DEFLATED {
            assert_read(&file(syntax, &[encoding.data_set(), commands(encoding)].concat()));
            assert_read(&with(syntax, encoding, &[commands(encoding)]));
        }
    }
    // A message as it was recorded.
    assert!(!assert_read(&[commands(ILE), ILE.data_set()].concat()).is_empty());
    // Zeros are no element.
    assert!(matches!(whole(&[&prefix()[..], &[0; 512]].concat()), Outcome::Incomplete { .. }));
}

#[test]
fn what_is_no_item_costs_its_sequence_and_nothing_else() {
    // Kept by the index, and not.
    for tag in [0x0008_0051, 0x0008_1032, 0x0008_1110, 0x0008_9215] {
        for (syntax, encoding) in [(EXPLICIT_LE, ELE), (IMPLICIT_LE, ILE), (EXPLICIT_BE, EBE)] {
            let code = encoding.element(0x0008_0100, "SH", b"CODE");
            let whole_item = [item(encoding, code.len() as u32), code.clone()].concat();
            for content in [
                b"Test,Case19  ".to_vec(),
                b"\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09".to_vec(),
                [whole_item.clone(), b"and twenty-two of junk".to_vec()].concat(),
                [item(encoding, 30), code.clone(), b"junk within the it".to_vec()].concat(),
                [item(encoding, 2_000), code.clone()].concat(),
                // The header of an element that is cut off by the end of its item.
                [item(encoding, code.len() as u32 + 8), code.clone(), b"\x09\0\x01\x10UN\0\0".to_vec()].concat(),
                [whole_item.clone(), sequence_end(encoding), code.clone()].concat(),
                [item(encoding, UNDEFINED), code.clone(), item_end(encoding), code.clone()].concat(),
            ] {
                for vr in ["SQ", "UN"] {
                    if vr == "UN" && encoding.big {
                        continue;
                    }
                    let sequence = encoding.element(tag, vr, &content);
                    // A sequence that nobody wants is not looked into.
                    let faults = assert_read(&before_name(syntax, encoding, &sequence));
                    assert_eq!(faults.is_empty(), tag == 0x0008_9215, "{content:?} {vr} {faults:?}");
                }
            }
        }
    }
}

#[test]
fn a_delimiter_does_not_shorten_what_has_a_length() {
    let name = ELE.element(0x0010_0010, "PN", b"Other^Name");
    let content = [item(ELE, UNDEFINED), item_end(ELE), sequence_end(ELE), name].concat();
    let faults = assert_read(&before_name(EXPLICIT_LE, ELE, &ELE.element(0x0008_1032, "SQ", &content)));
    assert!(faults.iter().any(|fault| fault.starts_with("stray delimiter")), "{faults:?}");
    // One that stands at its end does no harm.
    let code = ELE.element(0x0008_0100, "SH", b"CODE");
    let content = [item(ELE, code.len() as u32 + 8), code, item_end(ELE), sequence_end(ELE)].concat();
    let bytes = before_name(EXPLICIT_LE, ELE, &ELE.element(0x0008_1032, "SQ", &content));
    assert_eq!(assert_read(&bytes), NONE);
    let kept = r#"[{"00080100":{"vr":"SH","Value":["CODE"]}}]"#;
    assert_eq!(instance(whole(&bytes)).value(AttributeId::ProcedureCodeSequence), kept);
}

#[test]
fn of_two_readings_of_an_item_the_one_counts_that_goes_on() {
    let kept = r#"[{"00080100":{"vr":"SH","Value":["C1"]},"00080102":{"vr":"SH","Value":["99X"]}}]"#;
    let code = |encoding: Encoding| {
        [encoding.element(0x0008_0100, "SH", b"C1"), encoding.element(0x0008_0102, "SH", b"99X ")].concat()
    };
    let undefined = |outer: Encoding, vr: &str, tag: u32, content: Vec<u8>| {
        let marks = if vr == "UN" { ILE } else { outer };
        [outer.header(tag, vr, UNDEFINED), item(marks, UNDEFINED), content, item_end(marks), sequence_end(marks)]
            .concat()
    };
    let read = |syntax: &str, encoding: Encoding, sequence: Vec<u8>| {
        let bytes = before_name(syntax, encoding, &sequence);
        (assert_read(&bytes), instance(whole(&bytes)).value(AttributeId::ProcedureCodeSequence).to_owned())
    };
    // Explicit items in an implicit data set.
    let wrong = vec!["data set is not encoded as its transfer syntax says".to_owned()];
    let (faults, value) = read(IMPLICIT_LE, ILE, undefined(ILE, "SQ", 0x0008_1032, code(ELE)));
    assert_eq!((faults, value.as_str()), (wrong.clone(), kept));
    let defined = ILE.element(0x0008_1032, "SQ", &[item(ILE, code(ELE).len() as u32), code(ELE)].concat());
    let (faults, value) = read(IMPLICIT_LE, ILE, defined);
    assert_eq!((faults, value.as_str()), (wrong, kept));
    // UN is implicit, and some writers leave it explicit.
    for inner in [ILE, ELE] {
        let (faults, value) = read(EXPLICIT_LE, ELE, undefined(ELE, "UN", 0x0008_1032, code(inner)));
        assert_eq!((faults, value.as_str()), (NONE.map(str::to_owned).to_vec(), kept));
    }
    // The length of an implicit element that looks like a VR.
    for letters in [*b"DA", *b"UI", *b"OB", *b"UT", *b"SQ"] {
        let length = u32::from(u16::from_le_bytes(letters));
        for tag in [0x0009_1011, 0x0008_0119] {
            let long = [ILE.header(tag, "", length), vec![b'x'; length as usize]].concat();
            let (faults, _) = read(EXPLICIT_LE, ELE, undefined(ELE, "UN", 0x0009_1010, long.clone()));
            assert_eq!(faults, NONE, "{}", String::from_utf8_lossy(&letters));
            let (faults, _) = read(IMPLICIT_LE, ILE, undefined(ILE, "SQ", 0x0008_1140, long));
            assert_eq!(faults, NONE);
        }
    }
    // An explicit element that is longer than anybody looks ahead.
    for (tag, vr) in [(0x0008_0104, "LO"), (0x0008_0119, "UC")] {
        let long = [ELE.element(tag, vr, &[b'x'; 3_000]), ELE.element(0x0010_0010, "PN", b"Other")].concat();
        let (faults, _) = read(EXPLICIT_LE, ELE, undefined(ELE, "UN", 0x0009_1010, long));
        assert_eq!(faults, NONE);
    }
}

#[test]
fn numbers_as_text_in_items_stay_as_they_were_written() {
    let value = |value: &[u8]| {
        let element = ELE.element(0x0018_9073, "DS", value);
        [item(ELE, element.len() as u32), element].concat()
    };
    let content = [value(b"1E400 "), value(b"1.50"), value(b"-0"), value(b"12\\1.5 ")].concat();
    let record = instance(whole(&with(EXPLICIT_LE, ELE, &[ELE.element(0x0008_1032, "SQ", &content)])));
    assert_eq!(
        record.value(AttributeId::ProcedureCodeSequence),
        concat!(
            r#"[{"00189073":{"vr":"DS","Value":["1E400"]}},{"00189073":{"vr":"DS","Value":["1.50"]}},"#,
            r#"{"00189073":{"vr":"DS","Value":["-0"]}},{"00189073":{"vr":"DS","Value":[12,1.5]}}]"#
        )
    );
}

#[test]
fn tags_out_of_order_and_twice() {
    let late = [ELE.element(0x0028_0011, "US", &[1, 0]), ELE.element(0x0008_0060, "CS", b"MR")].concat();
    let record = instance(whole(&file(EXPLICIT_LE, &[ELE.data_set(), late].concat())));
    assert_eq!(record.value(AttributeId::Modality), "MR");
    assert_eq!(record.value(AttributeId::Columns), "1");
    assert_eq!(faults(&record), ["tag (0008,0060) is out of order"]);
    let charset_last = [
        ELE.element(0x0008_0018, "UI", b"1.2.3.4.5.6\0"),
        ELE.element(0x0010_0010, "PN", b"\xe5\xb1\xb1"),
        ELE.element(0x0008_0005, "CS", b"ISO_IR 192"),
        ELE.element(0x0008_0016, "UI", b"1.2.840.10008.5.1.4.1.1.2\0"),
        ELE.element(0x0020_000D, "UI", b"1.2.3.4.5\0"),
        ELE.element(0x0020_000E, "UI", b"1.2.3.4.5.1\0"),
    ];
    let record = instance(whole(&file(EXPLICIT_LE, &charset_last.concat())));
    assert_eq!(record.value(AttributeId::PatientName), "山");
}

#[test]
fn large_values_are_skipped_and_long_ones_left_out() {
    let length = 100_000;
    let private = [ELE.header(0x0009_1001, "OB", length), vec![7; length as usize]].concat();
    let mut split = ELE.data_set();
    let at = split.windows(4).position(|window| window == [0x10, 0, 0x10, 0]).unwrap();
    split.splice(at..at, private);
    let bytes = file(EXPLICIT_LE, &split);
    let mut parser = HeaderParser::for_file(Wanted::index());
    let Need::Skip(skip) = parser.feed(&bytes[..8192]) else { panic!("a value of 100 kB is not needed") };
    parser.skipped(skip);
    parser.feed(&bytes[8192 + usize::try_from(skip).unwrap()..]);
    let record = instance(Outcome::of(parser.finish()));
    assert_eq!(record.value(AttributeId::Rows), "512");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("large");
    std::fs::write(&path, &bytes).unwrap();
    assert_eq!(instance(read_file(&File::open(&path).unwrap(), Wanted::index())), record);
    std::fs::write(&path, &bytes[..50_000]).unwrap();
    let Outcome::Damaged { fault } = read_file(&File::open(&path).unwrap(), Wanted::index()) else {
        panic!("it is cut")
    };
    assert_eq!(fault.to_string(), "truncated at byte 50000");

    let long = ELE.header(0x0008_1030, "UT", 70_000);
    let faults = assert_read(&with(EXPLICIT_LE, ELE, &[[long, vec![b'x'; 70_000]].concat()]));
    assert!(faults.contains(&"value of (0008,1030) is too long".to_owned()), "{faults:?}");
}

#[test]
fn sequences_are_kept_as_json_in_all_encodings() {
    let expected = concat!(
        r#"[{"00080100":{"vr":"SH","Value":["C1"]},"00080104":{"vr":"LO","Value":["Größe"]},"#,
        r#""0040A170":{"vr":"SQ","Value":[{"00280010":{"vr":"US","Value":[513]}}]}},{},"#,
        r#"{"00080005":{"vr":"CS","Value":["ISO_IR 144"]},"00080104":{"vr":"LO","Value":["Л"]}}]"#
    );
    for (syntax, encoding) in [(EXPLICIT_LE, ELE), (IMPLICIT_LE, ILE), (EXPLICIT_BE, EBE)] {
        let rows = encoding.element(0x0028_0010, "US", if encoding.big { &[2, 1] } else { &[1, 2] });
        let inner = [item(encoding, rows.len() as u32), rows].concat();
        let first = [
            encoding.element(0x0008_0100, "SH", b"C1"),
            encoding.element(0x0008_0104, "LO", b"Gr\xf6\xdfe "),
            encoding.element(0x0040_A170, "SQ", &inner),
        ]
        .concat();
        let second =
            [encoding.element(0x0008_0005, "CS", b"ISO_IR 144"), encoding.element(0x0008_0104, "LO", b"\xbb ")]
                .concat();
        let undefined = [
            encoding.header(0x0008_1032, "SQ", UNDEFINED),
            item(encoding, UNDEFINED),
            first.clone(),
            item_end(encoding),
            item(encoding, 0),
            item(encoding, second.len() as u32),
            second.clone(),
            sequence_end(encoding),
        ];
        let content =
            [item(encoding, first.len() as u32), first, item(encoding, 0), item(encoding, second.len() as u32), second];
        let defined = [encoding.element(0x0008_1032, "SQ", &content.concat())];
        for sequence in [&undefined[..], &defined[..]] {
            let end = encoding.element(0x0008_0016, "UI", b"1.2.840.10008.5.1.4.1.1.2\0");
            let class = encoding.element(0x0008_0018, "UI", b"1.2.3.4.5.6\0");
            let rest = [
                encoding.element(0x0020_000D, "UI", b"1.2.3.4.5\0"),
                encoding.element(0x0020_000E, "UI", b"1.2.3.4.5.1\0"),
            ];
            let charset = encoding.element(0x0008_0005, "CS", b"ISO_IR 100");
            let data_set = [charset, end, class, sequence.concat(), rest.concat()].concat();
            let record = instance(whole(&file(syntax, &data_set)));
            assert_eq!(record.value(AttributeId::ProcedureCodeSequence), expected);
            assert!(record.faults().is_empty(), "{:?}", record.faults());
        }
    }
}

#[test]
fn a_first_element_without_vr_does_not_make_the_data_set_implicit() {
    let data_set = ELE.data_set();
    let charset = ELE.element(0x0008_0005, "CS", b"ISO_IR 100").len();
    let bytes = [ILE.element(0x0008_0005, "CS", b"ISO_IR 100"), data_set[charset..].to_vec()].concat();
    assert_eq!(assert_read(&file(EXPLICIT_LE, &bytes)), ["element (0008,0005) has no valid VR"]);
}

#[test]
fn a_wanted_sequence_of_unknown_vr_is_read() {
    let code = ILE.element(0x0008_0100, "SH", b"C1");
    let content = [item(ILE, code.len() as u32), code].concat();
    let defined = ELE.element(0x0008_1032, "UN", &content);
    let undefined = [ELE.header(0x0008_1032, "UN", UNDEFINED), content, sequence_end(ILE)].concat();
    for sequence in [defined, undefined] {
        let mut data_set = ELE.data_set();
        let at = data_set.windows(4).position(|window| window == [0x10, 0, 0x10, 0]).unwrap();
        data_set.splice(at..at, sequence);
        let bytes = file(EXPLICIT_LE, &data_set);
        assert_eq!(assert_read(&bytes), NONE);
        let record = instance(whole(&bytes));
        let expected = r#"[{"00080100":{"vr":"SH","Value":["C1"]}}]"#;
        assert_eq!(record.value(AttributeId::ProcedureCodeSequence), expected);
    }
}

#[test]
fn what_is_not_dicom_is_not_taken_for_it() {
    let cases: [(&[u8], &str); 12] = [
        (b"", "empty"),
        (b"DI", "too short"),
        (&[0; 4096], "no DICM prefix, and no data set at the start"),
        (b"Lorem ipsum dolor sit amet, consectetur adipiscing elit.", "no DICM prefix, and no data set at the start"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF\0", "JPEG image"),
        (b"\x89PNG\r\n\x1a\n", "PNG image"),
        (b"PK\x03\x04\x14\0\0\0", "zip archive"),
        (b"\x1f\x8b\x08\0\0\0\0\0", "gzip-compressed data"),
        (b"MZ\x90\0\x03\0\0\0", "executable"),
        (b"%PDF-1.7", "PDF document"),
        (b"\x08\0\x05\0CS\x0a\0ISO_IR 100this is not a data set at all", "no DICM prefix, and no data set"),
        (
            b"\x08\0\x05\0CS\x0a\0ISO_IR 100\x08\0\x60\0CS\x02\0MR",
            "no DICM prefix, and no UID where a data set has one",
        ),
    ];
    for (bytes, expected) in cases {
        match whole(bytes) {
            Outcome::NotDicom { reason } => assert_eq!(reason, expected),
            other => panic!("{expected}: {other:?}"),
        }
    }
}

#[test]
fn a_data_set_that_arrives_in_pieces() {
    for (syntax, bytes) in [
        (EXPLICIT_LE, ELE.data_set()),
        (IMPLICIT_LE, ILE.data_set()),
        (EXPLICIT_BE, EBE.data_set()),
        (DEFLATED, deflate(&ELE.data_set())),
    ] {
        for size in 1..20 {
            let mut parser = HeaderParser::for_data_set(Wanted::index(), syntax);
            for piece in bytes.chunks(size) {
                parser.feed(piece);
            }
            let record = instance(Outcome::of(parser.finish()));
            assert_eq!(record.value(AttributeId::PatientName), "Müller^A");
            assert_eq!(record.value(AttributeId::AvailableTransferSyntaxUID), syntax);
            assert!(record.faults().is_empty());
        }
    }
}
