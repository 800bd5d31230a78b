//! `dcmdex check` checks that the index is consistent and agrees with the disk.

use std::fs::Metadata;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use clap::Args;
use rayon::prelude::*;
use serde_json::{Map, Value, json};

use super::output::{Audience, Grouped, Shown};
use crate::archive::Archives;
use crate::cli::context::{Context, IndexArgs};
use crate::cli::{Exit, unindexed};
use crate::config::Config;
use crate::db::ScanLedger;
use crate::db::open::Reader;
use crate::db::{self, Admin, PAGE_DIRECTORIES};
use crate::db::{ConflictEntry, Finding, LocatedInstance, WorklistSearch, WorklistState};
use crate::deliver::object::{Identity, ObjectError, StoredObject};
use crate::model::clock::unix_ms;
use crate::model::location::{Location, Place};
use crate::store::{Verified, change_of};

/// Objects to open between two queries to the index.
const BATCH: usize = 4096;

/// Objects that one thread opens one after the other.
const PART: usize = 64;

/// The same for an archive file. Each part may first have to read the archive up to its first
/// member.
const ARCHIVE_PART: usize = 4096;

const EXAMPLES: &str = "\
Examples:
  dcmdex check                  the index, and contradictions in the archive
  dcmdex check --files          and each object, with its checksum
  dcmdex check --orphans        and objects of the node that the index lacks";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    index: IndexArgs,
    /// Also open every object that the index names, and compare its size, time and identity.
    /// Managed objects are read to their end and compared with their checksums
    #[arg(long)]
    files: bool,
    /// With --files: read only the beginning of each object
    #[arg(long, requires = "files")]
    no_checksums: bool,
    /// Also list the objects of the storage directory that the index lacks
    #[arg(long)]
    orphans: bool,
    /// With --orphans: directory with the objects [default: dcmdex-data/objects]
    #[arg(long, value_name = "DIR", requires = "orphans")]
    storage: Option<PathBuf>,
    /// List at most N conflicts. All are counted
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// Write one JSON object per line. The last one is the summary (docs/json.md)
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &CheckArgs, context: &mut Context) -> anyhow::Result<Exit> {
    let config = arguments.index.configure_with(arguments.storage.as_ref(), context)?;
    check(arguments, &config, context).map_err(|error| match error.downcast() {
        Ok(error) => damaged(error, &config.index),
        Err(error) => error,
    })
}

