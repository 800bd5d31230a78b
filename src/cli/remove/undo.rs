//! Brings back what a removal took away.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::trash::{is_elsewhere, known_removal};
use crate::audit::AuditEvent;
use crate::cli::Exit;
use crate::cli::audited::CommandAudit;
use crate::cli::context::Context;
use crate::cli::output::{Grouped, Shown};
use crate::cli::reindex::{ReadObject, read, store};
use crate::cli::storage_match::refuse_another_directory;
use crate::cli::unindexed::{series_directories, unknown_files};
use crate::config::Config;
use crate::db::open::{Reader, Writer, WriterHandle, is_on_server};
use crate::db::{
    Arrivals as _, FileOutcome, Removal, RemovalChanges as _, RemovalSearch as _, RemovedFile, ScannedDirectory,
    ScannedFile, Search as _,
};
use crate::files::is_missing;
use crate::ingest::Wanted;
use crate::model::calendar::moment_text;
use crate::model::location::{Location, Place};
use crate::store::Trash;

/// Instances that one query returns.
const PAGE: usize = 500;

/// Counts of what was brought back.
#[derive(Default)]
struct UndoCounts {
    objects: u64,
    in_place: u64,
    failed: u64,
    /// Instances whose files nobody knows: the index was built anew since.
    unknown: u64,
    /// Archive files whose members the next scan indexes again.
    archives: BTreeSet<PathBuf>,
}

/// State of an undo.
struct Undo {
    reader: Reader,
    writer: WriterHandle,
    /// The trash and the storage directory.
    trash: Option<(Trash, PathBuf)>,
    /// Whether other nodes have storage directories of their own.
    is_shared: bool,
    /// Instances that stay removed: another node has to bring them back, or their objects are lost.
    still_removed: BTreeSet<String>,
    /// Whether the objects were deleted for good.
    is_emptied: bool,
    begun_ms: i64,
    removal: i64,
    wanted: &'static Wanted,
}

pub(super) fn run(config: &Config, removal: i64, yes: bool, context: &mut Context) -> anyhow::Result<Exit> {
    let known = known_removal(config, removal)?;
    if !yes {
        context.output.line(format_args!(
            "would bring back {} instances; nothing was changed, --yes does it",
            Grouped(known.still_removed)
        ))?;
        return Ok(Exit::Done);
    }
    CommandAudit::open(config, "remove --undo")?.removal(AuditEvent::Stored, removal)?;
    let writer = Writer::open(&config.index, config.node_writer_options())?;
    let storage = config.kept_store_options().and_then(|options| options.directory.canonicalize().ok());
    if let Some(storage) = &storage {
        refuse_another_directory(storage, &writer.handle())?;
    }
    let done = bring_back(config, &known, (storage, &writer.handle()), context)?;
    writer.close()?;
    Ok(done)
}

/// Undoes a removal again in an index that was saved before its undo. The trash has noted that.
pub(super) fn repeat(
    config: &Config,
    known: &Removal,
    (storage, writer): (&Path, &WriterHandle),
    context: &mut Context,
) -> anyhow::Result<Exit> {
    context.output.line(format_args!("removal {} was undone after this index was saved", known.id))?;
    bring_back(config, known, (Some(storage.to_owned()), writer), context)
}

fn bring_back(
    config: &Config,
    known: &Removal,
    (storage, writer): (Option<PathBuf>, &WriterHandle),
    context: &mut Context,
) -> anyhow::Result<Exit> {
    let removal = known.id;
    let mut undo = Undo {
        reader: Reader::open(&config.index)?,
        writer: writer.clone(),
        trash: storage.map(|storage| (Trash::below(&storage), storage)),
        is_shared: is_on_server(&config.index),
        still_removed: BTreeSet::new(),
        is_emptied: known.emptied_ms.is_some(),
        begun_ms: known.begun_ms,
        removal,
        wanted: Wanted::with_declared(&config.declared),
    };
    let mut counts = UndoCounts::default();
    undo.bring_from_trash(&mut counts, context)?;
    undo.files(&mut counts, context)?;
    undo.instances_without_files(&mut counts)?;
    undo.writer.flush()?;
    if counts.failed == 0 {
        undo.writer.end_removal(removal)?;
        if let Some((trash, _)) = &undo.trash {
            trash.forget(known.begun_ms).context("cannot delete the list of the removal")?;
        }
    }
    tracing::info!(removal, objects = counts.objects, in_place = counts.in_place, "a removal was undone");
    context.output.line(format_args!(
        "{} received objects and {} files in place are in the index again; {} could not be brought back",
        Grouped(counts.objects),
        Grouped(counts.in_place),
        Grouped(counts.failed)
    ))?;
    if let Some(emptied_ms) = known.emptied_ms.filter(|_| counts.unknown > 0) {
        context.output.line(format_args!(
            "{} instances are no longer removed, but their objects were deleted for good {}",
            Grouped(counts.unknown),
            moment_text(emptied_ms)
        ))?;
    } else if counts.unknown > 0 {
        context.output.line(format_args!(
            "{} instances are no longer removed, but the index, which was built anew, does not know where they were; \
             hint: `dcmdex scan` of their directories indexes them again",
            Grouped(counts.unknown)
        ))?;
    }
    for archive in &counts.archives {
        context.output.line(format_args!("hint: `dcmdex scan {}` indexes its members again", Shown(archive)))?;
    }
    Ok(if counts.failed == 0 { Exit::Done } else { Exit::Partly })
}

