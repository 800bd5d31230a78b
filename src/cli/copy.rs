//! `dcmdex copy` makes files of a cohort: links, copies, a zip, a tar or a folder with a DICOMDIR,
//! under names of a template.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use clap::Args;

use super::copy_media::{CopySource, MediaFacts};
use super::keys::asked::{AskedColumn, KeyReader};
use super::keys::columns::{Column, FoundRow};
use super::keys::query::{at_hand, nothing_matched, query, refuse_what_was_not_read};
use super::keys::stream::each_batch;
use super::output::{Grouped, Shown};
use crate::archive::Archives;
use crate::cli::Exit;
use crate::cli::audited::CommandAudit;
use crate::cli::context::{Context, IndexArgs};
use crate::cohort::Error;
use crate::cohort::dicomdir::{DICOMDIR, KEYWORDS, MediaDirectory, MediaInstance, MediaListing, file_id};
use crate::cohort::folder::{CohortFolder, CopiedObject, OpenReplacement, Placing};
use crate::cohort::manifest::{CohortManifest, MANIFEST, ManifestRow};
use crate::cohort::names::numbered;
use crate::cohort::package::{CohortPackage, PackageKind};
use crate::cohort::template::NameTemplate;
use crate::db::open::Reader;
use crate::db::{self, CorrectedValues, Search as _};
use crate::files::make_directory;
use crate::model::attribute::AttributeId;
use crate::model::checksum::Checksum;
use crate::model::clock::Clock;
use crate::model::level::QueryRetrieveLevel;
use crate::model::location::{Location, Place};

/// Name of a file if no template is given. No two instances have the same.
const USUAL_TEMPLATE: &str = "{PatientID}/{StudyInstanceUID}/{SeriesInstanceUID}/{SOPInstanceUID}.dcm";

/// Note of an object whose next copy was taken.
const IS_OTHER: &str = "its first file is not as indexed";

/// Objects that could not be read, which are told one by one.
const TOLD_FAILURES: u64 = 10;

/// Keys of the UIDs of an object, in the order of [`CopiedUids::of`].
const UIDS: [&str; 4] = ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"];

#[derive(Debug, Args)]
#[command(after_long_help = AFTER_HELP)]
pub(super) struct CopyArgs {
    /// Folder, or file that ends with .zip or .tar
    #[arg(long, value_name = "DIR|FILE")]
    to: PathBuf,
    /// Template of the names in it
    #[arg(long = "as", value_name = "TEMPLATE", default_value = USUAL_TEMPLATE)]
    template: String,
    /// Write a DICOMDIR, with names of files as media have them (PS3.10 8.2) in place of a template
    #[arg(long, conflicts_with = "template")]
    dicomdir: bool,
    /// How a file comes from its source. Members of archive files are always copied
    #[arg(long, value_enum, default_value_t = Placing::Copy)]
    by: Placing,
    #[command(flatten)]
    index: IndexArgs,
    /// Instances to copy: see `dcmdex find --help`
    #[arg(value_name = "KEY=VALUE")]
    keys: Vec<String>,
}

const AFTER_HELP: &str = "\
Templates:
  {KEY} is the value of a key of DICOM, and / begins a new part of the path. {SeriesNumber:04} pads a
  number with zeros. A / in a value becomes _, as do characters that some file system forbids. Two
  instances of one name get numbers (name~2.dcm), and the manifest says so. A first part
  that is manifest.csv or DICOMDIR gets _ in front, since the copy writes these itself.

Examples:
  dcmdex copy Modality=MR StudyDate=2024 --to out --by hard-link \\
      --as '{PatientID}/{StudyDate}_{StudyDescription}/{SeriesNumber:04}/{InstanceNumber:05}.dcm'
  dcmdex copy AccessionNumber=@list.csv --to cohort.zip
  dcmdex copy PatientID=4711 --to cd --dicomdir

Objects whose patient was corrected (`dcmdex correct`) are always copied, with the corrected values. So \
are files without File Meta Information for a DICOMDIR, which get one. \
A DICOMDIR needs values that some objects lack (PS3.3 F.5). They are made, or the file is left out of it. \
The summary counts both, and manifest.csv names them. \
No file is overwritten. manifest.csv says what came from where. After an interruption, the same command \
goes on; a zip or tar begins again.
Exit codes: 0 done; 1 nothing matched, or some objects could not be read; 2 failed.";