fn check(arguments: &CheckArgs, config: &Config, context: &mut Context) -> anyhow::Result<Exit> {
    let mut reader = Reader::open(&config.index)?;
    let report = reader.check()?;
    let mut printer = Printer { context, json: arguments.json };
    for finding in &report.findings {
        printer.finding(finding)?;
    }
    let by_kind = reader.status()?.conflicts;
    let worklist = reader.worklist_counts()?;
    let conflicts: u64 = by_kind.iter().map(|(_, count)| count).sum();
    let mut listed = 0;
    let mut written = Ok(Audience::Listening);
    if arguments.limit != Some(0) {
        reader.conflicts(|conflict| {
            listed += 1;
            written = printer.conflict(&conflict);
            let enough = arguments.limit.is_some_and(|limit| listed >= limit);
            if enough || !matches!(written, Ok(Audience::Listening)) {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })?;
    }
    written?;
    let verified = (!arguments.no_checksums).then(Arc::default);
    let mut files = FileCounts { verified, ..FileCounts::default() };
    if arguments.files {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(config.scan.jobs.first)
            .build()
            .context("cannot start threads to open objects")?;
        check_files(&mut reader, &pool, &mut files, &mut printer)?;
    }
    let orphans = if arguments.orphans { Some(list_orphans(config, &mut reader, &mut printer)?) } else { None };
    let differing = files.changed + files.gone + files.not_accessible + orphans.unwrap_or(0);
    let sound = report.findings.is_empty() && differing == 0;
    let findings = report.findings.len();
    let summary = CheckSummary { findings, sound, conflicts, listed, by_kind, worklist, orphans };
    let files = arguments.files.then_some(&files);
    if arguments.json {
        summary.write_json(files, config, printer.context)?;
    } else {
        summary.write_text(files, printer.context)?;
    }
    Ok(if sound { Exit::Done } else { Exit::Partly })
}

/// Lists the objects of the storage directory that the index lacks. Returns how many there are.
fn list_orphans(config: &Config, reader: &mut Reader, printer: &mut Printer<'_>) -> anyhow::Result<u64> {
    let Some(options) = config.kept_store_options() else {
        bail!("with `metadata_only` no objects are kept; hint: leave out --orphans");
    };
    let Some(root) = unindexed::storage_to_read(reader, &options.directory)? else { return Ok(0) };
    let listed = unindexed::series_directories(&root).with_context(|| format!("cannot list {}", root.display()))?;
    let removed = unindexed::RemovedInPlace::below(&root, reader)?;
    let mut orphans = 0;
    for series in listed {
        let mut unknown = unindexed::unknown_for_good(reader, &series, &removed)?;
        unknown.sort();
        for name in unknown {
            orphans += 1;
            printer.file("orphan", "", &series.join(name))?;
        }
    }
    Ok(orphans)
}

/// Says what to do about an index that is too damaged to be checked.
fn damaged(error: db::Error, index: &Path) -> anyhow::Error {
    match error {
        db::Error::Damaged { detail, .. } | db::Error::Malformed(detail) => anyhow::anyhow!(
            "the index {0} is damaged ({detail}): keep it and restore a backup. Without a backup, move it away and build a \
             new one with `dcmdex scan`",
            index.display()
        ),
        error => error.into(),
    }
}

/// The result of the check.
struct CheckSummary {
    findings: usize,
    sound: bool,
    conflicts: u64,
    /// Conflicts that were printed.
    listed: u64,
    by_kind: Vec<(String, u64)>,
    /// Items of the worklist in each state.
    worklist: Vec<(WorklistState, u64)>,
    /// Objects that the index lacks, if they were looked for.
    orphans: Option<u64>,
}

impl CheckSummary {
    /// Writes the summary as JSON. `files` has the counts of files, if they were checked.
    fn write_json(&self, files: Option<&FileCounts>, config: &Config, context: &mut Context) -> io::Result<()> {
        let by_kind: Map<_, _> = self.by_kind.iter().map(|(kind, count)| (kind.clone(), Value::from(*count))).collect();
        let count = |of: fn(&FileCounts) -> u64| files.map_or(Value::Null, |files| of(files).into());
        let worklist: Map<_, _> =
            self.worklist.iter().map(|(state, count)| (state.as_str().to_owned(), Value::from(*count))).collect();
        context.output.line(json!({
            "event": "summary",
            "index": config.shown_index().to_string_lossy(),
            "sound": self.sound,
            "findings": self.findings,
            "conflicts": self.conflicts,
            "conflicts_by_kind": by_kind,
            "conflicts_listed": self.listed,
            "worklist": worklist,
            "files_sound": count(|files| files.sound),
            "files_changed": count(|files| files.changed),
            "files_gone": count(|files| files.gone),
            "files_not_accessible": count(|files| files.not_accessible),
            "orphans": self.orphans,
        }))?;
        Ok(())
    }

    /// Writes the summary as text.
    fn write_text(&self, files: Option<&FileCounts>, context: &mut Context) -> io::Result<()> {
        let verb = if self.findings == 0 { "agrees with" } else { "DISAGREES with" };
        let mut kinds = String::new();
        for (at, (kind, count)) in self.by_kind.iter().enumerate() {
            let open = if at == 0 { " (" } else { ", " };
            kinds.push_str(&format!("{open}{kind} {}", Grouped(*count)));
        }
        if !kinds.is_empty() {
            kinds.push(')');
        }
        let conflicts = Grouped(self.conflicts);
        context.output.line(format_args!("the index {verb} itself; conflicts in the archive: {conflicts}{kinds}"))?;
        if self.listed < self.conflicts {
            context.output.line(format_args!("{} of them are listed", Grouped(self.listed)))?;
        }
        if !self.worklist.is_empty() {
            let counts: Vec<_> =
                self.worklist.iter().map(|(state, count)| format!("{} {}", Grouped(*count), state.as_str())).collect();
            context.output.line(format_args!("worklist: {}", counts.join(", ")))?;
        }
        if let Some(files) = files {
            context.output.line(format_args!(
                "files: {} as the index says, {} changed, {} gone, {} not accessible",
                Grouped(files.sound),
                Grouped(files.changed),
                Grouped(files.gone),
                Grouped(files.not_accessible)
            ))?;
        }
        if let Some(orphans) = self.orphans {
            let hint = if orphans > 0 { "; `dcmdex rebuild` indexes them" } else { "" };
            context.output.line(format_args!("objects that the index lacks: {}{hint}", Grouped(orphans)))?;
        }
        Ok(())
    }
}

/// Writes the results while the check runs.
struct Printer<'a> {
    context: &'a mut Context,
    json: bool,
}

