//! Opening members of archives one after the other. It gives the same bytes as opening each alone,
//! and it costs a single pass.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use dcmdex::archive::{self, Archives, WantedMembers};
use proptest::prelude::*;

use crate::util::archives::{Keep, Zip, gzip, tar, tar_member};

/// Returns bytes that deflate to about half. Each seed gives other bytes.
fn data(seed: u32, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        b'a' + (state >> 28) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

fn file_of(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

/// Returns members `0` to `n` of many sizes. The name `3` occurs twice, with other bytes the second
/// time.
fn members(n: u32) -> Vec<(String, Vec<u8>)> {
    let mut members: Vec<_> =
        (0..n).map(|at| (at.to_string(), data(at, [0, 1, 511, 512, 40_000, 90_000][at as usize % 6]))).collect();
    members.push(("3".to_owned(), data(99, 700)));
    members.push(("last".to_owned(), data(100, 1_000)));
    members
}

fn as_tar(members: &[(String, Vec<u8>)]) -> Vec<u8> {
    let members: Vec<_> = members.iter().map(|(name, data)| (name.as_str(), data.as_slice())).collect();
    // A folder and a link between the files.
    let (first, rest) = members.split_at(members.len() / 2);
    [
        tar_member("folder/", b'5', b""),
        tar(first)[..tar(first).len() - 1024].to_vec(),
        tar_member("0", b'2', b""),
        tar(rest),
    ]
    .concat()
}

fn as_zip(members: &[(String, Vec<u8>)], keep: &[Keep]) -> Zip {
    let mut zip = Zip::default();
    for ((name, data), keep) in members.iter().zip(keep.iter().cycle()) {
        zip.add(name.as_bytes(), data, *keep);
    }
    zip
}

/// Returns archives of every kind and nesting, each with the path prefixes of its members.
fn every_archive() -> Vec<(&'static str, Vec<u8>, &'static [&'static str])> {
    use Keep::{Deflated, Stored, Streamed, Zip64};
    let members = members(8);
    let zip = as_zip(&members, &[Stored, Deflated, Streamed, Zip64]).finish();
    let streamable = as_zip(&members, &[Deflated, Streamed]);
    let tar_bytes = as_tar(&members);
    let of = |parts: &[(&str, &[u8])]| tar(parts);
    let both: &[(&str, &[u8])] = &[("x", b"before"), ("a.zip", &zip), ("b.tar", &tar_bytes), ("y", b"behind")];
    let in_zip = |keep| {
        let mut outer = Zip::default();
        both.iter().for_each(|(name, data)| outer.add(name.as_bytes(), data, keep));
        outer.finish()
    };
    let nested: &[&str] = &["a.zip!/", "b.tar!/", ""];
    let mut cut = streamable.finish();
    cut.truncate(streamable.bytes.len() + 10);
    vec![
        ("zip", zip.clone(), &[""]),
        ("zip without its directory", cut, &[""]),
        ("tar", tar_bytes.clone(), &[""]),
        ("tar that is cut off", tar_bytes[..tar_bytes.len() * 2 / 3].to_vec(), &[""]),
        ("tar.gz", gzip(&tar_bytes), &[""]),
        ("tar.gz that is cut off", gzip(&tar_bytes)[..gzip(&tar_bytes).len() * 2 / 3].to_vec(), &[""]),
        ("zip.gz", gzip(&streamable.finish()), &["x.zip!/"]),
        (
            "tar in zip.gz",
            gzip(&as_zip(&[("b.tar".to_owned(), tar_bytes.clone())], &[Deflated]).finish()),
            &["x!/b.tar!/"],
        ),
        ("a file in gzip", gzip(&data(1, 300_000)), &[""]),
        ("archives in tar", of(both), nested),
        ("archives in tar.gz", gzip(&of(both)), nested),
        ("archives in zip, stored", in_zip(Stored), nested),
        ("archives in zip, deflated", in_zip(Deflated), nested),
        (
            "tar.gz in tar.gz",
            gzip(&of(&[("c.tar.gz", &gzip(&tar_bytes)), ("d.tgz", &gzip(&tar_bytes))])),
            &["c.tar.gz!/", "d.tgz!/"],
        ),
    ]
}

const NAMES: [&str; 18] = [
    "3!/!/2",
    "0!/!/2",
    "a.zip!/!/2",
    "last!/!/1",
    "0",
    "1",
    "2",
    "3",
    "4",
    "5",
    "6",
    "7",
    "last",
    "x",
    "y",
    "not there",
    "folder/",
    "a.zip",
];

/// Reads a whole member, or its first bytes.
fn read(opened: Result<archive::Object, archive::ArchiveProblem>, most: u64) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    match opened.map_err(|problem| problem.to_string())?.take(most).read_to_end(&mut bytes) {
        Ok(_) => Ok(bytes),
        Err(error) => Err(format!("{error} after {} bytes", bytes.len())),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10))]

    #[test]
    fn members_are_the_same_in_whatever_order_they_are_opened(
        wanted in prop::collection::vec((0_usize..3, 0..NAMES.len(), prop::sample::select(vec![0, 100, 30_000, u64::MAX])), 1..20),
        held in 0_usize..20,
    ) {
        for (what, bytes, places) in every_archive() {
            let file = file_of(&bytes);
            let archives = Archives::default();
            let mut kept_open = None;
            for (turn, (place, name, most)) in wanted.iter().enumerate() {
                let path = format!("{}{}", places[place % places.len()], NAMES[*name]);
                let path = OsStr::new(&path);
                let by_itself = read(archive::open(file.try_clone().unwrap(), path), *most);
                let after_others = read(archives.open(file.try_clone().unwrap(), path), *most);
                prop_assert!(by_itself == after_others, "{}: {:?}", what, path);
                if turn == held {
                    // Somebody keeps a member open while others are opened.
                    kept_open = archives.open(file.try_clone().unwrap(), path).ok();
                }
            }
            drop(kept_open);
        }
    }
}