impl Undo {
    /// Moves objects from the trash to their places, and gives them their rows.
    fn bring_from_trash(&mut self, counts: &mut UndoCounts, context: &mut Context) -> anyhow::Result<()> {
        let Some((trash, storage)) = self.trash.clone() else { return Ok(()) };
        let from = trash.objects(self.begun_ms);
        if !from.is_dir() {
            return Ok(());
        }
        let (checksums, in_place) = self.known_files()?;
        let (mut back, mut differing) = (BTreeSet::new(), Vec::new());
        for series in series_directories(&from).with_context(|| format!("cannot list {}", from.display()))? {
            let place = storage.join(series.strip_prefix(&from).unwrap_or(&series));
            let mut names: Vec<OsString> = std::fs::read_dir(&series)
                .with_context(|| format!("cannot list {}", series.display()))?
                .flatten()
                .map(|entry| entry.file_name())
                .filter(|name| name.as_encoded_bytes().first() != Some(&b'.'))
                .collect();
            names.sort();
            for names in names.chunks(PAGE) {
                let mut found = Vec::new();
                for name in names {
                    let path = place.join(name);
                    trash
                        .take_back(self.begun_ms, &path)
                        .with_context(|| format!("cannot bring back {}", path.display()))?;
                    self.read_managed(&place, name, &checksums, &mut found, (counts, context))?;
                }
                back.extend(found.iter().map(|object| object.sop_instance_uid().to_owned()));
                let differs = |object: &ReadObject| {
                    let known = object.location.path().and_then(|path| checksums.get(&path));
                    known.is_some_and(|known| known.differs)
                };
                let (others, found): (Vec<_>, Vec<_>) = found.into_iter().partition(differs);
                differing.extend(others);
                self.store(found, counts)?;
            }
        }
        let in_place = in_place.into_iter().filter(|file| back.contains(&file.sop_instance_uid)).collect();
        self.writer.lift_removed(back.iter().cloned().collect())?;
        self.in_place(in_place, counts, context)?;
        self.store_differing(differing, counts)
    }

    /// The removed objects by path, and the files in place of the same instances.
    fn known_files(&mut self) -> anyhow::Result<(BTreeMap<PathBuf, RemovedFile>, Vec<RemovedFile>)> {
        let (mut after, mut known, mut beside) = (String::new(), BTreeMap::new(), Vec::new());
        loop {
            let page = self.reader.files_of_removal(self.removal, &after, PAGE)?;
            let Some(last) = page.last() else { return Ok((known, beside)) };
            after.clone_from(&last.sop_instance_uid);
            let (managed, in_place): (Vec<_>, Vec<_>) =
                page.into_iter().partition(|file| file.location.place == Place::Managed);
            let uids: BTreeSet<&str> = managed.iter().map(|file| file.sop_instance_uid.as_str()).collect();
            beside.extend(in_place.into_iter().filter(|file| uids.contains(file.sop_instance_uid.as_str())));
            known.extend(managed.into_iter().filter_map(|file| Some((file.location.path()?, file))));
        }
    }

    fn read_managed(
        &self,
        directory: &Path,
        name: &OsString,
        checksums: &BTreeMap<PathBuf, RemovedFile>,
        found: &mut Vec<ReadObject>,
        (counts, context): (&mut UndoCounts, &mut Context),
    ) -> anyhow::Result<()> {
        match read(Place::Managed, directory, name, self.wanted) {
            Ok(mut object) => {
                let known = checksums.get(&directory.join(name));
                // A file of another size was received since.
                let known = known.filter(|known| known.location.size == object.location.size);
                object.checksum = known.and_then(|known| known.checksum);
                found.push(object);
            }
            Err(reason) => {
                counts.failed += 1;
                context.output.line(format_args!("failed: {}: {reason}", Shown(&directory.join(name))))?;
            }
        }
        Ok(())
    }