/// Destination of the files.
enum CohortTarget {
    Folder { folder: CohortFolder, manifest: Box<CohortManifest>, media: Option<MediaDirectory> },
    Package(CohortPackage),
}

/// Asks an index about objects that are placed.
struct CopyLookup {
    reader: Reader,
    /// Whether any correction holds.
    corrects: bool,
    archives: Archives,
}

/// Facts that an index has about an object that is placed.
#[derive(Default)]
struct KnownObject {
    /// Its checksum, if it was received.
    checksum: Option<Checksum>,
    corrected: Option<Arc<CorrectedValues>>,
    facts: MediaFacts,
}

impl KnownObject {
    /// Whether the bytes are not those that lie there.
    fn is_rewritten(&self) -> bool {
        self.corrected.is_some() || self.facts.lacks_meta
    }
}

impl CopyLookup {
    fn new(mut reader: Reader) -> Result<Self, db::Error> {
        let corrects = reader.has_corrections()?;
        Ok(Self { reader, corrects, archives: Archives::default() })
    }

    /// Location of an object. An archive of which there are copies may not be mounted.
    fn location(&mut self, sop_instance_uid: &str, first: Option<Location>) -> Result<Location, Error> {
        let found = at_hand(&mut self.reader, sop_instance_uid, first);
        let found = found.map_err(|error| not_asked(&error))?;
        found.ok_or_else(|| Error::Object("the index knows no place where it is".to_owned()))
    }

    /// Asks about an object, and reads what a DICOMDIR says of it.
    fn ask(&mut self, target: &CohortTarget, uids: CopiedUids<'_>, location: &Location) -> Result<KnownObject, Error> {
        let (sop_instance_uid, sop_class_uid) = (uids.instance, uids.sop_class);
        let mut known = self.ask_index(target, sop_instance_uid, location)?;
        if matches!(target, CohortTarget::Folder { media: Some(_), .. }) {
            let corrected = known.corrected.as_ref();
            known.facts = CopySource { location, sop_class_uid, sop_instance_uid, corrected }.facts(&self.archives);
        }
        Ok(known)
    }

    /// Asks the index about an object. Nothing is asked for a link, and for a copy of a file that
    /// was not received, unless corrections hold.
    fn ask_index(
        &mut self,
        target: &CohortTarget,
        sop_instance_uid: &str,
        location: &Location,
    ) -> Result<KnownObject, Error> {
        let is_linked = matches!(target, CohortTarget::Folder { folder, .. } if folder.is_of_links());
        if (location.place != Place::Managed || is_linked) && !self.corrects {
            return Ok(KnownObject::default());
        }
        let known = self.reader.known_locations(sop_instance_uid);
        let known = known.map_err(|error| not_asked(&error))?;
        // All locations of an instance have the same corrections.
        let corrected = known.first().and_then(|known| known.corrected.clone());
        let known = known.into_iter().find(|known| known.location == *location);
        let checksum = known.and_then(|known| known.checksum);
        Ok(KnownObject { checksum, corrected, facts: MediaFacts::default() })
    }
}

fn not_asked(error: &db::Error) -> Error {
    Error::Object(format!("the index cannot be asked for it: {error}"))
}

/// Counts of the instances, by outcome.
#[derive(Default)]
struct CopyTally {
    made: u64,
    there: u64,
    numbered: u64,
    failed: u64,
    /// Objects whose records in the DICOMDIR have values that were made.
    completed: u64,
    /// Files that the DICOMDIR leaves out.
    unlisted: u64,
}

/// Outcome of one instance.
struct CopyOutcome {
    file: PathBuf,
    /// Method by which it came there. `None` if it was there.
    how: Option<Placing>,
    number: u32,
    listing: Option<MediaListing>,
}

/// UIDs of an object that is placed.
#[derive(Clone, Copy)]
struct CopiedUids<'a> {
    study: &'a str,
    series: &'a str,
    instance: &'a str,
    sop_class: &'a str,
}

