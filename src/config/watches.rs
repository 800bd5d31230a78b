//! Watched directories, `[[watch]]`. Only a file has this table.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use super::check::{Check, real_path};
use super::entries::FileEntry;
use super::{Config, Origin, Setting, SettingProblem};
use crate::model::calendar::DAY_SECONDS;
use crate::model::clock::Clock;
use crate::scanner::{Filter, Jobs, Rate, Settling, TapeFiles, Vanished, WalkOrder};
use crate::watch::{DailyTime, Interval, SETTLED_AFTER, WatchPlan, WatchedRoots};

/// A watched directory. `None` means that the setting of scans applies.
#[derive(Clone, Debug)]
pub struct WatchSettings {
    /// Absolute path.
    pub path: PathBuf,
    /// When it is looked at.
    pub plan: WatchPlan,
    /// Whether to take hints of the kernel.
    pub events: bool,
    /// Whether files that are gone leave the index.
    pub prune: bool,
    /// Files to look at.
    pub filter: Option<Filter>,
    /// Order of directories.
    pub order: Option<WalkOrder>,
    /// Maximum to read per second.
    pub throttle: Option<Rate>,
    /// Files read at the same time.
    pub jobs: Option<usize>,
    /// Time for the file system to answer.
    pub read_timeout: Option<Duration>,
    /// Whether to read files on tape.
    pub recall: Option<bool>,
}

impl Config {
    /// Returns the directories that the node watches.
    #[must_use]
    pub fn watched(&self) -> Vec<WatchedRoots> {
        self.watches.iter().map(|watch| self.watch(watch)).collect()
    }

    fn watch(&self, settings: &WatchSettings) -> WatchedRoots {
        let mut options = self.scan.clone();
        options.full = false;
        // Whoever prunes what may not be mounted has to look at the list first.
        options.vanished = if settings.prune { Vanished::Prune } else { Vanished::Keep };
        options.settling = Some(Settling::new(SETTLED_AFTER, Clock::System));
        if let Some(filter) = &settings.filter {
            options.filter = filter.clone();
        }
        options.order = settings.order.unwrap_or(options.order);
        options.throttle = settings.throttle.unwrap_or(options.throttle);
        options.jobs = settings.jobs.map_or(options.jobs, Jobs::fixed);
        options.read_timeout = settings.read_timeout.unwrap_or(options.read_timeout);
        if let Some(recall) = settings.recall {
            options.tape_files = if recall { TapeFiles::Recall } else { TapeFiles::Leave };
        }
        WatchedRoots { paths: vec![settings.path.clone()], plan: settings.plan, events: settings.events, options }
    }
}

impl Check<'_> {
    /// Reads the table of watched directories.
    pub(super) fn watches(&mut self, storage: &Path) -> Vec<WatchSettings> {
        let layers = self.layers;
        let mut watches: Vec<WatchSettings> = Vec::new();
        for entry in layers.watches() {
            let Some(watch) = self.watched_directory(entry) else { continue };
            let origin = || entry.fields.get("path").map_or_else(|| entry.origin.clone(), |path| path.origin.clone());
            let mut refuse = |message: &str| {
                self.problems.push(SettingProblem { origin: origin(), message: message.to_owned() });
            };
            if watches.iter().any(|other| other.path == watch.path) {
                refuse("`path`: this directory is watched twice");
            }
            if real_path(&watch.path).starts_with(real_path(storage)) {
                refuse("`path` lies in the storage directory; the node indexes its own objects itself");
            }
            watches.push(watch);
        }
        watches
    }

    fn watched_directory(&mut self, entry: &FileEntry) -> Option<WatchSettings> {
        let every = self.of_entry::<Interval>(entry, "every");
        let at = self.of_entry::<DailyTime>(entry, "at");
        if !entry.fields.contains_key("every") && !entry.fields.contains_key("at") {
            self.refuse_entry(&entry.origin, "a watched directory needs `every` or `at`".to_owned());
        }
        let Some(path) = entry.fields.get("path").filter(|path| path.value.as_str() != Some("")) else {
            self.refuse_entry(&entry.origin, "a watched directory needs a `path`".to_owned());
            return None;
        };
        let boolean = |name: &str| entry.fields.get(name).and_then(|setting| setting.value.as_bool());
        let order = entry.fields.get("order").and_then(|setting| match setting.value.as_str() {
            Some("name") => Some(WalkOrder::Name),
            Some("newest-first") => Some(WalkOrder::NewestFirst),
            _ => {
                self.refuse_entry(&setting.origin, "`order` is \"name\" or \"newest-first\"".to_owned());
                None
            }
        });
        let jobs = self.number_of_entry(entry, "jobs", 1024);
        let seconds = self.number_of_entry(entry, "read_timeout_seconds", DAY_SECONDS);
        Some(WatchSettings {
            path: self.absolute(path),
            plan: WatchPlan { every, at },
            events: boolean("events").unwrap_or(true),
            prune: boolean("prune").unwrap_or(true),
            filter: self.filter_of_entry(entry),
            order,
            throttle: self.of_entry::<Rate>(entry, "throttle"),
            jobs: jobs.and_then(|jobs| usize::try_from(jobs).ok()),
            read_timeout: seconds.map(Duration::from_secs),
            recall: boolean("recall"),
        })
    }

    pub(super) fn of_entry<T: FromStr<Err: fmt::Display>>(&mut self, entry: &FileEntry, name: &str) -> Option<T> {
        let Setting { value, origin } = entry.fields.get(name)?;
        let text = value.as_str()?;
        text.parse().inspect_err(|error| self.refuse_entry(origin, format!("`{name}`: `{text}`: {error}"))).ok()
    }

    pub(super) fn number_of_entry(&mut self, entry: &FileEntry, name: &str, to: u64) -> Option<u64> {
        let Setting { value, origin } = entry.fields.get(name)?;
        let number = value.as_integer()?;
        let checked = u64::try_from(number).ok().filter(|number| (1..=to).contains(number));
        if checked.is_none() {
            self.refuse_entry(origin, format!("`{name}`: {number} is not from 1 to {to}"));
        }
        checked
    }

    /// The globs of an entry. Where it has only one of the two lists, the other is that of scans.
    fn filter_of_entry(&mut self, entry: &FileEntry) -> Option<Filter> {
        let (include, exclude) = (entry.fields.get("include"), entry.fields.get("exclude"));
        let origin = &exclude.or(include)?.origin;
        let texts = |setting: Option<&Setting>, of_scans: &'static str| -> Vec<String> {
            let value = setting.map_or_else(|| &self.layers.setting(of_scans).value, |setting| &setting.value);
            value.as_array().into_iter().flatten().filter_map(|text| text.as_str()).map(str::to_owned).collect()
        };
        let (include, exclude) = (texts(include, "scan.include"), texts(exclude, "scan.exclude"));
        Filter::new(&include, &exclude).inspect_err(|error| self.refuse_entry(origin, error.to_string())).ok()
    }

    pub(super) fn refuse_entry(&mut self, origin: &Origin, message: String) {
        self.problems.push(SettingProblem { origin: origin.clone(), message });
    }
}

