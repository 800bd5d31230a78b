//! Opens and checks storage and index before a node starts.

use std::sync::Arc;

use anyhow::bail;

use super::warnings::{compare_corrections, warn_of_lacking, warn_of_new_index, warn_of_other_nodes, warn_of_strays};
use crate::cli::context::make_directory_of;
use crate::cli::{arrival_journal, directory_checks, storage_match, suspend};
use crate::config::Config;
use crate::db::open::{Reader, Writer};
use crate::db::{Admin as _, Finding, Search as _};
use crate::ingest::{Outcome, Wanted, read_file};
use crate::model::attribute::AttributeId;
use crate::model::location::{Location, Place};
use crate::receive::replay::UnnamedFiles;
use crate::store::{Objects, Recovered};

/// Opens the storage directory. `None` if no objects are kept.
pub(super) fn open_storage(config: &Config) -> anyhow::Result<Option<Arc<Objects>>> {
    if let Some(made) = make_directory_of(&config.index)? {
        tracing::info!(directory = %made.display(), "made the directory of the index");
    }
    if let Some(problem) = directory_checks::problems(config).first() {
        bail!("{problem}");
    }
    let objects = config.store_options().map(|options| Objects::open(&options).map(Arc::new)).transpose()?;
    if let Some(objects) = &objects {
        storage_match::refuse_new_index(&config.index, objects)?;
    }
    Ok(objects)
}

/// Opens the index for writing, and brings it and the storage directory together again.
pub(super) fn open_index(config: &Config, objects: Option<&Arc<Objects>>) -> anyhow::Result<Writer> {
    warn_of_new_index(config);
    let options = config.node_writer_options();
    suspend::commit_before_stopping(&options.suspension)?;
    let writer = Writer::open(&config.index, options)?;
    check_index(config)?;
    if let Some(objects) = objects {
        storage_match::refuse_misfits(&config.index, objects, &writer.handle())?;
    }
    warn_of_other_nodes(config, objects, &writer.handle())?;
    warn_of_lacking(config)?;
    if let Some(objects) = objects {
        recover(objects, config)?;
        directory_checks::follow_storage(&config.index, objects.root(), &writer.handle())?;
        let unnamed = UnnamedFiles::under(config.receive.duplicates);
        arrival_journal::empty(config, objects, &writer.handle(), unnamed)?;
        warn_of_strays(objects, config)?;
        compare_corrections(objects, config);
    }
    Ok(writer)
}

/// Checks a sample of the index.
fn check_index(config: &Config) -> anyhow::Result<()> {
    if !config.start_check {
        return Ok(());
    }
    let report = Reader::open(&config.index)?.start_check()?;
    let Some(Finding { check, detail }) = report.findings.first() else { return Ok(()) };
    // SQLite tells a hundred faults, after a line with the name of the database.
    let detail = detail.lines().find(|line| !line.starts_with("***")).unwrap_or(detail);
    bail!(
        "the index {} is damaged ({check}: {detail}): restore it from a backup, or inspect it with `dcmdex check`; \
         `database.start_check = false` starts the node without this check",
        config.shown_index().display()
    )
}

/// Recovers objects after a crash. They had their place, and perhaps no row in the index.
fn recover(objects: &Objects, config: &Config) -> anyhow::Result<()> {
    let mut index = Reader::open(&config.index)?;
    let recovered = objects.recover(|file, path| {
        // An acknowledged object was durable before. So it can be read, and has the length that the
        // index says.
        let record = match read_file(file, Wanted::index()) {
            Outcome::Instance(record) => record,
            // A disk that cannot be read now does not prove that the object is unknown.
            Outcome::Unreadable { .. } => return true,
            _ => return false,
        };
        let size = file.metadata().map(|metadata| metadata.len()).ok();
        // Nor does an index that cannot be read now, or one with a path that is not on this
        // machine. The storage directory may have moved, or its root may have another name.
        index.known_locations(record.value(AttributeId::SOPInstanceUID)).ok().is_none_or(|known| {
            let received = known.iter().map(|known| &known.location).filter(|it| it.place == Place::Managed);
            let mut of_size = received.filter(|it| Some(it.size) == size).filter_map(Location::path);
            of_size.any(|known| known == path || !known.exists())
        })
    })?;
    if recovered != Recovered::default() {
        tracing::info!(
            kept = recovered.kept,
            removed = recovered.removed,
            "the last process ended while objects arrived; objects without a row in the index are removed"
        );
    }
    Ok(())
}
