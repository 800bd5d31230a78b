//! Headers of proxies: `Forwarded` (RFC 7239), and the older `X-Forwarded-*`.
//!
//! Anyone can send these headers, so they only count from trusted proxies.

use std::net::{IpAddr, SocketAddr};

use hyper::HeaderMap;
use hyper::header::{FORWARDED, HeaderName};

use super::base_url::{is_authority, known_scheme};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Maximum number of proxies of one request. A site has one or two.
const MAX_PROXIES: usize = 32;

/// Statement of a trusted proxy about the original request. A part that it does not state is
/// `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Forwarded {
    pub(super) scheme: Option<&'static str>,
    pub(super) authority: Option<String>,
    pub(super) client: Option<IpAddr>,
}

impl Forwarded {
    /// Reads the headers of a request that a trusted proxy sent. `Forwarded` comes first.
    pub(super) fn of(headers: &HeaderMap, trusted: &[IpAddr]) -> Self {
        let standard = all(headers, &FORWARDED);
        let elements: Vec<_> = standard.iter().map(|element| ForwardedElement::of(element)).collect();
        // A chain of proxies makes a list. Its first entry is the request of the client.
        let first = |name: &HeaderName| all(headers, name).into_iter().next();
        let scheme = elements.first().and_then(|element| element.proto.clone()).or_else(|| first(&X_FORWARDED_PROTO));
        let authority = elements.first().and_then(|element| element.host.clone()).or_else(|| first(&X_FORWARDED_HOST));
        let mut addresses: Vec<_> = elements.into_iter().map(|element| element.client).collect();
        if addresses.iter().all(Option::is_none) {
            addresses = all(headers, &X_FORWARDED_FOR).into_iter().map(Some).collect();
        }
        Self {
            scheme: scheme.and_then(|scheme| known_scheme(&scheme)),
            authority: authority.filter(|host| is_authority(host)).map(|host| host.to_ascii_lowercase()),
            client: client(&addresses, trusted),
        }
    }
}

/// Returns the client: the last address that is not one of our proxies. Each proxy adds the address
/// that it saw. So earlier entries come from the client itself, and can be anything.
fn client(addresses: &[Option<String>], trusted: &[IpAddr]) -> Option<IpAddr> {
    if addresses.len() > MAX_PROXIES {
        return None;
    }
    let mut client = None;
    for address in addresses.iter().rev() {
        client = Some(node(address.as_deref()?)?.to_canonical());
        if !client.is_some_and(|client| trusted.contains(&client)) {
            break;
        }
    }
    client
}

/// Returns the address of a node (RFC 7239 6), which may have a port. It is `None` if the name
/// hides the address.
fn node(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    bare.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()))
}

/// One element of `Forwarded`: the statement of one proxy.
#[derive(Default)]
struct ForwardedElement {
    client: Option<String>,
    host: Option<String>,
    proto: Option<String>,
}

impl ForwardedElement {
    fn of(text: &str) -> Self {
        let mut element = Self::default();
        for pair in split(text, ';') {
            let Some((name, value)) = pair.split_once('=') else { continue };
            let value = Some(unquoted(value.trim()));
            match name.trim().to_ascii_lowercase().as_str() {
                "for" => element.client = value,
                "host" => element.host = value,
                "proto" => element.proto = value,
                _ => {}
            }
        }
        element
    }
}

/// Returns the entries of a header that is a list, from all of its lines.
fn all(headers: &HeaderMap, name: &HeaderName) -> Vec<String> {
    let lines = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    lines.flat_map(|line| split(line, ',')).collect()
}

/// Splits a text. A separator in quotation marks does not count.
fn split(text: &str, separator: char) -> Vec<String> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    let parts = text.split(move |character: char| {
        let is_end = character == separator && !is_quoted;
        if is_quoted && !is_escaped && character == '\\' {
            is_escaped = true;
        } else {
            is_quoted ^= character == '"' && !is_escaped;
            is_escaped = false;
        }
        is_end
    });
    parts.map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
}

