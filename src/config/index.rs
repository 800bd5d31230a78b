//! The index: a path, or the address of a database.

use std::path::{Path, PathBuf};

use super::Config;
use super::check::Check;
use super::keys::settings;
use crate::db::open::is_on_server;
use crate::db::postgres::PostgresAddress;

/// Longest name of a root.
const LONGEST_ROOT_NAME: usize = 64;

impl Config {
    /// The index without the roots, as people are shown it.
    #[must_use]
    pub fn shown_index(&self) -> PathBuf {
        PostgresAddress::without_roots(&self.index)
    }

    /// An index with the roots of this node, if it is in a database.
    #[must_use]
    pub fn with_roots(&self, index: &Path) -> PathBuf {
        if !is_on_server(index) {
            return index.to_owned();
        }
        PostgresAddress::with_roots(index, self.roots.iter().map(|(name, path)| (name.as_str(), path.as_path())))
    }
}

impl Check<'_> {
    /// Returns the index.
    pub(super) fn index(&mut self) -> PathBuf {
        let address = PathBuf::from(self.text(settings::INDEX));
        match PostgresAddress::of(&address) {
            Ok(None) => self.path(settings::INDEX),
            Ok(Some(_)) => address,
            Err(error) => {
                self.refuse(settings::INDEX.path(), error.to_string());
                address
            }
        }
    }

    /// Reads the table of roots, and adds them to the address of the index.
    pub(super) fn roots(&mut self, config: &mut Config) {
        let layers = self.layers;
        for entry in layers.roots() {
            let text = |name: &str| entry.fields.get(name).filter(|setting| setting.value.as_str() != Some(""));
            let (Some(name), Some(path)) = (text("name"), text("path")) else {
                self.refuse_entry(&entry.origin, "a root needs a `name` and a `path`".to_owned());
                continue;
            };
            let path = self.absolute(path);
            // A link leads to where scans find the files.
            let path = path.canonicalize().unwrap_or(path);
            let name = name.value.as_str().unwrap_or_default();
            let is_usual = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
            if name.len() > LONGEST_ROOT_NAME || !name.bytes().all(is_usual) {
                self.refuse_entry(&entry.origin, format!("`name`: `{name}` is no name of a root"));
            }
            if config.roots.iter().any(|(other, at)| other == name || *at == path) {
                self.refuse_entry(&entry.origin, "this root has the name or the path of another one".to_owned());
            }
            config.roots.push((name.to_owned(), path));
        }
        if let (Some(first), false) = (layers.roots().first(), is_on_server(&config.index)) {
            let message = "a root is for an index in a database, and this one is in files".to_owned();
            self.refuse_entry(&first.origin, message);
        }
        config.index = config.with_roots(&config.index);
    }
}