impl<'a> CopiedUids<'a> {
    /// The values of [`UIDS`].
    fn of(values: &'a [String]) -> Self {
        let [study, series, instance, sop_class] = [0, 1, 2, 3].map(|at| values.get(at).map_or("", String::as_str));
        Self { study, series, instance, sop_class }
    }
}

/// Columns that the names and the manifest need.
struct CopyColumns {
    of_template: Vec<Column>,
    of_media: Vec<Column>,
    uids: Vec<Column>,
}

/// A copy that is under way.
struct CopyRun<'a> {
    template: &'a NameTemplate,
    columns: CopyColumns,
    target: CohortTarget,
    lookup: CopyLookup,
    tally: CopyTally,
    context: &'a Context,
}

pub(super) fn run(arguments: &CopyArgs, context: &mut Context) -> anyhow::Result<Exit> {
    let template = NameTemplate::parse(&arguments.template)?;
    let config = arguments.index.configure(context)?;
    let level = QueryRetrieveLevel::Image;
    let reading = KeyReader { level, declared: &config.declared, now_ms: Clock::System.now_ms() };
    if let Some(key) = arguments.keys.iter().find(|key| !key.contains('=')) {
        bail!("`{key}` has no value; hint: {key}=VALUE");
    }
    let mut asked = reading.keys(&arguments.keys)?;
    asked.hide_all();
    let columns = |names: &[&str]| names.iter().map(|name| reading.column(name)).collect::<anyhow::Result<Vec<_>>>();
    let named = template.keys().iter().map(|name| reading.column(name)).collect::<anyhow::Result<Vec<_>>>()?;
    if named.iter().any(AskedColumn::is_own) {
        bail!("path, size and mtime cannot be part of a name");
    }
    let uids = columns(&UIDS)?;
    let media = columns(if arguments.dicomdir { &KEYWORDS } else { &[] })?;
    let hidden: Vec<AskedColumn> = named.iter().chain(&uids).chain(&media).cloned().collect();
    let mut query = query(level, &asked.query_keys(&hidden), &config)?;
    query.request.arrival = asked.arrival.clone();
    query.request.wants_location = true;
    if let Some(warning) = refuse_what_was_not_read(&asked, &hidden, &config)? {
        context.tell(&warning);
    }
    let find = |asked: &AskedColumn| {
        asked.column(&query, &config.declared).context("a key of the template has no value in the answers")
    };
    let columns = CopyColumns {
        of_template: named.iter().map(find).collect::<anyhow::Result<_>>()?,
        of_media: media.iter().map(find).collect::<anyhow::Result<_>>()?,
        uids: uids.iter().map(find).collect::<anyhow::Result<_>>()?,
    };
    let located_by = query.request.return_keys.iter().position(|key| key.attribute == AttributeId::SOPInstanceUID);
    let reader = Reader::open(&config.index)?;
    let exported = Some((config.index.as_path(), &query.request));
    CommandAudit::open(&config, "copy")?.exported(&arguments.keys, &arguments.to, exported)?;
    let lookup = CopyLookup::new(reader.another()?)?;
    let (target, tally) = (target(arguments)?, CopyTally::default());
    let mut run = CopyRun { template: &template, columns, target, lookup, tally, context };
    let found = each_batch(reader, &query, located_by, |batch| run.place(batch))
        .with_context(|| format!("not all is in {}; hint: {}", arguments.to.display(), run.target.resume_hint()))?;
    run.target.finish(&arguments.to, found)?;
    if found == 0 {
        context.tell(&nothing_matched(&asked, run.lookup.reader)?);
        return Ok(Exit::Partly);
    }
    context.tell(&summary(&run.tally, &arguments.to));
    Ok(if run.tally.failed > 0 { Exit::Partly } else { Exit::Done })
}

