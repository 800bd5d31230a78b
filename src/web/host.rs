//! The names under which the node is called, and the pages that call it.
//!
//! A page of a stranger can make a browser send requests to a node on the loopback address or in
//! the hospital's network. Two rules prevent this. The name in `Host` has to be one of ours, so a
//! name that was pointed at our address does not work (DNS rebinding). An `Origin` has to be ours
//! or listed.

use std::net::{IpAddr, SocketAddr};

use hyper::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD,
    HOST, HeaderName, HeaderValue, ORIGIN, VARY,
};
use hyper::{HeaderMap, Method, Request, StatusCode};

use super::Options;
use super::access::single;
use super::base_url::{BaseUrl, host_of, is_authority, known_scheme};
use super::forwarded::Forwarded;
use super::problem::Problem;

/// Header of the Fetch standard 3.7. hyper has no constant for it.
const CROSS_ORIGIN_RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// Connection over which a request arrived.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival {
    /// Address of the other end of the connection.
    pub(super) address: IpAddr,
    /// Address and port of this end.
    pub(super) local: SocketAddr,
    pub(super) has_tls: bool,
}

/// Target of a request, checked, and the page that it comes from.
#[derive(Clone, Debug)]
pub(super) struct RequestTarget {
    /// Start of URLs in the answer.
    pub(super) base: BaseUrl,
    /// Address of the caller: the other end of the connection, or the one that a trusted proxy
    /// names.
    pub(super) client: IpAddr,
    /// The page that may read the answer, if there is one.
    origin: Option<HeaderValue>,
    has_credentials: bool,
    /// Whether pages of other origins may call the node at all.
    has_listed_pages: bool,
}

impl RequestTarget {
    /// Checks `Host` and `Origin`.
    pub(super) fn of<B>(request: &Request<B>, arrival: Arrival, options: &Options) -> Result<Self, Problem> {
        let is_proxy = options.trusted_proxies.contains(&arrival.address);
        let authority = authority(request)?;
        if !is_proxy && !is_ours(&authority, options) {
            let why = "this node is not called by that name; the setting http.hosts lists its names";
            return Err(Problem::new(StatusCode::MISDIRECTED_REQUEST, why));
        }
        let scheme = if arrival.has_tls { "https" } else { "http" };
        let authority = if is_proxy { authority } else { with_port(authority, scheme, arrival.local) };
        let seen = BaseUrl { scheme, authority, path: String::new() };
        let told =
            if is_proxy { Forwarded::of(request.headers(), &options.trusted_proxies) } else { Forwarded::default() };
        let forwarded = BaseUrl {
            scheme: told.scheme.unwrap_or(seen.scheme),
            authority: told.authority.unwrap_or_else(|| seen.authority.clone()),
            path: String::new(),
        };
        let base = options.public_url.clone().unwrap_or_else(|| forwarded.clone());
        let own = [&seen, &forwarded, &base];
        let (origin, has_credentials) = match origin(request.headers(), &own, options) {
            FromPage::None => (None, false),
            FromPage::Listed { origin, has_credentials } => (Some(origin), has_credentials),
            FromPage::Stranger => {
                let why = "pages of this origin may not ask here; the setting http.cors_origins lists those that may";
                return Err(Problem::new(StatusCode::FORBIDDEN, why));
            }
        };
        let client = told.client.unwrap_or(arrival.address);
        Ok(Self { base, client, origin, has_credentials, has_listed_pages: !options.cors_origins.is_empty() })
    }

    /// Adds the headers by which the page may read the answer.
    pub(super) fn add_cors(&self, headers: &mut HeaderMap) {
        const EXPOSED: &str = "content-type, content-length, content-range, accept-ranges, etag, warning, location, \
                               retry-after, allow";
        headers.append(VARY, HeaderValue::from_static("origin"));
        // Without a list of origins, no other page may embed an answer either, for example as a
        // picture.
        let embedding = if self.has_listed_pages { "cross-origin" } else { "same-origin" };
        headers.insert(CROSS_ORIGIN_RESOURCE_POLICY, HeaderValue::from_static(embedding));
        let Some(origin) = &self.origin else { return };
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
        if self.has_credentials {
            headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
    }

    /// Whether this is a preflight: a browser asks, without credentials, whether it may send a
    /// request.
    pub(super) fn is_preflight<B>(&self, request: &Request<B>) -> bool {
        request.method() == Method::OPTIONS
            && self.origin.is_some()
            && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD)
    }
}

