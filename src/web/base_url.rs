//! Base URL of the node, and the form of an authority (RFC 3986 3.2).

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

/// Base URL of the node. It has scheme and authority, perhaps a path, and no slash at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseUrl {
    pub(super) scheme: &'static str,
    pub(super) authority: String,
    pub(super) path: String,
}

/// Error for a text that is no such URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is no URL as in `https://pacs.example.org/archive`")]
pub struct BaseUrlError;

impl BaseUrl {
    /// Returns its host name, without port, in lower case.
    #[must_use]
    pub fn host(&self) -> String {
        host_of(&self.authority).to_ascii_lowercase()
    }

    /// Returns its scheme and authority, as an `Origin` header has them.
    pub(super) fn origin(&self) -> String {
        format!("{}://{}", self.scheme, self.authority)
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme, self.authority, self.path)
    }
}

impl FromStr for BaseUrl {
    type Err = BaseUrlError;

    fn from_str(text: &str) -> Result<Self, BaseUrlError> {
        let (scheme, rest) = text.split_once("://").ok_or(BaseUrlError)?;
        let scheme = known_scheme(scheme).ok_or(BaseUrlError)?;
        let at = rest.find('/').unwrap_or(rest.len());
        let (authority, path) = rest.split_at(at);
        let path = path.trim_end_matches('/');
        let is_path = path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/-._~%".contains(&byte));
        if !is_authority(authority) || !is_path {
            return Err(BaseUrlError);
        }
        Ok(Self { scheme, authority: authority.to_ascii_lowercase(), path: path.to_owned() })
    }
}

/// `http` or `https`.
pub(super) fn known_scheme(text: &str) -> Option<&'static str> {
    ["http", "https"].into_iter().find(|scheme| text.eq_ignore_ascii_case(scheme))
}

/// Whether this is a host name or an IP address, perhaps with a port. It has no character that
/// could end a header or a URL.
#[must_use]
pub fn is_authority(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, port)) if address.parse::<Ipv6Addr>().is_ok() => ("v6", port),
            _ => return false,
        },
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let is_port = match port.strip_prefix(':') {
        Some(port) => port.parse::<u16>().is_ok() && port.bytes().all(|byte| byte.is_ascii_digit()),
        None => port.is_empty(),
    };
    let is_host = !host.is_empty()
        && host.len() <= 253
        && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte));
    is_host && is_port
}

/// Whether this is an origin as a browser sends it (RFC 6454 6.1), or `*` for every origin.
#[must_use]
pub fn is_origin(text: &str) -> bool {
    let is_scheme = |scheme: &str| {
        !scheme.is_empty() && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
    };
    // A page without an origin of its own sends `null`.
    matches!(text, "*" | "null")
        || text.split_once("://").is_some_and(|(scheme, authority)| is_scheme(scheme) && is_authority(authority))
}

/// Returns the host of an authority, without port, brackets and a full stop at its end.
pub(super) fn host_of(authority: &str) -> &str {
    match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default().trim_end_matches('.'),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_has_a_scheme_and_a_host_and_no_path() {
        for good in ["*", "null", "https://viewer.example.org", "http://a:8080", "http://[::1]:80", "app+x://a"] {
            assert!(is_origin(good), "{good}");
        }
        for bad in ["", "a", "https://a/", "https://a/b", "https://a b", "://a", "https://", "https://*.a"] {
            assert!(!is_origin(bad), "{bad}");
        }
    }

    #[test]
    fn a_url_of_ours_is_one() {
        for good in ["http://a", "https://a:8443/b/c", "http://[::1]:80"] {
            assert_eq!(good.parse::<BaseUrl>().unwrap().to_string(), good);
        }
        for bad in ["a", "ftp://a", "http://", "http://a b", "http://a/\"", "http://a/?b", "http://a:0x1"] {
            assert_eq!(bad.parse::<BaseUrl>(), Err(BaseUrlError), "{bad}");
        }
    }
}
