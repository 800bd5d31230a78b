//! Objects made to break a reader. Reading each must end, keep everything before the trap, and
//! take little memory.

use std::io::Write;

use super::made::*;
use super::*;

/// Limit on the memory of the process. It is far above the need of all tests, and far below the
/// 4 GiB of a declared length.
const MOST_MEMORY: u64 = 1 << 30;

fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) << 10
}

/// Builds the handmade data set up to its Series Instance UID, followed by the trap. Returns
/// the faults.
fn trapped(encoding: Encoding, syntax: &str, trap: &[u8]) -> Vec<String> {
    let data_set = encoding.data_set();
    let keep = data_set.len() - encoding.element(0x0028_0010, "US", &[0, 0]).len();
    let bytes = file(syntax, &[&data_set[..keep], trap].concat());
    let record = instance(whole(&bytes));
    assert_eq!(record.value(AttributeId::PatientName), "Müller^A");
    assert_eq!(record.value(AttributeId::SeriesInstanceUID), "1.2.3.4.5.1");
    assert!(peak_memory() < MOST_MEMORY, "{} bytes", peak_memory());
    faults(&record)
}

#[test]
fn sequences_nested_a_million_deep() {
    // Wanted (0040,0275) and not (0040,0555).
    for tag in [0x0040_0275, 0x0040_0555] {
        for depth in [65, 1_800, 10_000, 1_000_000] {
            for (encoding, syntax) in [(ELE, EXPLICIT_LE), (ILE, IMPLICIT_LE), (EBE, EXPLICIT_BE)] {
                let level = [encoding.header(tag, "SQ", UNDEFINED), encoding.header(0xFFFE_E000, "", UNDEFINED)];
                let faults = trapped(encoding, syntax, &level.concat().repeat(depth));
                assert!(faults.iter().any(|fault| fault.ends_with("is nested too deep")), "{depth}: {faults:?}");
            }
        }
        let level = [ELE.header(tag, "SQ", UNDEFINED), ELE.header(0xFFFE_E000, "", UNDEFINED)].concat();
        let end = [ELE.header(0xFFFE_E00D, "", 0), ELE.header(0xFFFE_E0DD, "", 0)].concat();
        assert_eq!(trapped(ELE, EXPLICIT_LE, &[level.repeat(64), end.repeat(64)].concat()), [""; 0]);
    }
}

#[test]
fn four_gigabytes_declared_in_every_vr() {
    for vr in ["OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"] {
        for tag in [0x0021_1001, 0x0028_0011, 0x0040_0275] {
            for length in [0xFFFF_FFFE_u32, 0x7FFF_FFFF, 0xFFFF_FFF0] {
                let trap = [ELE.header(tag, vr, length), vec![0; 20]].concat();
                let faults = trapped(ELE, EXPLICIT_LE, &trap);
                assert!(faults.iter().any(|fault| fault.starts_with("truncated")), "{vr} {tag:08X}: {faults:?}");
                trapped(ILE, IMPLICIT_LE, &[ILE.header(tag, vr, length), vec![0; 20]].concat());
            }
        }
    }
}

#[test]
fn a_small_deflated_data_set_that_inflates_for_ever() {
    let data_set = ELE.data_set();
    let keep = data_set.len() - ELE.element(0x0028_0010, "US", &[0, 0]).len();
    for tag in [0x0021_1001, 0x0040_0275] {
        let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&data_set[..keep]).unwrap();
        encoder.write_all(&ELE.header(tag, "OB", 0xFFFF_FFFE)).unwrap();
        for _ in 0..512 {
            encoder.write_all(&[0; 1 << 20]).unwrap();
        }
        let bytes = file(DEFLATED, &encoder.finish().unwrap());
        let record = instance(whole(&bytes));
        assert_eq!(record.value(AttributeId::PatientName), "Müller^A");
        assert_eq!(faults(&record), ["inflated data set is too long"]);
    }
}