/// Adds the answer to a preflight.
pub(super) fn add_preflight(headers: &mut HeaderMap) {
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, HEAD, POST, OPTIONS"));
    let allowed = "accept, authorization, content-type, range, if-none-match";
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(allowed));
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
}

/// Returns the authority that a request names. It must be the same everywhere in the request.
fn authority<B>(request: &Request<B>) -> Result<String, Problem> {
    let of_uri = request.uri().authority().map(|authority| authority.as_str().to_owned());
    let has_host = request.headers().contains_key(HOST);
    let of_header = single(request.headers(), &HOST).map(str::to_owned);
    let (authority, other) = match (of_uri, of_header) {
        (_, None) if has_host => return Err(Problem::bad_request("more than one Host header, or one that is no text")),
        (Some(uri), header) => (uri, header),
        (None, Some(header)) => (header, None),
        (None, None) => return Err(Problem::bad_request("no Host header")),
    };
    if other.is_some_and(|other| !other.eq_ignore_ascii_case(&authority)) {
        return Err(Problem::bad_request("the Host header names another host than the request line"));
    }
    if !is_authority(&authority) {
        return Err(Problem::bad_request("the Host header is no host name"));
    }
    Ok(authority.to_ascii_lowercase())
}

/// Adds the port of this end where `Host` names its address without one. A client such as
/// dicomweb-client leaves the port out, and would not find what the URLs of an answer name. A name
/// may be that of a proxy or of a mapped port, so it stays as it is.
fn with_port(authority: String, scheme: &str, local: SocketAddr) -> String {
    let host = host_of(&authority);
    let ip = local.ip().to_canonical();
    let is_local = host.parse() == Ok(ip) || (host == "localhost" && ip.is_loopback());
    // What stands in brackets has colons of its own.
    let has_port = authority.rsplit(']').next().is_some_and(|end| end.contains(':'));
    let is_usual = local.port() == if scheme == "https" { 443 } else { 80 };
    if is_local && !has_port && !is_usual { format!("{authority}:{}", local.port()) } else { authority }
}

/// The owner of a name cannot point an IP address elsewhere, and a stranger cannot own `localhost`.
fn is_ours(authority: &str, options: &Options) -> bool {
    let host = host_of(authority);
    host.parse::<IpAddr>().is_ok()
        || host == "localhost"
        || host.ends_with(".localhost")
        || options.public_url.as_ref().is_some_and(|url| url.host() == host)
        || options.hosts.iter().any(|name| host_of(name).eq_ignore_ascii_case(host))
}

enum FromPage {
    /// No page, or one of our own.
    None,
    Listed {
        origin: HeaderValue,
        has_credentials: bool,
    },
    Stranger,
}