impl Printer<'_> {
    fn finding(&mut self, finding: &Finding) -> io::Result<Audience> {
        let output = &mut self.context.output;
        match self.json {
            true => output.line(json!({ "event": "finding", "check": finding.check, "detail": finding.detail })),
            false => output.line(format_args!("{}: {}", finding.check, finding.detail)),
        }
    }

    fn conflict(&mut self, conflict: &ConflictEntry) -> io::Result<Audience> {
        let output = &mut self.context.output;
        match self.json {
            true => output.line(json!({
                "event": "conflict",
                "kind": conflict.kind,
                "path": conflict.path.to_string_lossy(),
                "study_instance_uid": conflict.study_instance_uid,
                "other_study_instance_uid": conflict.other_study_instance_uid,
                "series_instance_uid": conflict.series_instance_uid,
                "sop_instance_uid": conflict.sop_instance_uid,
            })),
            false => {
                let other = match conflict.other_study_instance_uid.as_str() {
                    "" => String::new(),
                    other => format!("; and study {other}"),
                };
                output.line(format_args!(
                    "{}: {} (study {}, series {}, instance {}{other})",
                    conflict.kind,
                    Shown(&conflict.path),
                    conflict.study_instance_uid,
                    conflict.series_instance_uid,
                    conflict.sop_instance_uid
                ))
            }
        }
    }

    fn file(&mut self, problem: &str, detail: &str, path: &Path) -> io::Result<Audience> {
        let output = &mut self.context.output;
        match self.json {
            true => output
                .line(json!({ "event": "file", "problem": problem, "path": path.to_string_lossy(), "detail": detail })),
            false if detail.is_empty() => output.line(format_args!("{problem}: {}", Shown(path))),
            false => output.line(format_args!("{problem} ({detail}): {}", Shown(path))),
        }
    }
}

/// Counts of the files that the index names, by result.
#[derive(Debug, Default)]
struct FileCounts {
    sound: u64,
    changed: u64,
    gone: u64,
    not_accessible: u64,
    /// `Some` if objects are compared with their checksums.
    verified: Option<Arc<Verified>>,
}

impl FileCounts {
    /// Counts a file that differs from the index. Returns the kind of problem, and the error if
    /// there is one.
    fn problem(&mut self, found: &io::Result<Metadata>) -> (&'static str, String) {
        match found {
            Ok(_) => {
                self.changed += 1;
                ("changed", String::new())
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                self.gone += 1;
                ("gone", String::new())
            }
            Err(error) => {
                self.not_accessible += 1;
                ("not accessible", error.to_string())
            }
        }
    }
}

/// The problem with a file.
enum FileProblem {
    Changed(String),
    Gone,
    NotAccessible(String),
}

fn check_files(
    reader: &mut Reader,
    pool: &rayon::ThreadPool,
    files: &mut FileCounts,
    printer: &mut Printer<'_>,
) -> anyhow::Result<()> {
    let root = Path::new("/");
    let mut batch = reader.located_instances(Place::InPlace, root)?;
    for place in [Place::InPlace, Place::Managed] {
        let mut after = root.to_owned();
        loop {
            let page = reader.directories_below(place, root, &after, PAGE_DIRECTORIES)?;
            let Some(last) = page.last() else { break };
            after.clone_from(last);
            for directory in &page {
                let mut known = reader.located_instances(place, directory)?;
                known.sort_unstable_by(|a, b| a.location.file_name.cmp(&b.location.file_name));
                batch.append(&mut known);
                if batch.len() >= BATCH {
                    check_file(&mut batch, PART, pool, files, printer)?;
                }
            }
        }
    }
    check_file(&mut batch, PART, pool, files, printer)?;
    let mut after = root.to_owned();
    loop {
        let page = reader.directories_below(Place::Archive, root, &after, PAGE_DIRECTORIES)?;
        let Some(last) = page.last() else { return Ok(()) };
        after.clone_from(last);
        for archive in &page {
            check_archive(reader, archive, pool, files, printer)?;
        }
    }
}

