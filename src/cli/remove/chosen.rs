//! Studies that keys choose to remove, each with its instances that match.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use crate::cli::keys::query::values_of_answers;
use crate::config::Config;
use crate::db::open::{Reader, is_on_server};
use crate::db::{KnownLocation, RemovedCounts, Search as _};
use crate::files::FileSystemSpace;
use crate::model::attribute::AttributeId;
use crate::model::level::QueryRetrieveLevel;
use crate::model::location::{Location, Place};

/// A study that loses instances.
pub(super) struct ChosenStudy {
    date: String,
    /// Study Instance UID.
    pub(super) uid: String,
    /// Patient ID of the study.
    pub(super) patient_id: String,
    /// SOP Instance UIDs of those that match.
    pub(super) instances: Vec<String>,
    /// Counts of what their removal takes away.
    pub(super) counts: RemovedCounts,
}

/// Reads a size: bytes, or a number with K, M, G or T, which are powers of 1024.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let factor = match text.get(digits.len()..).unwrap_or_default().to_ascii_uppercase().trim_end_matches("IB") {
        "" | "B" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return Err("write a size as 200G or 500M".to_owned()),
    };
    let number: u64 = digits.parse().map_err(|_| "write a size as 200G or 500M".to_owned())?;
    number.checked_shl(factor).filter(|size| size >> factor == number).ok_or_else(|| "that is too much".to_owned())
}

/// Choice that keys make.
#[derive(Default)]
pub(super) struct RemovalChoice {
    pub(super) studies: Vec<ChosenStudy>,
    /// Studies that were left out, because each of their objects has another name. So deleting them
    /// would free nothing.
    pub(super) held: usize,
    /// Whether the rule of free space is met, so that nothing was looked for.
    pub(super) is_enough_free: bool,
}

/// Finds what matches the keys. With `until_free`, only as many studies as it takes, the oldest
/// first.
pub(super) fn choose(keys: &[String], until_free: Option<u64>, config: &Config) -> anyhow::Result<RemovalChoice> {
    if let Some(key) = keys.iter().find(|key| !key.contains('=')) {
        bail!("`{key}` has no value: write KEY=VALUE");
    }
    // In a query it matches everything. In a removal it is a variable that a script did not set.
    let is_empty = |value: &str| value.split('\\').all(|part| part.trim().is_empty());
    let empty = keys.iter().filter_map(|key| key.split_once('=')).find(|(_, value)| is_empty(value));
    if let Some((name, _)) = empty {
        bail!("{name} has an empty value, which all instances match; hint: `{name}=*` means all of them");
    }
    let mut reader = Reader::open(&config.index)?;
    let mut storage = None;
    let missing = match until_free {
        None => None,
        Some(wanted) => match wanted.saturating_sub(free_bytes(config)?) {
            0 => return Ok(RemovalChoice { is_enough_free: true, ..RemovalChoice::default() }),
            missing => {
                storage = own_storage(config)?;
                Some(missing)
            }
        },
    };
    let mut studies = Vec::new();
    let returned = [AttributeId::StudyInstanceUID, AttributeId::StudyDate, AttributeId::PatientID];
    for [uid, date, patient_id] in values_of_answers(&mut reader, QueryRetrieveLevel::Study, keys, returned, config)? {
        let counts = RemovedCounts::default();
        studies.push(ChosenStudy { date, uid, patient_id, instances: Vec::new(), counts });
    }
    studies.sort_by(|one, other| (&one.date, &one.uid).cmp(&(&other.date, &other.uid)));
    let mut choice = RemovalChoice::default();
    let mut freed = 0;
    for mut study in studies {
        if missing.is_some_and(|missing| freed >= missing) {
            break;
        }
        let mut narrowed = keys.to_vec();
        narrowed.push(format!("StudyInstanceUID={}", study.uid));
        let uids = values_of_answers(
            &mut reader,
            QueryRetrieveLevel::Image,
            &narrowed,
            [AttributeId::SOPInstanceUID],
            config,
        )?;
        let (mut here, mut held_bytes) = (RemovedCounts::default(), 0);
        for [uid] in uids {
            let known = reader.known_locations(&uid)?;
            study.counts.add(counts_of(&known, None));
            if missing.is_some() {
                here.add(counts_of(&known, storage.as_deref()));
                held_bytes += bytes_held(&known);
            }
            study.instances.push(uid);
        }
        // With a rule of free space, a study without received objects on this disk frees nothing.
        if missing.is_some() && here.objects == 0 || study.instances.is_empty() {
            continue;
        }
        let frees = here.object_bytes.saturating_sub(held_bytes);
        if missing.is_some() && frees == 0 {
            choice.held += 1;
            continue;
        }
        freed += frees;
        choice.studies.push(study);
    }
    Ok(choice)
}

/// Bytes of received objects that stay on the disk if they are deleted. A backup by hard links has
/// another name for each.
fn bytes_held(known: &[KnownLocation]) -> u64 {
    let objects = known.iter().filter(|known| known.location.place == Place::Managed);
    let has_other_name = |location: &&Location| {
        let metadata = location.path().and_then(|path| path.symlink_metadata().ok());
        metadata.is_some_and(|metadata| metadata.nlink() > 1)
    };
    objects.map(|known| &known.location).filter(has_other_name).map(|location| location.size).sum()
}

/// Counts of what the removal of an instance takes away. With a storage directory, only objects in
/// that one count.
fn counts_of(known: &[KnownLocation], storage: Option<&Path>) -> RemovedCounts {
    let mut counts = RemovedCounts { instances: 1, ..RemovedCounts::default() };
    for KnownLocation { location, .. } in known {
        match location.place {
            Place::Managed if storage.is_some_and(|storage| !location.directory.starts_with(storage)) => {}
            Place::Managed => {
                counts.objects += 1;
                counts.object_bytes += location.size;
            }
            Place::InPlace | Place::Archive => counts.in_place += 1,
            Place::MetadataOnly => {}
        }
    }
    counts
}

/// The storage directory of this node, if others may have objects in the same index.
fn own_storage(config: &Config) -> anyhow::Result<Option<PathBuf>> {
    let Some(options) = config.kept_store_options().filter(|_| is_on_server(&config.index)) else { return Ok(None) };
    let path = options.directory.canonicalize();
    Ok(Some(path.with_context(|| format!("cannot look at {}", options.directory.display()))?))
}

/// Free bytes on the disk of the received objects.
fn free_bytes(config: &Config) -> anyhow::Result<u64> {
    let Some(options) = config.kept_store_options() else {
        bail!("with `metadata_only` no objects are kept; hint: leave out --until-free");
    };
    let space = FileSystemSpace::at(&options.directory);
    Ok(space.with_context(|| format!("cannot look at {}", options.directory.display()))?.free)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in
            [("7", 7), ("7B", 7), ("2K", 2048), ("3m", 3 << 20), ("200GiB", 200 << 30), ("1T", 1 << 40)]
        {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "G", "1X", "1.5G", "-1", "99999999999999T"] {
            assert!(size(text).is_err(), "{text}");
        }
    }
}