#[cfg(test)]
mod tests {
    use crate::config::tests::load_text;

    use super::*;

    #[test]
    fn a_watched_directory_has_its_own_settings_over_those_of_scans() {
        let config = load_text(
            "[scan]\njobs = 3\nexclude = [\"a\"]\n[[watch]]\npath = \"/archive\"\nevery = \"15m\"\n\
             [[watch]]\npath = \"in\"\nat = \"02:00\"\njobs = 5\nprune = false\nevents = false\nrecall = true\n",
        )
        .unwrap();
        let [archive, inbox] = config.watched().try_into().unwrap();
        assert_eq!(
            (archive.paths, archive.options.jobs, archive.events),
            (vec!["/archive".into()], Jobs::fixed(3), true)
        );
        assert_eq!((archive.options.vanished, archive.options.tape_files), (Vanished::Prune, TapeFiles::Leave));
        assert!(inbox.paths[0].is_absolute() && inbox.paths[0].ends_with("in"));
        assert_eq!((inbox.options.jobs, inbox.options.vanished, inbox.events), (Jobs::fixed(5), Vanished::Keep, false));
        assert_eq!((inbox.plan.to_string().as_str(), inbox.options.tape_files), ("at 02:00", TapeFiles::Recall));
    }

    #[test]
    fn what_is_wrong_with_a_watched_directory_is_told() {
        for (text, expected) in [
            ("every = \"1m\"", "a watched directory needs a `path`"),
            ("path = \"/a\"", "a watched directory needs `every` or `at`"),
            (
                "path = \"/a\"\nevery = \"soon\"",
                "`every`: `soon`: it is a whole number with a unit, as in 30s, 15m, 2h or 1d, from 1s to 366d",
            ),
            ("path = \"/a\"\nat = \"25:00\"", "`at`: `25:00`: it is a time of day, as in 02:00"),
            ("path = \"/a\"\nevery = \"1m\"\njobs = 0", "`jobs`: 0 is not from 1 to 1024"),
            ("path = \"/a\"\nevery = \"1m\"\norder = \"x\"", "`order` is \"name\" or \"newest-first\""),
            (
                "path = \"/a\"\nevery = \"1m\"\nexclude = [\"[\"]",
                "`[` is not a valid glob: unclosed character class; missing ']'",
            ),
            (
                "path = \"/a\"\nevery = \"1m\"\n[[watch]]\npath = \"/a\"\nat = \"01:00\"",
                "`path`: this directory is watched twice",
            ),
            (
                "path = \"/a\"\nevry = \"1m\"\nat = \"01:00\"",
                "unknown setting `evry` of a watched directory; did you mean `every`?",
            ),
        ] {
            assert_eq!(load_text(&format!("[[watch]]\n{text}\n")).unwrap_err()[0].message, expected, "{text}");
        }
        let inside = "storage = \"/s\"\n[[watch]]\npath = \"/s/2026\"\nevery = \"1m\"\n";
        assert!(load_text(inside).unwrap_err()[0].message.contains("lies in the storage directory"));
        assert!(load_text("[watch]\npath = \"/a\"\n").unwrap_err()[0].message.contains("[[watch]]"));
    }
}
