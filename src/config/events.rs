//! The log of events, and its receivers (`[[events]]`). Only a file has that table.

use std::time::Duration;

use super::check::Check;
use super::entries::FileEntry;
use super::keys::settings;
use super::{Config, SettingProblem};
use crate::db::{EventKind, EventRecording};
use crate::events::{EventOptions, EventReceiver, EventTarget, RecorderOptions, WebhookTarget, WebhookUrl};
use crate::model::calendar::DAY_SECONDS;
use crate::watch::Interval;

/// Most receivers. Each has a thread.
const MAX_RECEIVERS: usize = 32;

/// Longest name of a receiver, in bytes.
const MAX_NAME: usize = 64;

/// Time for a receiver to take one event, if the settings name none.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Time for which an event is tried, if the settings name none.
const GIVE_UP: Duration = Duration::from_secs(3 * DAY_SECONDS);

/// Settings of the log of events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventSettings {
    /// Events that are recorded.
    pub recording: EventRecording,
    /// Time without a change after which a study is complete.
    pub quiet: Duration,
    /// Time for which delivered events stay.
    pub keep: Duration,
    /// Maximum number of events.
    pub max_events: u64,
    /// Receivers of the events.
    pub receivers: Vec<EventReceiver>,
}

impl Config {
    /// Returns what a node tells, and to whom. `None` if it records no events.
    #[must_use]
    pub fn event_options(&self) -> Option<EventOptions> {
        let EventSettings { recording, quiet, keep, max_events, receivers } = self.events.clone();
        (recording != EventRecording::Off).then(|| EventOptions {
            node: self.node.ae_title.to_string(),
            recorder: RecorderOptions { quiet, keep, max_events },
            receivers,
        })
    }
}

impl Check<'_> {
    pub(super) fn events(&mut self) -> EventSettings {
        let layers = self.layers;
        let mut receivers: Vec<EventReceiver> = Vec::new();
        for entry in layers.receivers() {
            let Some(receiver) = self.receiver(entry) else { continue };
            if receivers.iter().any(|other| other.name == receiver.name) {
                self.refuse_entry(&entry.origin, format!("`name`: there are two receivers `{}`", receiver.name));
            }
            receivers.push(receiver);
        }
        if let Some(entry) = layers.receivers().get(MAX_RECEIVERS) {
            self.refuse_entry(&entry.origin, format!("there are more than {MAX_RECEIVERS} receivers of events"));
        }
        let has_instances = self.boolean(settings::EVENT_LOG_INSTANCES)
            || receivers.iter().any(|receiver| receiver.kinds.contains(&EventKind::InstanceStored));
        let is_on = self.boolean(settings::EVENT_LOG_ENABLED) || !receivers.is_empty();
        EventSettings {
            recording: match (is_on, has_instances) {
                (false, _) => EventRecording::Off,
                (true, false) => EventRecording::Rare,
                (true, true) => EventRecording::All,
            },
            quiet: self.seconds(settings::EVENT_LOG_QUIET_SECONDS),
            keep: Duration::from_secs(self.integer(settings::EVENT_LOG_KEEP_DAYS) * DAY_SECONDS),
            max_events: self.integer(settings::EVENT_LOG_MAX_EVENTS),
            receivers,
        }
    }

    fn receiver(&mut self, entry: &FileEntry) -> Option<EventReceiver> {
        let text = |name: &str| entry.fields.get(name).and_then(|setting| setting.value.as_str());
        let path = |this: &Self, name: &str| entry.fields.get(name).map(|setting| this.absolute(setting));
        let name = text("name").filter(|name| (1..=MAX_NAME).contains(&name.len())).map(str::to_owned);
        if name.is_none() {
            let message = format!("a receiver of events needs a `name` of 1 to {MAX_NAME} bytes");
            self.refuse_entry(&entry.origin, message);
        }
        let url = self.of_entry::<WebhookUrl>(entry, "post");
        let command = entry.fields.get("run").map(|_| texts(entry, "run"));
        if entry.fields.contains_key("post") == command.is_some() {
            self.refuse_entry(&entry.origin, "a receiver of events needs either `post` or `run`".to_owned());
        }
        if command.as_ref().is_some_and(|command| command.first().is_none_or(String::is_empty)) {
            self.refuse_entry(&entry.origin, "`run` names no program".to_owned());
        }
        for key in ["secret", "authorities"] {
            if command.is_some() && entry.fields.contains_key(key) {
                self.refuse_entry(&entry.origin, format!("`{key}` is for `post` only"));
            }
        }
        let (secret, authorities) = (path(self, "secret"), path(self, "authorities"));
        let target = match (url, command) {
            (Some(url), _) => EventTarget::Webhook(WebhookTarget { url, secret, authorities }),
            (None, Some(command)) => EventTarget::Command(command),
            (None, None) => return None,
        };
        let seconds = self.number_of_entry(entry, "timeout_seconds", 3600);
        Some(EventReceiver {
            name: name?,
            target,
            kinds: self.kinds(entry),
            timeout: seconds.map_or(TIMEOUT, Duration::from_secs),
            give_up: self.of_entry::<Interval>(entry, "give_up").map_or(GIVE_UP, Interval::time),
            identifiers: entry.fields.get("identifiers").and_then(|setting| setting.value.as_bool()).unwrap_or(false),
        })
    }

    fn kinds(&mut self, entry: &FileEntry) -> Vec<EventKind> {
        let Some(setting) = entry.fields.get("kinds") else { return vec![EventKind::StudyComplete] };
        let words = texts(entry, "kinds");
        if words.is_empty() {
            self.refuse_entry(&setting.origin, "`kinds` is empty, so the receiver would get nothing".to_owned());
        }
        let mut kinds = Vec::new();
        for word in words {
            match word.parse() {
                Ok(kind) => kinds.push(kind),
                Err(error) => self
                    .problems
                    .push(SettingProblem { origin: setting.origin.clone(), message: format!("`kinds`: {error}") }),
            }
        }
        kinds
    }
}