fn origin(headers: &HeaderMap, own: &[&BaseUrl], options: &Options) -> FromPage {
    if !headers.contains_key(ORIGIN) {
        return FromPage::None;
    }
    let Some(origin) = single(headers, &ORIGIN) else { return FromPage::Stranger };
    // A proxy that ends TLS may not say so. Then the scheme of the page differs from ours.
    let is_own = own.iter().any(|url| {
        origin.eq_ignore_ascii_case(&url.origin())
            || origin.split_once("://").is_some_and(|(scheme, authority)| {
                known_scheme(scheme).is_some() && authority.eq_ignore_ascii_case(&url.authority)
            })
    });
    if is_own {
        return FromPage::None;
    }
    if options.cors_origins.iter().any(|listed| listed == origin) {
        return match HeaderValue::from_str(origin) {
            Ok(origin) => FromPage::Listed { origin, has_credentials: true },
            Err(_) => FromPage::Stranger,
        };
    }
    if options.cors_origins.iter().any(|listed| listed == "*") {
        return FromPage::Listed { origin: HeaderValue::from_static("*"), has_credentials: false };
    }
    FromPage::Stranger
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(headers: &[(&str, &str)], change: impl FnOnce(&mut Options)) -> Result<RequestTarget, StatusCode> {
        let mut options = Options::new();
        change(&mut options);
        let mut request = Request::builder().uri("/dicom-web/studies");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let local = SocketAddr::from(([127, 0, 0, 1], 8042));
        let arrival = Arrival { address: [127, 0, 0, 1].into(), local, has_tls: false };
        RequestTarget::of(&request.body(()).unwrap(), arrival, &options).map_err(|problem| problem.status)
    }

    fn base(headers: &[(&str, &str)], change: impl FnOnce(&mut Options)) -> String {
        target(headers, change).unwrap().base.to_string()
    }

    #[test]
    fn names_that_strangers_may_own_are_refused() {
        for ours in
            ["127.0.0.1:8080", "localhost", "LOCALHOST:1", "a.localhost", "[::1]:8080", "10.0.0.1", "localhost."]
        {
            assert!(target(&[("host", ours)], |_| {}).is_ok(), "{ours}");
        }
        for strange in ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example"] {
            assert_eq!(target(&[("host", strange)], |_| {}).unwrap_err(), StatusCode::MISDIRECTED_REQUEST, "{strange}");
        }
        for broken in ["", "a b", "a/b", "a@b", "127.0.0.1:99999", "[::1", "[zz]", "127.0.0.1:80:80", "a\"b"] {
            assert_eq!(target(&[("host", broken)], |_| {}).unwrap_err(), StatusCode::BAD_REQUEST, "{broken}");
        }
        assert_eq!(target(&[], |_| {}).unwrap_err(), StatusCode::BAD_REQUEST);
        assert_eq!(target(&[("host", "a"), ("host", "b")], |_| {}).unwrap_err(), StatusCode::BAD_REQUEST);
        assert!(target(&[("host", "pacs:8080")], |options| options.hosts = vec!["pacs".into()]).is_ok());
        let public = |options: &mut Options| options.public_url = Some("https://pacs.example.org/x/".parse().unwrap());
        assert_eq!(base(&[("host", "pacs.example.org")], public), "https://pacs.example.org/x");
    }

    #[test]
    fn a_client_that_leaves_the_port_out_gets_urls_with_it() {
        for (host, url) in [
            ("127.0.0.1", "http://127.0.0.1:8042"),
            ("localhost", "http://localhost:8042"),
            ("127.0.0.1:80", "http://127.0.0.1:80"),
            ("10.0.0.1", "http://10.0.0.1"),
            ("[::1]", "http://[::1]"),
        ] {
            assert_eq!(base(&[("host", host)], |_| {}), url);
        }
        let v6 = SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], 8042));
        assert_eq!(with_port("[::1]".into(), "http", v6), "[::1]:8042");
        assert_eq!(with_port("[::1]:9".into(), "http", v6), "[::1]:9");
        assert_eq!(with_port("localhost".into(), "https", SocketAddr::from(([127, 0, 0, 1], 443))), "localhost");
    }

    #[test]
    fn pages_of_strangers_are_refused() {
        let from = |origin: &str, listed: &[&str]| {
            let listed = listed.iter().map(|&it| it.to_owned()).collect();
            target(&[("host", "localhost:80"), ("origin", origin)], |options| options.cors_origins = listed)
        };
        assert!(from("http://localhost:80", &[]).unwrap().origin.is_none());
        for strange in ["http://evil.example", "null", "http://localhost:81", "http://localhost:80.evil.example", ""] {
            assert_eq!(from(strange, &["https://viewer"]).unwrap_err(), StatusCode::FORBIDDEN, "{strange}");
        }
        let listed = from("https://viewer", &["https://viewer"]).unwrap();
        assert_eq!((listed.origin.unwrap().to_str().unwrap(), listed.has_credentials), ("https://viewer", true));
        let any = from("https://viewer", &["*"]).unwrap();
        assert_eq!((any.origin.unwrap().to_str().unwrap(), any.has_credentials), ("*", false));
    }

    #[test]
    fn only_a_trusted_proxy_says_what_it_was_asked_for() {
        let headers =
            [("host", "10.0.0.1"), ("x-forwarded-proto", "https"), ("x-forwarded-host", "pacs.example.org, x")];
        assert_eq!(base(&headers, |_| {}), "http://10.0.0.1");
        let trusted = |options: &mut Options| options.trusted_proxies = vec![[127, 0, 0, 1].into()];
        assert_eq!(base(&headers, trusted), "https://pacs.example.org");
        let broken = [("host", "10.0.0.1"), ("x-forwarded-proto", "javascript"), ("x-forwarded-host", "a/b\"c")];
        assert_eq!(base(&broken, trusted), "http://10.0.0.1");
        let standard = [("host", "10.0.0.1"), ("forwarded", "for=192.0.2.7;proto=https;host=pacs.example.org")];
        assert_eq!(base(&standard, |_| {}), "http://10.0.0.1");
        assert_eq!(base(&standard, trusted), "https://pacs.example.org");
        let client = |change: fn(&mut Options)| target(&standard, change).unwrap().client;
        assert_eq!(client(|_| {}), IpAddr::from([127, 0, 0, 1]));
        assert_eq!(client(trusted), IpAddr::from([192, 0, 2, 7]));
    }
}
