//! Receivers of events, as the settings name them.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use hyper::Uri;

use crate::db::EventKind;

/// A receiver of events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventReceiver {
    /// Its name. The index remembers under it what was delivered.
    pub name: String,
    /// Target of its events.
    pub target: EventTarget,
    /// The kinds that it gets.
    pub kinds: Vec<EventKind>,
    /// Time for it to take one event.
    pub timeout: Duration,
    /// Time for which an event is tried.
    pub give_up: Duration,
    /// Whether its events have Patient ID and accession number.
    pub identifiers: bool,
}

/// Target of events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventTarget {
    /// To a web server.
    Webhook(WebhookTarget),
    /// To the standard input of a program, with these arguments.
    Command(Vec<String>),
}

/// A web server that takes events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookTarget {
    /// Its address.
    pub url: WebhookUrl,
    /// File of the key that signs events.
    pub secret: Option<PathBuf>,
    /// File of the authorities of its certificate. Without one, those of the system apply.
    pub authorities: Option<PathBuf>,
}

/// Address of a web server that takes events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookUrl(Uri);

/// A text that is no address for events.
#[derive(Debug, thiserror::Error)]
#[error("it is https://HOST/PATH or http://HOST/PATH, without a user name")]
pub struct WebhookUrlError;

impl WebhookUrl {
    /// Whether it is called with TLS.
    #[must_use]
    pub fn has_tls(&self) -> bool {
        self.0.scheme_str() == Some("https")
    }

    /// The host, without the brackets of an IPv6 address.
    #[must_use]
    pub fn host(&self) -> &str {
        self.0.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']')
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.0.port_u16().unwrap_or(if self.has_tls() { 443 } else { 80 })
    }

    /// Host and port as in the header `Host`.
    #[must_use]
    pub(super) fn authority(&self) -> &str {
        self.0.authority().map_or("", |authority| authority.as_str())
    }

    /// Path and query.
    #[must_use]
    pub(super) fn path(&self) -> &str {
        self.0.path_and_query().map_or("/", |path| path.as_str())
    }
}

impl FromStr for WebhookUrl {
    type Err = WebhookUrlError;

    fn from_str(text: &str) -> Result<Self, WebhookUrlError> {
        let uri: Uri = text.parse().map_err(|_| WebhookUrlError)?;
        let authority = uri.authority().ok_or(WebhookUrlError)?;
        let is_complete = matches!(uri.scheme_str(), Some("http" | "https")) && !authority.host().is_empty();
        if !is_complete || authority.as_str().contains('@') || authority.port_u16() == Some(0) {
            return Err(WebhookUrlError);
        }
        Ok(Self(uri))
    }
}

/// Scheme, host and port. A path may hold a secret.
impl fmt::Display for WebhookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.0.scheme_str().unwrap_or_default(), self.authority())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_scheme_and_a_host() {
        for (text, host, port, path) in [
            ("https://ris.example.org/hook?a=b", "ris.example.org", 443, "/hook?a=b"),
            ("http://127.0.0.1:8080", "127.0.0.1", 8080, "/"),
            ("https://[2001:db8::1]:8443/x", "2001:db8::1", 8443, "/x"),
        ] {
            let url: WebhookUrl = text.parse().unwrap();
            assert_eq!((url.host(), url.port(), url.path()), (host, port, path), "{text}");
        }
        for text in ["", "/hook", "ris.example.org/hook", "ftp://ris/", "https://user:word@ris/", "http://ris:0/"] {
            assert!(text.parse::<WebhookUrl>().is_err(), "{text}");
        }
        let shown = "https://ris.example.org/hook?token=s3cret".parse::<WebhookUrl>().unwrap().to_string();
        assert_eq!(shown, "https://ris.example.org");
    }
}
