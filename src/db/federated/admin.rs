//! Questions of an operator to several files.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use super::federation::Federation;
use super::lookups::request_for;
use super::part::FederatedPart;
use super::streams::{self, Ask};
use crate::db::{
    Admin, CheckReport, ConflictEntry, Error, FailureEntry, Finding, IndexStatus, Interrupt, ScanEntry, Search as _,
    StudyReport, WatchEntry,
};
use crate::model::level::QueryRetrieveLevel::Patient;

/// Scans that a status lists.
const LISTED_SCANS: usize = 10;

/// The kinds of conflicts, in the order in which each file lists them.
const KINDS: [&str; 5] = [
    "instance-with-other-content",
    "invalid-uid",
    "series-under-two-studies",
    "study-under-two-patients",
    "patient-id-of-two-people",
];

impl<R: FederatedPart> Federation<R> {
    /// Calls `on_entry` with the entries of all files, ordered by `key`, and with the number of the
    /// file of each, until it says to stop.
    pub(super) fn in_order<T: Send, K: Ord>(
        &mut self,
        ask: impl Ask<R, T>,
        key: impl Fn(&T) -> K,
        mut on_entry: impl FnMut(usize, T) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let interrupts: Vec<Interrupt> = self.parts.iter().map(R::interrupt).collect();
        streams::merged(&mut self.parts, &interrupts, &ask, |mut streams| {
            let mut heads = streams.iter_mut().map(streams::FileStream::next).collect::<Result<Vec<_>, _>>()?;
            loop {
                let keys = heads.iter().enumerate().filter_map(|(at, head)| Some((at, key(head.as_ref()?))));
                let Some((at, _)) = keys.min_by(|(_, one), (_, other)| one.cmp(other)) else { return Ok(()) };
                let (Some(head), Some(stream)) = (heads.get_mut(at), streams.get_mut(at)) else { return Ok(()) };
                if let Some(entry) = std::mem::replace(head, stream.next()?)
                    && on_entry(at, entry).is_break()
                {
                    return Ok(());
                }
            }
        })
    }

    /// The findings of all files, each with its file. The files are looked at together.
    fn findings(&mut self, look: impl Fn(&mut R) -> Result<CheckReport, Error> + Sync) -> Result<CheckReport, Error> {
        let reports: Vec<Result<CheckReport, Error>> = std::thread::scope(|scope| {
            let look = &look;
            let threads: Vec<_> = self.parts.iter_mut().map(|part| scope.spawn(move || look(part))).collect();
            let joined = threads.into_iter().map(std::thread::ScopedJoinHandle::join);
            joined.map(|looked| looked.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
        });
        let mut all = CheckReport::default();
        for ((path, _), report) in self.named().zip(reports) {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let named = |finding: Finding| Finding { detail: format!("{name}: {}", finding.detail), ..finding };
            all.findings.extend(report?.findings.into_iter().map(named));
        }
        Ok(all)
    }
}

impl<R: FederatedPart> Admin for Federation<R> {
    /// The files are counted one after the other, so the numbers of two files may be of two
    /// moments.
    fn status(&mut self) -> Result<IndexStatus, Error> {
        if let [one] = self.parts.as_mut_slice() {
            return one.status();
        }
        let mut sum = IndexStatus::default();
        for part in &mut self.parts {
            add_status(&mut sum, part.status()?);
        }
        sum.scans.sort_by_key(|entry: &ScanEntry| Reverse(entry.started_ms));
        sum.scans.truncate(LISTED_SCANS);
        for between in self.contradictions()? {
            add_words(&mut sum.conflicts, vec![(between.kind, 1)]);
        }
        sum.conflicts.sort();
        sum.patients = self.find(&request_for(Patient, &[], &[]), |_| ControlFlow::Continue(()))?;
        let [studies, series, instances] = self.lookups()?.counted_twice_in_all()?;
        sum.studies = sum.studies.saturating_sub(studies);
        sum.series = sum.series.saturating_sub(series);
        sum.instances = sum.instances.saturating_sub(instances);
        Ok(sum)
    }

    /// The sum of the files' numbers. It grows with each change of a file.
    fn last_change(&mut self) -> Result<u64, Error> {
        self.parts.iter_mut().map(Admin::last_change).sum()
    }

    fn check(&mut self) -> Result<CheckReport, Error> {
        match self.parts.as_mut_slice() {
            [one] => one.check(),
            _ => self.findings(Admin::check),
        }
    }

    fn start_check(&mut self) -> Result<CheckReport, Error> {
        match self.parts.as_mut_slice() {
            [one] => one.start_check(),
            _ => self.findings(Admin::start_check),
        }
    }

