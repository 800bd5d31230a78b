//! Settings of the worklist.

use std::time::Duration;

use super::keys::settings;
use super::{Check, Config};
use crate::model::ae_title::AeTitle;
use crate::worklist::{IntakeOptions, WorklistOptions};

/// Settings of the worklist, checked.
#[derive(Clone, Debug)]
pub struct WorklistSettings {
    /// Whether peers can ask for it.
    pub enabled: bool,
    /// How orders become items.
    pub intake: IntakeOptions,
}

impl Check<'_> {
    pub(super) fn worklist(&mut self) -> WorklistSettings {
        WorklistSettings {
            enabled: self.boolean(settings::WORKLIST_ENABLED),
            intake: IntakeOptions {
                stations: self.stations(),
                keep: Duration::from_secs(self.integer(settings::WORKLIST_KEEP_HOURS) * 3600),
            },
        }
    }

    /// Reads pairs of modality and AE title, as in `CT=CT1`.
    fn stations(&mut self) -> Vec<(String, String)> {
        let mut stations = Vec::new();
        for text in self.texts(settings::WORKLIST_STATIONS) {
            match text.split_once('=').map(|(modality, title)| (modality.trim(), title.trim().parse::<AeTitle>())) {
                Some((modality, Ok(title))) if is_code_string(modality) => {
                    stations.push((modality.to_owned(), title.to_string()));
                }
                Some((_, Err(error))) => self.refuse(settings::WORKLIST_STATIONS.path(), format!("`{text}`: {error}")),
                Some(_) | None => {
                    let message = format!("`{text}` is not written as in \"CT=CT1\", a modality and an AE title");
                    self.refuse(settings::WORKLIST_STATIONS.path(), message);
                }
            }
        }
        stations
    }
}

/// Whether a text is a value of VR CS (PS3.5 6.2).
fn is_code_string(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || matches!(byte, b' ' | b'_');
    (1..=16).contains(&text.len()) && text.bytes().all(is_allowed)
}

impl Config {
    /// Returns the options of questions to the worklist. Names and character sets are as in queries.
    #[must_use]
    pub fn worklist_options(&self) -> WorklistOptions {
        WorklistOptions {
            names: self.find.names,
            pending: self.find.pending,
            limit: self.find.limit,
            assumed_character_set: self.find.assumed_character_set.clone(),
        }
    }
}