#[test]
fn each_of_several_members_of_a_name_is_opened_by_its_number() {
    let third = data(99, 700);
    for (what, bytes, places) in every_archive() {
        if what.contains("cut off") || what == "a file in gzip" {
            continue;
        }
        let place = places[0];
        let file = file_of(&bytes);
        let archives = Archives::default();
        let mut wanted = WantedMembers::default();
        let paths: Vec<_> = ["3", "3!/!/2"].iter().map(|name| format!("{place}{name}")).collect();
        if read(archives.open(file.try_clone().unwrap(), OsStr::new(&paths[0])), u64::MAX).is_err() {
            continue;
        }
        paths.iter().for_each(|path| wanted.add(OsStr::new(path)));
        wanted.remove(OsStr::new(&paths[0]));
        for (path, expected) in [(&paths[1], &third), (&paths[0], &data(3, 512)), (&paths[1], &third)] {
            let opened = read(archives.open(file.try_clone().unwrap(), OsStr::new(path)), u64::MAX);
            assert!(opened.as_ref() == Ok(expected), "{what}: {path}");
        }
        let not_there = format!("{place}3!/!/3");
        assert!(archives.open(file.try_clone().unwrap(), OsStr::new(&not_there)).is_err(), "{what}");
        if what == "tar.gz" {
            let first = archives.open(file.try_clone().unwrap(), OsStr::new(&paths[0]));
            drop(first);
            assert_eq!(
                archives.next_of(&wanted),
                Some(paths[1].clone().into()),
                "the second one lies behind the first"
            );
        }
    }
}

/// Returns the bytes that are read from a file to open and read these members one after the other.
fn bytes_read(file: &File, names: &[String]) -> u64 {
    let sum = Arc::new(AtomicU64::new(0));
    let archives = Archives::with_read_callback({
        let sum = Arc::clone(&sum);
        Arc::new(move |bytes| {
            sum.fetch_add(bytes, Relaxed);
        })
    });
    for name in names {
        read(archives.open(file.try_clone().unwrap(), OsStr::new(name)), u64::MAX).unwrap();
    }
    sum.load(Relaxed)
}

fn many() -> (Vec<(String, Vec<u8>)>, Vec<String>) {
    let members: Vec<_> = (0..1_500).map(|at| (format!("series/{at}"), data(at, 1_000))).collect();
    let names = members.iter().map(|(name, _)| name.clone()).collect();
    (members, names)
}

#[test]
fn many_members_of_a_zip_archive_take_one_pass_of_its_directory() {
    let (members, mut names) = many();
    let zip = as_zip(&members, &[Keep::Stored, Keep::Deflated]).finish();
    let file = file_of(&zip);
    let in_order = bytes_read(&file, &names);
    assert!(in_order < 2 * zip.len() as u64, "{in_order} of {}", zip.len());
    // From the last one on: its place is found in one pass, and those of all others.
    names.reverse();
    let backwards = bytes_read(&file, &names);
    assert!(backwards < 3 * zip.len() as u64, "{backwards} of {}", zip.len());
}