/// The texts of a list. Values of another type are left out.
fn texts(entry: &FileEntry, name: &str) -> Vec<String> {
    let values = entry.fields.get(name).and_then(|setting| setting.value.as_array());
    values.into_iter().flatten().filter_map(|text| text.as_str()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use crate::config::tests::load_text;

    use super::*;

    #[test]
    fn a_receiver_has_what_its_entry_says() {
        let config = load_text(
            "[[events]]\nname = \"ris\"\npost = \"https://ris.example.org/hook\"\nsecret = \"s\"\n\
             [[events]]\nname = \"script\"\nrun = [\"/bin/x\", \"-v\"]\nkinds = [\"damaged\", \"instance-stored\"]\n\
             give_up = \"2h\"\ntimeout_seconds = 3\nidentifiers = true\n",
        )
        .unwrap();
        assert_eq!(config.events.recording, EventRecording::All);
        let [ris, script] = config.events.receivers.try_into().unwrap();
        let EventTarget::Webhook(target) = ris.target else { panic!("{:?}", ris.target) };
        assert!(target.secret.unwrap().is_absolute() && target.authorities.is_none());
        assert_eq!((ris.kinds, ris.timeout, ris.identifiers), (vec![EventKind::StudyComplete], TIMEOUT, false));
        assert_eq!(script.target, EventTarget::Command(vec!["/bin/x".into(), "-v".into()]));
        assert_eq!(script.kinds, [EventKind::Damaged, EventKind::InstanceStored]);
        assert_eq!((script.give_up.as_secs(), script.timeout.as_secs(), script.identifiers), (7200, 3, true));
        assert!(load_text("").unwrap().event_options().is_none());
        assert_eq!(load_text("[event_log]\nenabled = true\n").unwrap().events.recording, EventRecording::Rare);
    }

    #[test]
    fn what_is_wrong_with_a_receiver_is_told() {
        for (text, expected) in [
            ("post = \"http://a/\"", "a receiver of events needs a `name` of 1 to 64 bytes"),
            ("name = \"a\"", "a receiver of events needs either `post` or `run`"),
            ("name = \"a\"\npost = \"http://a/\"\nrun = [\"x\"]", "a receiver of events needs either `post` or `run`"),
            ("name = \"a\"\nrun = []", "`run` names no program"),
            ("name = \"a\"\nrun = [\"x\"]\nsecret = \"s\"", "`secret` is for `post` only"),
            ("name = \"a\"\npost = \"http://a/\"\nkinds = []", "`kinds` is empty, so the receiver would get nothing"),
            (
                "name = \"a\"\npost = \"a\"",
                "`post`: `a`: it is https://HOST/PATH or http://HOST/PATH, without a user name",
            ),
            (
                "name = \"a\"\nrun = [\"x\"]\n[[events]]\nname = \"a\"\nrun = [\"x\"]",
                "`name`: there are two receivers `a`",
            ),
        ] {
            assert_eq!(load_text(&format!("[[events]]\n{text}\n")).unwrap_err()[0].message, expected, "{text}");
        }
        let unknown = load_text("[[events]]\nname = \"a\"\nrun = [\"x\"]\nkinds = [\"study\"]\n").unwrap_err();
        assert!(unknown[0].message.starts_with("`kinds`: `study` is no kind of event"), "{unknown:?}");
    }
}
