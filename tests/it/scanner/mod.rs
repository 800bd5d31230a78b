//! The result of scanning a directory tree.

mod again;
mod archives;
mod asking;
mod dicomdir;
mod hanging;
mod old_disks;
mod pruning;
mod walking;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dcmdex::db::open::{Reader, Writer, WriterOptions};
use dcmdex::db::{Admin, Durability, Search};
use dcmdex::model::attribute::AttributeId;
use dcmdex::model::clock::Clock;
use dcmdex::model::declared::DeclaredSet;
use dcmdex::model::find::FindRequest;
use dcmdex::model::level::{InformationModel, QueryRetrieveLevel};
use dcmdex::scanner::{
    Filter, Jobs, Options, Rate, Roots, ScanEvent, ScanTarget, Stop, Summary, Vanished, WalkOrder, scan,
};

use crate::util::objects;

/// A directory tree to scan, with an index beside it.
struct Archive {
    directory: tempfile::TempDir,
    options: Options,
}

/// Report of a scan, with paths relative to the tree.
#[derive(Debug)]
struct Told {
    summary: Summary,
    /// Lines `kind path reason`, in order.
    events: Vec<String>,
}

impl Told {
    /// Returns `(found, indexed, updated, unchanged, skipped, failed)` and asserts that they add
    /// up.
    #[track_caller]
    fn numbers(&self) -> (u64, u64, u64, u64, u64, u64) {
        let Summary { found, indexed, updated, unchanged, skipped, failed, .. } = self.summary;
        assert_eq!(found, indexed + updated + unchanged + skipped + failed, "{:?}", self.summary);
        let sum = |reasons: &dcmdex::scanner::Reasons| reasons.iter().map(|(_, count)| count).sum::<u64>();
        assert_eq!(skipped, sum(&self.summary.skipped_by_reason));
        assert_eq!(failed, sum(&self.summary.failed_by_reason));
        (found, indexed, updated, unchanged, skipped, failed)
    }
}

impl Archive {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap();
        std::fs::create_dir(root.join("tree")).unwrap();
        let options = Options {
            jobs: Jobs::fixed(4),
            full: false,
            read_before: Default::default(),
            filter: Filter::default(),
            order: WalkOrder::Name,
            throttle: Rate::default(),
            read_timeout: Duration::from_secs(60),
            settling: None,
            tape_files: Default::default(),
            before_listing: Default::default(),
            vanished: Vanished::Keep,
            index: root.join("index.db"),
            storage: root.join("objects"),
            declared: Arc::clone(DeclaredSet::none()),
        };
        Self { directory, options }
    }

    /// Returns the name of the fail point before the scanner reads a file or directory.
    fn fail_point(&self, path: &str) -> String {
        format!("scan {}", self.path(path).display())
    }

    fn root(&self) -> PathBuf {
        self.directory.path().canonicalize().unwrap().join("tree")
    }

    fn path(&self, inside: impl AsRef<Path>) -> PathBuf {
        self.root().join(inside)
    }

    fn index(&self) -> &Path {
        &self.options.index
    }

    /// Writes an instance of series 1.2.1.1.
    fn write(&self, inside: impl AsRef<Path>, instance: u32) {
        objects::write(&self.path(inside), 1, 1, instance);
    }

    fn scan(&self) -> Told {
        self.scan_paths(&[self.root()])
    }

    fn scan_paths(&self, paths: &[PathBuf]) -> Told {
        self.scan_until(paths, &Stop::default(), |_| {})
    }

    fn scan_until(&self, paths: &[PathBuf], stop: &Stop, mut on_event: impl FnMut(&ScanEvent<'_>)) -> Told {
        let writer_options = WriterOptions {
            durability: Durability::Os,
            queue_length: 4,
            clock: Clock::Fixed(1_000),
            ..Default::default()
        };
        let writer = Writer::open(self.index(), writer_options).unwrap();
        let handle = writer.handle();
        let target = ScanTarget::Index { known: Reader::open(self.index()).unwrap(), writer: &handle };
        let told = self.scan_into(target, paths, stop, &mut on_event);
        drop(handle);
        writer.close().unwrap();
        told
    }

    fn scan_into(
        &self,
        target: ScanTarget<'_>,
        paths: &[PathBuf],
        stop: &Stop,
        on_event: &mut dyn FnMut(&ScanEvent<'_>),
    ) -> Told {
        let roots = Roots::find(paths, &self.options).unwrap();
        let mut events = Vec::new();
        let root = self.root();
        let summary = scan(&roots, &self.options, target, stop, &mut |event| {
            on_event(&event);
            let shown = |path: &Path| path.strip_prefix(&root).unwrap_or(path).display().to_string();
            match event {
                ScanEvent::Failed { path, reason, .. } => events.push(format!("failed {} {reason}", shown(path))),
                ScanEvent::Skipped { path, reason, .. } => events.push(format!("skipped {} {reason}", shown(path))),
                ScanEvent::Unlisted { path } => events.push(format!("unlisted {}", shown(path))),
                ScanEvent::Faults { path, .. } => events.push(format!("faults {}", shown(path))),
                ScanEvent::Hangs(hang) => events.push(format!("hangs {}", shown(&hang.path))),
                ScanEvent::NotPruned(what) => {
                    events.push(format!("not-pruned {} {} {}", shown(&what.path), what.why.as_str(), what.files));
                }
                ScanEvent::Pending { path } => events.push(format!("pending {}", shown(path))),
                ScanEvent::Progress(_) => {}
            }
        })
        .unwrap();
        Told { summary, events }
    }

    /// Returns all instances of the index: each UID with its locations relative to the tree, in
    /// their order.
    fn instances(&self) -> BTreeMap<String, Vec<PathBuf>> {
        let mut reader = Reader::open(self.index()).unwrap();
        let request = FindRequest::new(InformationModel::PatientRoot, QueryRetrieveLevel::Image)
            .returning(&[AttributeId::SOPInstanceUID]);
        let mut uids = Vec::new();
        reader
            .find(&request, |answer| {
                uids.extend(answer.values.to_vec());
                ControlFlow::Continue(())
            })
            .unwrap();
        let root = self.root();
        uids.into_iter()
            .map(|uid| {
                let places = reader.locations(&uid).unwrap();
                let inside = |path: PathBuf| path.strip_prefix(&root).map(Path::to_owned).unwrap_or(path);
                (uid, places.iter().filter_map(|place| place.path()).map(inside).collect())
            })
            .collect()
    }

    /// Asserts that the index is consistent and reports exactly these failures.
    #[track_caller]
    fn assert_failures(&self, expected: &[&str]) {
        let mut reader = Reader::open(self.index()).unwrap();
        assert_eq!(reader.check().unwrap().findings, []);
        let (mut failures, root) = (Vec::new(), self.root());
        reader
            .failures(|failure| {
                let path = failure.path.strip_prefix(&root).unwrap_or(&failure.path);
                failures.push(format!("{} {}", path.display(), failure.reason));
                ControlFlow::Continue(())
            })
            .unwrap();
        assert_eq!(failures, expected);
    }
}