/// Returns a value without quotation marks (RFC 9110 5.6.4).
fn unquoted(value: &str) -> String {
    let Some(inner) = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else { return value.to_owned() };
    let mut is_escaped = false;
    let kept = inner.chars().filter(|character| {
        is_escaped = !is_escaped && *character == '\\';
        !is_escaped
    });
    kept.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(headers: &[(&'static str, &str)]) -> Forwarded {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        Forwarded::of(&map, &[[10, 0, 0, 1].into(), [10, 0, 0, 2].into()])
    }

    fn told(scheme: &'static str, authority: &str, client: &str) -> Forwarded {
        Forwarded { scheme: Some(scheme), authority: Some(authority.to_owned()), client: Some(client.parse().unwrap()) }
    }

    // RFC 7239 4 and 6.
    #[test]
    fn the_standard_header_is_read() {
        let one = of(&[("forwarded", "For=192.0.2.60;PROTO=https;by=203.0.113.43;host=Example.com:8443")]);
        assert_eq!(one, told("https", "example.com:8443", "192.0.2.60"));
        let quoted = of(&[("forwarded", r#"for="[2001:db8:cafe::17]:4711"; proto="http" ;host="a\.example""#)]);
        assert_eq!(quoted, told("http", "a.example", "2001:db8:cafe::17"));
        assert_eq!(of(&[("forwarded", r#"for="192.0.2.1:80""#)]).client, Some([192, 0, 2, 1].into()));
        // Two proxies of ours, in one line and in two.
        let chain = "for=192.0.2.60;proto=https;host=pacs, for=10.0.0.1;proto=http;host=inner";
        assert_eq!(of(&[("forwarded", chain)]), told("https", "pacs", "192.0.2.60"));
        let (one, other) = chain.split_once(',').unwrap();
        assert_eq!(of(&[("forwarded", one), ("forwarded", other)]), told("https", "pacs", "192.0.2.60"));
    }

    #[test]
    fn the_older_headers_are_read_where_the_standard_one_says_nothing() {
        let older = [
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "pacs.example"),
            ("x-forwarded-for", "192.0.2.60, 10.0.0.2"),
        ];
        assert_eq!(of(&older), told("https", "pacs.example", "192.0.2.60"));
        let both: Vec<_> = older.into_iter().chain([("forwarded", "host=other.example;for=192.0.2.1")]).collect();
        assert_eq!(of(&both), told("https", "other.example", "192.0.2.1"));
        assert_eq!(of(&[]), Forwarded::default());
    }

    #[test]
    fn a_client_does_not_choose_its_address() {
        for (header, client) in [
            // What the client sent stands before what the proxy saw.
            ("198.51.100.1, 192.0.2.60", "192.0.2.60"),
            ("198.51.100.1, 192.0.2.60, 10.0.0.1", "192.0.2.60"),
            ("unknown, 192.0.2.60, 10.0.0.1", "192.0.2.60"),
            ("10.0.0.2, 10.0.0.1", "10.0.0.2"),
        ] {
            assert_eq!(of(&[("x-forwarded-for", header)]).client, Some(client.parse().unwrap()), "{header}");
        }
        for hidden in ["unknown", "_SEVKISEK", "192.0.2.60, unknown", "192.0.2.60, _x, 10.0.0.1", "999.1.1.1", ""] {
            assert_eq!(of(&[("x-forwarded-for", hidden)]).client, None, "{hidden}");
        }
    }

    #[test]
    fn what_is_broken_says_nothing() {
        for broken in ["", ";;;", "proto", "proto=javascript;host=a/b", "host=\"a\"b\"", "=,=,=", "for=\"", "host=a b"]
        {
            assert_eq!(of(&[("forwarded", broken)]), Forwarded::default(), "{broken}");
        }
        let long = "for=192.0.2.60,".repeat(10_000);
        assert_eq!(of(&[("forwarded", &long)]).client, None);
    }
}
