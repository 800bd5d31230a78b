//! The corrections beside the received objects, for an index that is built anew.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

use crate::cli::storage_match::storage_of;
use crate::config::Config;
use crate::db::open::{Reader, WriterHandle};
use crate::db::{Correction, CorrectionChange};
use crate::files::{FILE_MODE, replace};
use crate::model::attribute::{Attribute, AttributeId};

/// File below the storage directory: one JSON object on a line for each correction.
const CORRECTIONS: &str = ".corrections.json";

/// Maximum length of that file in bytes. A correction has some 200.
const MAX_LENGTH: u64 = 64 << 20;

/// A correction as it is kept. The names are those of `dcmdex correct --list --json`.
#[derive(Serialize, Deserialize)]
struct KeptCorrection {
    made_ms: i64,
    system: String,
    keys: BTreeMap<String, String>,
    set: BTreeMap<String, String>,
    undone_ms: Option<i64>,
}

impl KeptCorrection {
    fn of(correction: &Correction) -> Self {
        let named = |values: &[(AttributeId, String)]| {
            values.iter().map(|(id, value)| (id.attribute().keyword.to_owned(), value.clone())).collect()
        };
        Self {
            made_ms: correction.made_ms,
            system: correction.system.clone(),
            keys: named(&correction.keys),
            set: named(&correction.values),
            undone_ms: correction.undone_ms,
        }
    }

    /// The correction. It is checked as if somebody made it now.
    fn checked(self) -> anyhow::Result<Correction> {
        let values = |named: BTreeMap<String, String>| {
            named
                .into_iter()
                .map(|(keyword, value)| match Attribute::by_keyword(&keyword) {
                    Some(attribute) => Ok((attribute.id, value)),
                    None => bail!("an attribute is unknown"),
                })
                .collect::<anyhow::Result<Vec<_>>>()
        };
        let made = Correction::new(values(self.keys)?, values(self.set)?, (self.made_ms, self.system))?;
        Ok(Correction { undone_ms: self.undone_ms, ..made })
    }
}

/// A correction in JSON.
pub(super) fn in_json(correction: &Correction) -> serde_json::Value {
    serde_json::to_value(KeptCorrection::of(correction)).unwrap_or_default()
}

/// Writes all corrections of the index beside the received objects, if there is a directory of
/// them. Those that an older index was restored without stay there.
pub(super) fn write(config: &Config) -> anyhow::Result<()> {
    let Some(options) = storage_of(config, &config.index)? else { return Ok(()) };
    let path = options.directory.join(CORRECTIONS);
    let known = Reader::open(&config.index)?.corrections()?;
    let others = read(&path)?.into_iter().filter(|kept| !known.iter().any(|known| is_same(known, kept)));
    let mut all: Vec<Correction> = others.chain(known.iter().cloned()).collect();
    all.sort_by_key(|correction| correction.made_ms);
    let text: String = all.iter().map(|correction| format!("{}\n", in_json(correction))).collect();
    replace(&path, FILE_MODE, text.as_bytes()).with_context(|| format!("cannot write {}", path.display()))
}

/// Whether both are the same correction. Each index numbers them anew.
fn is_same(one: &Correction, other: &Correction) -> bool {
    let sorted = |values: &[(AttributeId, String)]| values.iter().cloned().collect::<BTreeSet<_>>();
    one.made_ms == other.made_ms && sorted(&one.keys) == sorted(&other.keys)
}

fn read(path: &Path) -> anyhow::Result<Vec<Correction>> {
    let mut text = String::new();
    match File::open(path) {
        Ok(file) => file.take(MAX_LENGTH).read_to_string(&mut text).map(drop),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => Err(error),
    }
    .with_context(|| format!("cannot read {}", path.display()))?;
    let checked = |(at, line): (usize, &str)| {
        let kept = serde_json::from_str::<KeptCorrection>(line).map_err(anyhow::Error::from);
        let kept = kept.and_then(KeptCorrection::checked);
        kept.with_context(|| format!("line {} of {} is no correction", at + 1, path.display()))
    };
    text.lines().enumerate().map(checked).collect()
}

/// Changes that an index lacks, by the corrections that lie beside the received objects. The index
/// was lost, or an older one was restored.
pub(in crate::cli) fn lacking(reader: &mut Reader, storage: &Path) -> anyhow::Result<Vec<CorrectionChange>> {
    let kept = read(&storage.join(CORRECTIONS))?;
    if kept.is_empty() {
        return Ok(Vec::new());
    }
    let known = reader.corrections()?;
    let change = |kept: Correction| match known.iter().find(|known| is_same(known, &kept)) {
        None => Some(CorrectionChange::Make(kept)),
        Some(known) => match (known.undone_ms, kept.undone_ms) {
            (None, Some(undone_ms)) => Some(CorrectionChange::Undo { correction: known.clone(), undone_ms }),
            _ => None,
        },
    };
    Ok(kept.into_iter().filter_map(change).collect())
}

/// Makes the changes that the index lacks. Returns how many there were.
pub(in crate::cli) fn bring_back(index: &Path, storage: &Path, writer: &WriterHandle) -> anyhow::Result<u64> {
    let changes = lacking(&mut Reader::open(index)?, storage)?;
    let made = changes.len() as u64;
    changes.into_iter().try_for_each(|change| writer.correct(change).map(drop))?;
    Ok(made)
}

/// Writes the corrections beside the received objects anew if those there are not all of the index.
/// Returns whether it has written them.
pub(in crate::cli) fn write_missing(config: &Config, storage: &Path) -> anyhow::Result<bool> {
    let known = Reader::open(&config.index)?.corrections()?;
    let kept = read(&storage.join(CORRECTIONS))?;
    let is_kept = |known: &Correction| {
        kept.iter().any(|kept| is_same(known, kept) && (kept.undone_ms.is_some() || known.undone_ms.is_none()))
    };
    if known.iter().all(is_kept) {
        return Ok(false);
    }
    write(config)?;
    Ok(true)
}