    fn failures(&mut self, mut on_failure: impl FnMut(FailureEntry) -> ControlFlow<()>) -> Result<(), Error> {
        if let [one] = self.parts.as_mut_slice() {
            return one.failures(on_failure);
        }
        let ask = |part: &mut R, each: &mut dyn FnMut(FailureEntry) -> ControlFlow<()>| part.failures(each);
        self.in_order(ask, |failure| failure.path.clone(), |_, failure| on_failure(failure))
    }

    /// The conflicts between files follow those of the files, kind by kind.
    fn conflicts(&mut self, mut on_conflict: impl FnMut(ConflictEntry) -> ControlFlow<()>) -> Result<(), Error> {
        if let [one] = self.parts.as_mut_slice() {
            return one.conflicts(on_conflict);
        }
        let ask = |part: &mut R, each: &mut dyn FnMut(ConflictEntry) -> ControlFlow<()>| part.conflicts(each);
        let kind_of = |conflict: &ConflictEntry| KINDS.iter().position(|kind| *kind == conflict.kind);
        let mut between = self.contradictions()?.into_iter().peekable();
        let mut flow = ControlFlow::Continue(());
        self.in_order(ask, kind_of, |_, conflict| {
            while flow.is_continue()
                && let Some(earlier) = between.next_if(|between| kind_of(between) < kind_of(&conflict))
            {
                flow = on_conflict(earlier);
            }
            if flow.is_continue() {
                flow = on_conflict(conflict);
            }
            flow
        })?;
        for conflict in between {
            if flow.is_break() {
                break;
            }
            flow = on_conflict(conflict);
        }
        Ok(())
    }

    fn watches(&mut self) -> Result<Vec<WatchEntry>, Error> {
        let mut found = Vec::new();
        for part in &mut self.parts {
            found.extend(part.watches()?);
        }
        found.sort_by(|one, other| one.roots.cmp(&other.roots));
        Ok(found)
    }

    /// Studies of which several files hold a part come last.
    fn studies_with_problems(&mut self, mut on_study: impl FnMut(StudyReport) -> ControlFlow<()>) -> Result<(), Error> {
        if let [one] = self.parts.as_mut_slice() {
            return one.studies_with_problems(on_study);
        }
        let shared: BTreeSet<String> = self.lookups()?.shared.uids().cloned().collect();
        let mut parts: BTreeMap<String, Vec<StudyReport>> = BTreeMap::new();
        let mut flow = ControlFlow::Continue(());
        let ask = |part: &mut R, each: &mut dyn FnMut(StudyReport) -> ControlFlow<()>| part.studies_with_problems(each);
        self.in_order(
            ask,
            |study| Reverse(study.study_date.clone()),
            |_, study| {
                if shared.contains(&study.study_instance_uid) {
                    parts.entry(study.study_instance_uid.clone()).or_default().push(study);
                } else {
                    flow = on_study(study);
                }
                flow
            },
        )?;
        for (uid, parts) in parts {
            if flow.is_break() {
                break;
            }
            let mut study = StudyReport::of_parts(parts);
            (study.series, study.instances) = self.lookups()?.distinct(&uid)?;
            flow = on_study(study);
        }
        Ok(())
    }

    /// The name of the main file.
    fn index_id(&mut self) -> Result<Option<String>, Error> {
        self.main()?.index_id()
    }
}

/// Adds the numbers of another file.
fn add_status(sum: &mut IndexStatus, other: IndexStatus) {
    sum.schema_version = sum.schema_version.max(other.schema_version);
    sum.studies += other.studies;
    sum.series += other.series;
    sum.instances += other.instances;
    sum.copies += other.copies;
    sum.missing += other.missing;
    sum.metadata_only += other.metadata_only;
    sum.files_with_faults += other.files_with_faults;
    sum.last_change += other.last_change;
    sum.size_bytes += other.size_bytes;
    add_words(&mut sum.failed, other.failed);
    add_words(&mut sum.skipped, other.skipped);
    add_words(&mut sum.conflicts, other.conflicts);
    sum.conflicts.sort();
    sum.scans.extend(other.scans);
}

/// Adds counts by word. The most frequent word comes first.
fn add_words(sum: &mut Vec<(String, u64)>, other: Vec<(String, u64)>) {
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for (word, count) in sum.drain(..).chain(other) {
        *counts.entry(word).or_default() += count;
    }
    sum.extend(counts);
    sum.sort_by_key(|(_, count)| Reverse(*count));
}