    /// Stores objects. A node may have moved one to the trash since it was read, as long as the
    /// index did not name it.
    fn store(&self, found: Vec<ReadObject>, counts: &mut UndoCounts) -> anyhow::Result<()> {
        counts.objects += found.len() as u64;
        let paths: Vec<PathBuf> = found.iter().filter_map(|object| object.location.path()).collect();
        store(&self.writer, found)?;
        if let Some((trash, _)) = &self.trash {
            for path in paths {
                trash.take_back(self.begun_ms, &path)?;
            }
        }
        Ok(())
    }

    /// Stores objects that differed from the first one of their instance. The first one answers
    /// queries, so it comes back before them.
    fn store_differing(&self, differing: Vec<ReadObject>, counts: &mut UndoCounts) -> anyhow::Result<()> {
        if differing.is_empty() {
            return Ok(());
        }
        self.writer.flush()?;
        self.store(differing, counts)
    }

    /// Brings back what did not go to the trash: objects of the node, files in place and members.
    fn files(&mut self, counts: &mut UndoCounts, context: &mut Context) -> anyhow::Result<()> {
        let mut after = String::new();
        loop {
            let mut page = self.reader.files_of_removal(self.removal, &after, PAGE)?;
            let Some(last) = page.last() else { return Ok(()) };
            after.clone_from(&last.sop_instance_uid);
            self.leave_to_later_removals(&mut page)?;
            self.leave_to_others(&mut page, counts, context)?;
            self.leave_lost(&mut page, counts, context)?;
            let mut uids: Vec<String> = page.iter().map(|file| file.sop_instance_uid.clone()).collect();
            uids.dedup();
            let (managed, others): (Vec<_>, Vec<_>) =
                page.into_iter().partition(|file| file.location.place == Place::Managed);
            let (mut found, mut differing) = (Vec::new(), Vec::new());
            for file in &managed {
                if file.is_in_trash && !self.lies_without_row(file)? {
                    continue;
                }
                let Location { directory, file_name, .. } = &file.location;
                let checksums = BTreeMap::from([(directory.join(file_name), file.clone())]);
                let into = if file.differs { &mut differing } else { &mut found };
                self.read_managed(directory, file_name, &checksums, into, (counts, context))?;
            }
            self.store(found, counts)?;
            // From now on a scan indexes the files in place, also if this process is killed.
            self.writer.lift_removed(uids)?;
            self.in_place(others, counts, context)?;
            self.store_differing(differing, counts)?;
            self.writer.forget_removed(managed)?;
        }
    }

    /// Leaves out instances that came back once, and were removed again.
    fn leave_to_later_removals(&mut self, page: &mut Vec<RemovedFile>) -> anyhow::Result<()> {
        let uids = page.iter().map(|file| file.sop_instance_uid.clone()).collect();
        let removed = self.reader.removed_among(uids)?;
        let is_ours = |file: &RemovedFile| removed.get(&file.sop_instance_uid).is_none_or(|at| *at == self.begun_ms);
        page.retain(is_ours);
        Ok(())
    }

    /// Leaves out instances with objects in the storage directory of another node.
    fn leave_to_others(
        &mut self,
        page: &mut Vec<RemovedFile>,
        counts: &mut UndoCounts,
        context: &mut Context,
    ) -> anyhow::Result<()> {
        let storage = self.trash.as_ref().map(|(_, storage)| storage.as_path());
        let elsewhere = page.iter().filter(|file| self.is_shared && is_elsewhere(file, storage));
        let uids: BTreeSet<String> = elsewhere.map(|file| file.sop_instance_uid.clone()).collect();
        if !uids.is_empty() {
            counts.failed += uids.len() as u64;
            context.output.line(format_args!(
                "failed: {} instances have objects in another storage directory; hint: undo the removal there too, with \
                 --storage",
                Grouped(uids.len() as u64)
            ))?;
            page.retain(|file| !uids.contains(&file.sop_instance_uid));
            self.still_removed.extend(uids);
        }
        Ok(())
    }

    /// Leaves out instances whose only object is neither in the trash nor in its place.
    fn leave_lost(
        &mut self,
        page: &mut Vec<RemovedFile>,
        counts: &mut UndoCounts,
        context: &mut Context,
    ) -> anyhow::Result<()> {
        let mut lost = BTreeSet::new();
        for of_instance in page.chunk_by(|one, other| one.sop_instance_uid == other.sop_instance_uid) {
            let [file] = of_instance else { continue };
            let is_gone = file.is_in_trash && file.location.path().is_some_and(|path| is_missing(&path));
            if self.is_emptied || !is_gone || !self.reader.known_locations(&file.sop_instance_uid)?.is_empty() {
                continue;
            }
            let path = file.location.path().unwrap_or_default();
            context.output.line(format_args!("failed: {}: it is not in the trash", Shown(&path)))?;
            lost.insert(file.sop_instance_uid.clone());
        }
        counts.failed += lost.len() as u64;
        page.retain(|file| !lost.contains(&file.sop_instance_uid));
        self.still_removed.extend(lost);
        Ok(())
    }