impl CohortTarget {
    /// Hint about what the same command does after an error.
    fn resume_hint(&self) -> &'static str {
        match self {
            Self::Folder { .. } => "the same command goes on",
            Self::Package(_) => "the same command begins again",
        }
    }

    /// Finishes the files about the objects. Without any object, a zip or a tar is not made.
    fn finish(self, to: &Path, found: u64) -> anyhow::Result<()> {
        match self {
            Self::Folder { manifest, media, .. } => {
                if let Some(media) = media.filter(|_| found > 0) {
                    media.write(to)?;
                }
                manifest.finish()?;
            }
            Self::Package(_) if found == 0 => {}
            Self::Package(package) => package.finish()?,
        }
        Ok(())
    }
}

/// Endings of packages that are not made. A folder of such a name would surprise.
const OTHER_PACKAGES: &[&str] = &["gz", "tgz", "bz2", "xz", "zst", "7z", "rar"];

/// Opens the destination.
fn target(arguments: &CopyArgs) -> anyhow::Result<CohortTarget> {
    let extension = arguments.to.extension().and_then(|extension| extension.to_str());
    let kind = match extension {
        Some("zip") => Some(PackageKind::Zip),
        Some("tar") => Some(PackageKind::Tar),
        Some(other) if OTHER_PACKAGES.contains(&other) && !arguments.to.is_dir() => {
            bail!("a file that ends with .{other} is not made; hint: .zip or .tar, or --to FOLDER");
        }
        _ => None,
    };
    if let Some(kind) = kind.filter(|_| !arguments.to.is_dir()) {
        if arguments.by != Placing::Copy {
            bail!("a zip or tar file has copies, no links");
        }
        if arguments.dicomdir {
            bail!("a DICOMDIR is for a folder");
        }
        return Ok(CohortTarget::Package(CohortPackage::create(&arguments.to, kind)?));
    }
    let made = make_directory(&arguments.to);
    made.with_context(|| format!("cannot create {}", arguments.to.display()))?;
    let mut manifest = CohortManifest::open(&arguments.to)?;
    let folder = CohortFolder::new(&arguments.to, arguments.by, manifest.take_earlier());
    let media = arguments.dicomdir.then(MediaDirectory::default);
    Ok(CohortTarget::Folder { folder, manifest: Box::new(manifest), media })
}

impl CopyRun<'_> {
    /// Places the objects of a batch.
    fn place(&mut self, batch: &mut [FoundRow]) -> Result<(), Error> {
        // Members of one archive file are read in one pass if they come in the order of their
        // names.
        let key = |row: &FoundRow| {
            let location = row.location.as_ref().filter(|location| location.place == Place::Archive);
            location.map(|location| (location.directory.clone(), location.file_name.clone()))
        };
        if batch.iter().any(|row| key(row).is_some()) {
            batch.sort_by_cached_key(key);
        }
        for row in batch {
            let texts = |columns: &[Column]| columns.iter().map(|column| column.cell(row).into_text()).collect();
            let uids: Vec<String> = texts(&self.columns.uids);
            let uids = CopiedUids::of(&uids);
            let media: Vec<String> = texts(&self.columns.of_media);
            let values: Vec<String> = texts(&self.columns.of_template);
            let path = self.template.path(&values);
            let name = |number| match media.first() {
                Some(patient) => file_id(patient, uids.study, uids.series, uids.instance, number),
                None => numbered(&path, number),
            };
            self.place_one(row, &name, uids, &media)?;
        }
        Ok(())
    }

    fn place_one(
        &mut self,
        row: &FoundRow,
        name: &dyn Fn(u32) -> PathBuf,
        uids: CopiedUids<'_>,
        media_values: &[String],
    ) -> Result<(), Error> {
        let located = self.lookup.location(uids.instance, row.location.clone());
        let location = located.as_ref().ok().cloned();
        let source = location.as_ref().and_then(Location::path).unwrap_or_default();
        let size = location.as_ref().map_or(0, |location| location.size);
        let known = located.and_then(|location| Ok((self.lookup.ask(&self.target, uids, &location)?, location)));
        let causes = match &known {
            Ok((known, location)) => {
                let is_other = row.location.as_ref().is_some_and(|first| first != location);
                let is_corrected = known.corrected.is_some();
                [is_other.then_some(IS_OTHER), is_corrected.then_some("its patient is corrected")]
            }
            Err(_) => [None, None],
        };
        let placed =
            known.and_then(|(known, location)| put(&mut self.target, name, (&location, known), uids, media_values));
        let (file, how, note) = match &placed {
            Ok(placed) => {
                let note = self.tally.note(placed, causes, name);
                let Some(how) = placed.how else {
                    self.tally.there += 1;
                    return Ok(());
                };
                self.tally.made += 1;
                (placed.file.as_path(), how.as_str(), note)
            }
            Err(Error::Object(problem)) => {
                self.tally.failed += 1;
                if self.tally.failed <= TOLD_FAILURES {
                    self.context.tell(&format!("{}: {problem}", Shown(&source)));
                }
                (Path::new(""), "failed", problem.clone())
            }
            Err(_) => return placed.map(|_| ()),
        };
        let uids = [uids.study, uids.series, uids.instance];
        let row = ManifestRow { file, source: &source, size, how, note: &note, uids };
        match &mut self.target {
            CohortTarget::Folder { manifest, .. } => manifest.row(&row),
            CohortTarget::Package(package) => package.note(&row),
        }
    }
}