#[test]
fn what_precedes_the_damage_of_a_deflated_data_set_is_kept() {
    let data_set = ELE.data_set();
    let keep = data_set.len() - ELE.element(0x0028_0010, "US", &[0, 0]).len();
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&data_set[..keep]).unwrap();
    encoder.write_all(&ELE.element(0x0021_1001, "LO", &[b'x'; 60_000])).unwrap();
    encoder.flush().unwrap();
    // No block begins so (RFC 1951 3.2.3: type 11 is an error).
    let damaged = [encoder.get_ref().as_slice(), &[0xFF; 64]].concat();
    let record = instance(whole(&file(DEFLATED, &damaged)));
    assert_eq!(record.value(AttributeId::SeriesInstanceUID), "1.2.3.4.5.1");
    assert_eq!(faults(&record), ["deflated data set is damaged"]);
    for size in 1..40 {
        let mut parser = HeaderParser::for_data_set(Wanted::index(), DEFLATED);
        for piece in damaged.chunks(size) {
            parser.feed(piece);
        }
        let in_pieces = instance(Outcome::of(parser.finish()));
        assert_eq!(format!("{:?}", in_pieces.faults()), format!("{:?}", record.faults()));
        assert_eq!(in_pieces.value(AttributeId::PatientName), "Müller^A");
    }
}

#[test]
fn millions_of_items_elements_and_delimiters() {
    let sequence = |tag| ELE.header(tag, "SQ", UNDEFINED);
    for tag in [0x0040_0275, 0x0040_0555] {
        trapped(ELE, EXPLICIT_LE, &[sequence(tag), ELE.header(0xFFFE_E000, "", 0).repeat(1_000_000)].concat());
    }
    let stray = [ELE.header(0xFFFE_E00D, "", 0), ELE.header(0xFFFE_E0DD, "", 0)].concat();
    let faults = trapped(ELE, EXPLICIT_LE, &stray.repeat(1_000_000));
    assert!(faults.len() < 10, "a few are enough: {}", faults.len());
    let faults = trapped(ELE, EXPLICIT_LE, &stray.repeat(2_000_000));
    assert!(faults.contains(&"header is too long".to_owned()), "{faults:?}");
    trapped(ELE, EXPLICIT_LE, &ELE.header(0x0021_1001, "LO", 0).repeat(1_000_000));
    trapped(ELE, EXPLICIT_LE, &ELE.header(0x0010_0010, "PN", 0).repeat(1_000_000));
    let many = ELE.element(0x0010_4000, "LT", &[b'x'; 60_000]);
    let faults = trapped(ELE, EXPLICIT_LE, &many.repeat(400));
    assert!(faults.contains(&"header is too long".to_owned()), "{faults:?}");
}

#[test]
fn backslashes_and_nothing_else() {
    let names = ELE.element(0x0020_4000, "LO", &[b'\\'; 65_534]);
    trapped(ELE, EXPLICIT_LE, &names);
    let sequence = [
        ELE.header(0x0040_0275, "SQ", UNDEFINED),
        ELE.header(0xFFFE_E000, "", UNDEFINED),
        ELE.element(0x0040_0007, "LO", &[b'\\'; 60_000]),
    ];
    let end = [ELE.header(0xFFFE_E00D, "", 0), ELE.header(0xFFFE_E0DD, "", 0)].concat();
    let faults = trapped(ELE, EXPLICIT_LE, &[sequence.concat(), end].concat());
    assert_eq!(faults, ["value of (0040,0275) is too long"], "60,000 times null");
}

#[test]
fn one_tag_over_and_over_takes_no_more_room_than_once() {
    let many = ELE.element(0x0020_4000, "LT", b"x").repeat(1_000_000);
    trapped(ELE, EXPLICIT_LE, &many);
    let data_set = [many, ELE.element(0x0020_4000, "LT", b"last")].concat();
    let wanted = Wanted::new([(dicom_core::Tag(0x0020, 0x4000), dicom_core::VR::LT)]);
    let mut parser = HeaderParser::for_data_set(&wanted, EXPLICIT_LE);
    parser.feed(&data_set);
    assert_eq!(parser.finish().text(0).as_deref(), Some("last"));
}