#[test]
fn many_members_of_a_compressed_archive_take_one_pass_of_it() {
    let (members, names) = many();
    let tar_bytes = as_tar(&members);
    let inner = names.iter().map(|name| format!("in.zip!/{name}")).collect::<Vec<_>>();
    let zip = as_zip(&members, &[Keep::Streamed]).finish();
    for (bytes, names) in [(gzip(&tar_bytes), &names), (gzip(&tar(&[("in.zip", &zip)])), &inner)] {
        let read = bytes_read(&file_of(&bytes), names);
        assert!(read <= bytes.len() as u64 + 100_000, "{read} of {}", bytes.len());
        // Every third of them as well.
        let third: Vec<_> = names.iter().step_by(3).cloned().collect();
        assert!(bytes_read(&file_of(&bytes), &third) <= bytes.len() as u64 + 100_000);
    }
}

#[test]
fn names_that_are_not_there_take_one_pass_together() {
    let (members, names) = many();
    let bytes = gzip(&as_tar(&members));
    let sum = Arc::new(AtomicU64::new(0));
    let told = Arc::clone(&sum);
    let archives = Archives::with_read_callback(Arc::new(move |bytes| {
        told.fetch_add(bytes, Relaxed);
    }));
    let file = file_of(&bytes);
    for name in &names {
        let missing = format!("{name}.not");
        assert!(archives.open(file.try_clone().unwrap(), OsStr::new(&missing)).is_err());
    }
    assert!(sum.load(Relaxed) < 2 * bytes.len() as u64);
}

#[test]
fn an_archive_that_was_replaced_is_read_anew() {
    let directory = tempfile::TempDir::new().unwrap();
    let path = directory.path().join("archive");
    let open = |archives: &Archives, path: &Path, name: &str| {
        read(archives.open(File::open(path).unwrap(), OsStr::new(name)), u64::MAX)
    };
    let [old, new] = [1, 2].map(|seed| {
        ["a", "b", "c"].map(|name| (name.to_owned(), data(seed * 10 + u32::from(name.as_bytes()[0]), 50_000)))
    });
    type Pack = fn(&[(String, Vec<u8>)]) -> Vec<u8>;
    let kinds: [Pack; 3] =
        [|members| gzip(&as_tar(members)), as_tar, |members| as_zip(members, &[Keep::Deflated]).finish()];
    for pack in kinds {
        let archives = Archives::default();
        std::fs::write(&path, pack(&old)).unwrap();
        assert_eq!(open(&archives, &path, "b").as_ref(), Ok(&old[1].1));
        let other = directory.path().join("other");
        std::fs::write(&other, pack(&new)).unwrap();
        std::fs::rename(&other, &path).unwrap();
        assert_eq!(open(&archives, &path, "c").as_ref(), Ok(&new[2].1));
        // In place, and shorter.
        std::fs::write(&path, pack(&old[..2])).unwrap();
        assert_eq!(open(&archives, &path, "b").as_ref(), Ok(&old[1].1));
        assert!(open(&archives, &path, "c").is_err());
    }
}

#[test]
fn members_that_lie_in_another_order_than_they_are_wanted_take_two_passes_at_most() {
    let (members, names) = many();
    let tar_bytes = as_tar(&members);
    let zip = as_zip(&members, &[Keep::Streamed]).finish();
    let single = gzip(&data(5, 5_000));
    let inside = |archive: &str| names.iter().map(|name| format!("{archive}!/{name}")).collect::<Vec<_>>();
    let nested: Vec<_> =
        [inside("a.zip"), vec!["one.gz!/one".to_owned()], inside("b.tar"), vec!["last".to_owned()]].concat();
    let parts: &[(&str, &[u8])] = &[("a.zip", &zip), ("one.gz", &single), ("b.tar", &tar_bytes), ("last", b"the last")];
    for (bytes, names) in [(gzip(&tar_bytes), names.clone()), (gzip(&tar(parts)), nested)] {
        let sum = Arc::new(AtomicU64::new(0));
        let told = Arc::clone(&sum);
        let archives = Archives::with_read_callback(Arc::new(move |bytes| {
            told.fetch_add(bytes, Relaxed);
        }));
        let file = file_of(&bytes);
        let mut wanted = WantedMembers::default();
        names.iter().for_each(|name| wanted.add(OsStr::new(name)));
        wanted.add(OsStr::new("not there"));
        assert_eq!(archives.next_of(&wanted), None, "nothing is open");
        let mut next = std::ffi::OsString::from(&names[names.len() / 2]);
        let mut opened = std::collections::HashSet::new();
        loop {
            wanted.remove(&next);
            read(archives.open(file.try_clone().unwrap(), &next), u64::MAX).unwrap();
            assert!(opened.insert(next), "twice");
            let Some(met) = archives.next_of(&wanted) else { break };
            next = met;
        }
        assert_eq!(opened.len(), names.len());
        let read = sum.load(Relaxed);
        assert!(read <= 3 * bytes.len() as u64 + 200_000, "{read} of {}", bytes.len());
    }
}
