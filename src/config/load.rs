//! Reads all sources into one [`Config`].

use std::path::Path;

use super::Config;
use super::check::Check;
use super::keys::settings;
use super::layers::Layers;
use super::setting::{Origin, SettingProblem};
use super::sources::{Error, Sources, file_to_read, read_file, read_settled_file};

/// Required last line of the file if `require_end` is true.
const END: &str = "# end";

impl Config {
    /// Reads all sources and checks everything.
    ///
    /// # Errors
    /// Fails if the file cannot be read. Fails with all values that cannot be used.
    pub fn load(sources: &Sources, current_directory: &Path) -> Result<Self, Error> {
        Self::load_by(sources, current_directory, read_file)
    }

    /// Works as [`Self::load`], for a running node whose file may be in the middle of being
    /// written. It waits until the file stays unchanged.
    ///
    /// # Errors
    /// Fails as [`Self::load`] does, and with [`Error::Unsettled`].
    pub fn load_again(sources: &Sources, current_directory: &Path) -> Result<Self, Error> {
        Self::load_by(sources, current_directory, read_settled_file)
    }

    fn load_by(
        sources: &Sources,
        current_directory: &Path,
        read: impl FnOnce(&Path) -> Result<String, Error>,
    ) -> Result<Self, Error> {
        let mut layers = Layers::new();
        let mut problems = Vec::new();
        let file = file_to_read(sources, current_directory);
        let text = file.as_deref().map(read).transpose()?;
        if let (Some(path), Some(text)) = (&file, &text) {
            layers.add_file(path, text, &mut problems);
        }
        let strange_variables = layers.add_environment(sources.environment.iter().cloned(), &mut problems);
        for flag in &sources.flags {
            layers.add_flag(&flag.path, flag.value.clone(), flag.flag, &mut problems);
        }
        if let (Some(path), Some(text)) = (&file, &text)
            && layers.value(settings::REQUIRE_END)
            && text.lines().next_back().map(str::trim_end) != Some(END)
        {
            let origin = Origin::File { path: path.clone(), line: text.lines().count().max(1) };
            let message =
                format!("the last line is not `{END}`: the file is truncated, or `require_end` should be false");
            problems.push(SettingProblem { origin, message });
        }
        let mut config = Check { layers: &layers, problems: &mut problems, current_directory }.config();
        if !problems.is_empty() {
            return Err(Error::Invalid(problems));
        }
        config.layers = layers;
        config.file = file;
        config.strange_variables = strange_variables;
        Ok(config)
    }
}