    /// Whether an object is at its place and the index does not name it. An undo that was killed
    /// had moved it there.
    fn lies_without_row(&mut self, file: &RemovedFile) -> anyhow::Result<bool> {
        let Some(path) = file.location.path().filter(|path| path.exists()) else { return Ok(false) };
        let known = self.reader.known_locations(&file.sop_instance_uid)?;
        Ok(known.iter().all(|known| known.location.path().as_ref() != Some(&path)))
    }

    fn in_place(&self, files: Vec<RemovedFile>, counts: &mut UndoCounts, context: &mut Context) -> anyhow::Result<()> {
        let (others, first): (Vec<_>, Vec<_>) = files.into_iter().partition(|file| file.differs);
        [first, others].into_iter().try_for_each(|files| self.scan_in_place(files, counts, context))
    }

    fn scan_in_place(
        &self,
        files: Vec<RemovedFile>,
        counts: &mut UndoCounts,
        context: &mut Context,
    ) -> anyhow::Result<()> {
        let mut by_directory: BTreeMap<PathBuf, Vec<ScannedFile>> = BTreeMap::new();
        for file in files {
            let Location { place, directory, file_name, .. } = file.location;
            if place == Place::Archive {
                counts.archives.insert(directory);
                continue;
            }
            match read(place, &directory, &file_name, self.wanted) {
                Ok(object) => {
                    counts.in_place += 1;
                    by_directory.entry(directory).or_default().push(ScannedFile {
                        file_name,
                        size: object.location.size,
                        mtime_ms: object.location.mtime_ms,
                        known: true,
                        reread: false,
                        outcome: FileOutcome::Instance(object.record),
                    });
                }
                Err(reason) => {
                    counts.failed += 1;
                    let path = directory.join(&file_name);
                    context.output.line(format_args!("failed: {}: {reason}", Shown(&path)))?;
                }
            }
        }
        for (directory, files) in by_directory {
            self.writer.scanned(ScannedDirectory { files, ..ScannedDirectory::new(Place::InPlace, directory) })?;
        }
        Ok(())
    }

    /// Brings back instances of which only metadata were kept.
    fn instances_without_files(&mut self, counts: &mut UndoCounts) -> anyhow::Result<()> {
        let (mut after, mut lost) = (String::new(), BTreeSet::new());
        loop {
            let page = self.reader.instances_of_removal(self.removal, &after, PAGE)?;
            let Some((last, _)) = page.last() else { break };
            after.clone_from(last);
            let mut found = Vec::new();
            let mut uids = Vec::new();
            for (uid, record) in page {
                if self.still_removed.contains(&uid) {
                    continue;
                }
                if record.is_none() && self.reader.known_locations(&uid)?.is_empty() {
                    lost.insert(uid);
                    continue;
                }
                uids.push(uid);
                if let Some(record) = record {
                    let location = Location {
                        place: Place::MetadataOnly,
                        directory: PathBuf::new(),
                        file_name: OsString::new(),
                        size: 0,
                        mtime_ms: self.begun_ms,
                    };
                    found.push(ReadObject { record: Box::new(record), location, checksum: None });
                }
            }
            counts.objects += found.len() as u64;
            store(&self.writer, found)?;
            self.writer.lift_removed(uids)?;
        }
        self.search(lost, counts)
    }

    /// Looks in the storage directory for instances whose places the index does not know: it was
    /// built anew since they were removed.
    fn search(&mut self, mut lost: BTreeSet<String>, counts: &mut UndoCounts) -> anyhow::Result<()> {
        if lost.is_empty() {
            return Ok(());
        }
        if let Some((_, storage)) = self.trash.clone() {
            let series = series_directories(&storage).with_context(|| format!("cannot list {}", storage.display()))?;
            for series in series {
                let names = unknown_files(&mut self.reader, &series)?;
                let objects = names.iter().filter_map(|name| read(Place::Managed, &series, name, self.wanted).ok());
                let found: Vec<_> = objects.filter(|object| lost.remove(object.sop_instance_uid())).collect();
                if !found.is_empty() {
                    let uids = found.iter().map(|object| object.sop_instance_uid().to_owned()).collect();
                    self.store(found, counts)?;
                    self.writer.lift_removed(uids)?;
                }
            }
        }
        counts.unknown = lost.len() as u64;
        // A scan that finds their files indexes them from now on.
        Ok(self.writer.lift_removed(lost.into_iter().collect())?)
    }
}
