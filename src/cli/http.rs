//! Clients that may send requests over HTTP, and the viewer that is served, for `serve` and for
//! `config check`.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, bail};

use crate::access::jwt::TokenCheck;
use crate::access::users::{Rights, Users};
use crate::config::Config;
use crate::web::Ohif;

/// Maximum bytes of the users file.
const MAX_USERS_BYTES: u64 = 4 << 20;

/// Clients that may send requests over HTTP.
#[derive(Debug)]
pub(super) struct Callers {
    /// The users of the file. `None` if there is none.
    pub(super) users: Option<Users>,
    /// The tokens of an identity provider.
    pub(super) tokens: Option<TokenCheck>,
    /// Rights of all others. `None` if every caller must be a user.
    pub(super) anyone: Option<Rights>,
}

impl Callers {
    /// Reads the files that the settings name.
    pub(super) fn of(config: &Config) -> anyhow::Result<Self> {
        let anyone = config.http_anyone()?;
        let (http, is_needed) = (&config.http, anyone.is_none());
        let users = http.users.as_deref().filter(|_| is_needed).map(read_users).transpose()?;
        let tokens = http.oidc.clone().filter(|_| is_needed).map(TokenCheck::new).transpose()?;
        Ok(Self { users, tokens, anyone })
    }

    /// Description of these clients, in words.
    pub(super) fn in_words(&self, config: &Config) -> String {
        let address = config.http.server.bind;
        match self.anyone {
            Some(_) if address.ip().is_loopback() => "anyone on this machine".to_owned(),
            Some(_) => format!("anyone who reaches {address}, to search and retrieve"),
            None => {
                let users = self.users.as_ref().map(|users| format!("the users of the file ({})", users.len()));
                let issuer = config.http.oidc.as_ref().map(|oidc| format!("those with a token of {}", oidc.issuer));
                users.into_iter().chain(issuer).collect::<Vec<_>>().join(", and ")
            }
        }
    }

    /// Warnings for an operator about a port that is more open than it may seem.
    pub(super) fn warnings(&self, config: &Config) -> Vec<String> {
        let http = &config.http;
        let address = http.server.bind;
        let mut warnings = Vec::new();
        if let Some(path) = http.users.as_deref().filter(|path| self.users.is_some() && is_open_to_others(path)) {
            warnings.push(format!("not only its owner can read or write {}; hint: chmod 600", path.display()));
        }
        if address.ip().is_loopback() {
            return warnings;
        }
        if self.anyone.is_some() {
            warnings.push(format!(
                "other machines can reach {address}, and HTTP needs no user (http.access): anyone can search and \
                 retrieve; nobody can store"
            ));
        } else if !http.tls && http.server.trusted_proxies.is_empty() {
            warnings.push(format!(
                "HTTP on {address} runs without TLS (http.tls): others on the network can read passwords and tokens"
            ));
        }
        warnings
    }
}

/// Whether others than its owner can read or write a file.
fn is_open_to_others(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o077 != 0)
}

/// Opens the folder of the OHIF viewer. Also returns what an operator should know of it.
pub(super) fn open_ohif(directory: &Path) -> anyhow::Result<(Ohif, Option<String>)> {
    let (ohif, is_rebased) = Ohif::open(directory).context("OHIF cannot be served")?;
    let warning = format!(
        "the base of the build of OHIF in {} was not found, so the viewer may not find its files below /ohif/",
        directory.display()
    );
    Ok((ohif, (!is_rebased).then_some(warning)))
}

/// Reads the file of users.
pub(super) fn read_users(path: &Path) -> anyhow::Result<Users> {
    let shown = path.display();
    let metadata = std::fs::metadata(path).with_context(|| format!("cannot read the users file {shown}"))?;
    if metadata.len() > MAX_USERS_BYTES {
        bail!("{shown} is not a users file: it has {} bytes", metadata.len());
    }
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read the users file {shown}"))?;
    Users::parse(&text).with_context(|| format!("cannot use the users file {shown}"))
}