/// Places an object.
fn put(
    target: &mut CohortTarget,
    name: &dyn Fn(u32) -> PathBuf,
    (location, known): (&Location, KnownObject),
    uids: CopiedUids<'_>,
    media_values: &[String],
) -> Result<CopyOutcome, Error> {
    let (sop_instance_uid, sop_class_uid) = (uids.instance, uids.sop_class);
    let corrected = known.corrected.as_ref();
    let object = CopySource { location, sop_class_uid, sop_instance_uid, corrected };
    let lacks_meta = known.facts.lacks_meta;
    let open = |archives: &Archives| object.file(lacks_meta, archives);
    let replacement = known.is_rewritten().then_some(&open as OpenReplacement<'_>);
    let object = CopiedObject { location, checksum: known.checksum, replacement };
    match target {
        CohortTarget::Folder { folder, media, .. } => {
            let placed = folder.place(name, sop_instance_uid, object)?;
            let listing = media.as_mut().map(|media| {
                let (values, file) = (media_values.to_vec(), placed.file.clone());
                media.add(MediaInstance { values, file, keys: known.facts.keys })
            });
            Ok(CopyOutcome { file: placed.file, how: placed.how, number: placed.number, listing })
        }
        CohortTarget::Package(package) => {
            let (file, number) = package.add(&name(1), object)?;
            Ok(CopyOutcome { file, how: Some(Placing::Copy), number, listing: None })
        }
    }
}

impl CopyTally {
    /// Counts an object that was placed. Returns the note of the manifest.
    fn note(&mut self, placed: &CopyOutcome, causes: [Option<&str>; 2], name: &dyn Fn(u32) -> PathBuf) -> String {
        let mut notes = Vec::new();
        if placed.number > 1 && placed.how.is_some() {
            self.numbered += 1;
            notes.push(format!("another file has the name {}", name(1).display()));
        }
        notes.extend(causes.into_iter().flatten().map(str::to_owned));
        match &placed.listing {
            Some(MediaListing::Listed { made }) if !made.is_empty() => {
                self.completed += 1;
                notes.push(format!("{DICOMDIR} has made values for it: {}", made.join(" ")));
            }
            Some(MediaListing::LeftOut(why)) => {
                self.unlisted += 1;
                notes.push(format!("{DICOMDIR} leaves it out: {why}"));
            }
            Some(MediaListing::Listed { .. }) | None => {}
        }
        notes.join("; ")
    }
}

fn summary(tally: &CopyTally, to: &Path) -> String {
    let mut text = format!("{} files in {}", Grouped(tally.made), to.display());
    for (count, what) in [
        (tally.there, "were there from an earlier run"),
        (tally.numbered, "names got a number"),
        (tally.failed, "objects could not be read"),
        (tally.completed, "have made values in the DICOMDIR"),
        (tally.unlisted, "are not in the DICOMDIR"),
    ] {
        if count > 0 {
            text.push_str(&format!("; {} {what}", Grouped(count)));
        }
    }
    if tally.numbered + tally.failed + tally.completed + tally.unlisted > 0 {
        text.push_str(&format!("; {MANIFEST} says which"));
    }
    text
}
