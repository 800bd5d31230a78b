//! Real files, truncated and changed.

use proptest::prelude::*;

use super::*;

/// Returns the real files of at most 4 kB, one of each directory of the file set.
fn small() -> Vec<(PathBuf, Vec<u8>)> {
    let mut seen = std::collections::HashSet::new();
    let small: Vec<_> = table()
        .into_iter()
        .map(|(path, _)| path)
        .filter(|path| !path.starts_with(real().join("fileset")) || seen.insert(path.parent().unwrap().to_owned()))
        .map(|path| (path.clone(), std::fs::read(path).unwrap()))
        .filter(|(_, bytes)| bytes.len() <= 4_000)
        .collect();
    assert!(small.len() > 20);
    small
}

#[test]
fn a_cut_file_has_no_value_that_the_whole_file_has_not() {
    for (path, bytes) in small() {
        let full = whole(&bytes);
        for length in 0..bytes.len() {
            let Outcome::Instance(cut) = whole(&bytes[..length]) else { continue };
            let Outcome::Instance(full) = &full else { panic!("{} became an instance", path.display()) };
            for attribute in ATTRIBUTES {
                let value = cut.value(attribute.id);
                assert!(
                    value.is_empty() || value == full.value(attribute.id),
                    "{} cut at {length}: {}",
                    path.display(),
                    attribute.keyword
                );
            }
        }
    }
}

fn pieces(bytes: &[u8], sizes: &[usize]) -> Outcome {
    let mut parser = HeaderParser::for_file(Wanted::index());
    let mut rest = bytes;
    for size in sizes.iter().cycle() {
        let (piece, after) = rest.split_at((*size).min(rest.len()));
        rest = after;
        match parser.feed(piece) {
            Need::Done => break,
            Need::Skip(length) => {
                let length = usize::try_from(length).unwrap().min(rest.len());
                parser.skipped(length as u64);
                rest = &rest[length..];
            }
            Need::More => {}
        }
        if rest.is_empty() {
            break;
        }
    }
    Outcome::of(parser.finish())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    #[test]
    fn changed_files_read_the_same_in_pieces_of_any_size(
        which in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        cut in any::<prop::sample::Index>(),
        sizes in prop::collection::vec(1_usize..300, 1..6),
    ) {
        thread_local!(static FILES: Vec<(PathBuf, Vec<u8>)> = small());
        let mut bytes = FILES.with(|files| which.get(files).1.clone());
        for (at, byte) in &changes {
            let length = bytes.len();
            bytes[at.index(length)] = *byte;
        }
        if changes.len() % 2 == 1 {
            bytes.truncate(cut.index(bytes.len()));
        }
        let at_once = format!("{:?}", Shown(whole(&bytes)));
        prop_assert_eq!(format!("{:?}", Shown(pieces(&bytes, &sizes))), at_once);
    }

    #[test]
    fn random_bytes_behind_a_prefix_read_the_same_in_pieces_of_any_size(
        prefix in any::<bool>(),
        tokens in prop::collection::vec(token(), 0..40),
        sizes in prop::collection::vec(1_usize..40, 1..6),
    ) {
        let mut bytes = if prefix { made::prefix() } else { Vec::new() };
        bytes.extend(tokens.concat());
        let at_once = format!("{:?}", Shown(whole(&bytes)));
        prop_assert_eq!(format!("{:?}", Shown(pieces(&bytes, &sizes))), at_once);
    }
}

/// Generates pieces of data sets, so that random bytes get past the first element.
fn token() -> impl Strategy<Value = Vec<u8>> {
    let tag = prop::sample::select(vec![
        0x0000_0000,
        0x0000_0100,
        0x0002_0000,
        0x0002_0010,
        0x0008_0005,
        0x0008_0016,
        0x0008_0018,
        0x0008_1032,
        0x0009_1001,
        0x0010_0010,
        0x0020_000D,
        0x0020_000E,
        0x0040_0275,
        0xFFFE_E000,
        0xFFFE_E00D,
        0xFFFE_E0DD,
        0x7FE0_0010_u32,
    ]);
    let vr = prop::sample::select(vec!["UI", "SQ", "UN", "PN", "OB", "US", "??", "\0\0", "ZZ", "UT"]);
    let length = prop_oneof![Just(0), Just(made::UNDEFINED), 0..64_u32, any::<u16>().prop_map(u32::from)];
    let encoding = prop::sample::select(
        vec![made::ELE, made::ELE, made::ILE, made::EBE].into_iter().map(|e| (e.explicit, e.big)).collect::<Vec<_>>(),
    );
    prop_oneof![
        4 => (tag, vr, length, encoding, any::<bool>()).prop_map(|(tag, vr, length, (explicit, big), filled)| {
            let length = if vr == "UT" || ["SQ", "UN", "OB"].contains(&vr) { length } else { length.min(60_000) };
            let mut out = made::Encoding { explicit, big }.header(tag, vr, length);
            if filled && length <= 64 {
                out.extend(vec![b'1'; length as usize]);
            }
            out
        }),
        1 => prop::collection::vec(any::<u8>(), 0..40),
    ]
}