/// Opens the members of an archive file. If the time of the archive has changed, its members may be
/// others, so none is opened.
fn check_archive(
    reader: &mut Reader,
    archive: &Path,
    pool: &rayon::ThreadPool,
    files: &mut FileCounts,
    printer: &mut Printer<'_>,
) -> anyhow::Result<()> {
    let metadata = archive.metadata();
    let mtime_ms = match &metadata {
        Ok(metadata) if metadata.is_file() => metadata.modified().ok().map(unix_ms),
        Ok(_) | Err(_) => None,
    };
    let mut members = reader.located_instances(Place::Archive, archive)?;
    members.sort_unstable_by(|a, b| a.location.file_name.cmp(&b.location.file_name));
    let (mut same, other): (Vec<_>, Vec<_>) =
        members.into_iter().partition(|member| mtime_ms == Some(member.location.mtime_ms));
    check_file(&mut same, ARCHIVE_PART, pool, files, printer)?;
    for member in other {
        let (problem, detail) = files.problem(&metadata);
        printer.file(problem, &detail, &Place::Archive.shown_path(archive, &member.location.file_name))?;
    }
    Ok(())
}

/// Opens the objects of a batch in parallel and compares them with the index.
fn check_file(
    batch: &mut Vec<LocatedInstance>,
    part: usize,
    pool: &rayon::ThreadPool,
    files: &mut FileCounts,
    printer: &mut Printer<'_>,
) -> anyhow::Result<()> {
    // Members of one archive are cheap to open if they follow each other.
    let verified = files.verified.as_ref();
    let problems_of = |part: &[LocatedInstance]| {
        let archives = Archives::default();
        part.iter().map(|instance| problem(instance, &archives, verified)).collect::<Vec<_>>()
    };
    let problems = pool.install(|| batch.par_chunks(part).flat_map_iter(problems_of).collect::<Vec<_>>());
    for (instance, problem) in batch.drain(..).zip(problems) {
        let (count, word, detail) = match problem {
            None => {
                files.sound += 1;
                continue;
            }
            Some(FileProblem::Changed(detail)) => (&mut files.changed, "changed", detail),
            Some(FileProblem::Gone) => (&mut files.gone, "gone", String::new()),
            Some(FileProblem::NotAccessible(detail)) => (&mut files.not_accessible, "not accessible", detail),
        };
        *count += 1;
        let Location { place, directory, file_name, .. } = &instance.location;
        printer.file(word, &detail, &place.shown_path(directory, file_name))?;
    }
    Ok(())
}

/// The problem with a location. `None` if there is none.
fn problem(instance: &LocatedInstance, archives: &Archives, verified: Option<&Arc<Verified>>) -> Option<FileProblem> {
    let identity = Identity {
        sop_instance_uid: &instance.sop_instance_uid,
        sop_class_uid: Some(&instance.sop_class_uid),
        transfer_syntax: Some(&instance.transfer_syntax),
    };
    let opened = StoredObject::open(&instance.location, &identity, archives);
    let looked_at = match (verified, instance.checksum) {
        (Some(verified), Some(checksum)) => {
            opened.and_then(|object| object.expecting(Some(checksum), verified)?.read_to_end())
        }
        // Without a checksum, only length and time can show a change.
        _ => match opened {
            Ok(_) if !is_as_known(&instance.location) => return Some(FileProblem::Changed(String::new())),
            opened => opened.map(drop),
        },
    };
    match looked_at {
        Ok(()) => None,
        Err(error) if error.is_gone() => Some(FileProblem::Gone),
        Err(ObjectError::Changed(what)) => Some(FileProblem::Changed(what.to_owned())),
        Err(ObjectError::OtherClass) => Some(FileProblem::Changed("another SOP Class UID".to_owned())),
        Err(ObjectError::Damaged) => Some(FileProblem::Changed("its bytes differ from those received".to_owned())),
        Err(
            error @ (ObjectError::NotKept
            | ObjectError::Store(_)
            | ObjectError::Read(_)
            | ObjectError::Rewrite(_)
            | ObjectError::Decompress(_)),
        ) => {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            Some(FileProblem::NotAccessible(cause.unwrap_or_else(|| error.to_string())))
        }
    }
}

fn is_as_known(location: &Location) -> bool {
    let Some(metadata) = location.file().and_then(|file| file.metadata().ok()) else { return false };
    // The node never writes a received object again. So another time shows that somebody else did.
    metadata.is_file()
        && change_of(location, &metadata).is_none()
        && metadata.modified().is_ok_and(|time| unix_ms(time) == location.mtime_ms)
}
