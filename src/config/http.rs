//! Settings of HTTP.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::{Check, Config, Error, SettingProblem};
use crate::access::jwt::{ALGORITHMS, Issuer};
use crate::access::users::Rights;
use crate::web::{self, BaseUrl};

/// Who may send requests over HTTP, as given by the setting `http.access`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpAccess {
    /// The users of the file. Without a file it is anyone, if only this machine reaches the port.
    Auto,
    /// The users of the file.
    Users,
    /// Anyone who reaches the port.
    Anyone,
}

/// Settings of HTTP.
#[derive(Clone, Debug)]
pub struct Http {
    /// Whether the node has an HTTP port.
    pub enabled: bool,
    /// Address and port to listen on.
    pub bind: SocketAddr,
    /// Whether the port uses TLS.
    pub tls: bool,
    /// File of users.
    pub users: Option<PathBuf>,
    /// Who may send requests.
    pub access: HttpAccess,
    /// URL of the node as clients know it.
    pub public_url: Option<BaseUrl>,
    /// Host names of the node.
    pub hosts: Vec<String>,
    /// Origins whose pages may use the node.
    pub cors_origins: Vec<String>,
    /// Trusted proxies.
    pub trusted_proxies: Vec<IpAddr>,
    /// Header in which a trusted proxy names the user.
    pub user_header: Option<String>,
    /// Issuer of access tokens.
    pub oidc: Option<Issuer>,
    /// Folder of the OHIF viewer.
    pub ohif: Option<PathBuf>,
    /// Maximum number of connections.
    pub max_connections: usize,
    /// Maximum number of connections of one address.
    pub max_connections_per_address: usize,
    /// Maximum number of results of a search.
    pub max_results: Option<u64>,
    /// Memory for finished metadata.
    pub metadata_cache_bytes: usize,
}

impl Check<'_> {
    pub(super) fn http(&mut self) -> Http {
        let address = match self.text("http.bind") {
            "localhost" => IpAddr::from(Ipv4Addr::LOCALHOST),
            _ => self.parsed("http.bind").unwrap_or(IpAddr::from(Ipv4Addr::LOCALHOST)),
        };
        let port = u16::try_from(self.integer("http.port", 0, u64::from(u16::MAX))).unwrap_or_default();
        let is_given = |this: &Self, path| !this.text(path).is_empty();
        let max_results = self.integer("http.max_results", 0, i64::MAX.unsigned_abs());
        let http = Http {
            enabled: self.boolean("http.enabled"),
            bind: SocketAddr::new(address, port),
            tls: self.boolean("http.tls"),
            users: is_given(self, "http.users").then(|| self.path("http.users")),
            access: self.choice(
                "http.access",
                &[("auto", HttpAccess::Auto), ("users", HttpAccess::Users), ("anyone", HttpAccess::Anyone)],
            ),
            public_url: if is_given(self, "http.public_url") { self.parsed("http.public_url") } else { None },
            hosts: self.texts("http.hosts"),
            cors_origins: self.texts("http.cors_origins"),
            trusted_proxies: self.addresses("http.trusted_proxies"),
            user_header: is_given(self, "http.user_header").then(|| self.text("http.user_header").to_owned()),
            oidc: self.oidc(),
            ohif: is_given(self, "http.ohif").then(|| self.path("http.ohif")),
            max_connections: self.count("http.max_connections", 1, 100_000),
            max_connections_per_address: self.count("http.max_connections_per_address", 1, 100_000),
            max_results: (max_results > 0).then_some(max_results),
            metadata_cache_bytes: self.count("http.metadata_cache_mib", 0, 1 << 20) << 20,
        };
        if http.user_header.is_some() && http.trusted_proxies.is_empty() {
            self.refuse("http.user_header", "it has no effect: `http.trusted_proxies` is empty".to_owned());
        }
        if http.user_header.is_some() && http.users.is_none() {
            self.refuse("http.user_header", "it gives no rights without a file of users (`http.users`)".to_owned());
        }
        if http.enabled && http.tls && self.text("tls.certificate").is_empty() {
            self.refuse("http.tls", "TLS needs `tls.certificate`".to_owned());
        }
        http
    }

    fn oidc(&mut self) -> Option<Issuer> {
        let issuer = self.text("http.oidc_issuer").to_owned();
        let audiences = self.texts("http.oidc_audience");
        let algorithms = self.texts("http.oidc_algorithms");
        let (read_roles, store_roles) = (self.texts("http.oidc_read_roles"), self.texts("http.oidc_store_roles"));
        let leeway = Duration::from_secs(self.integer("http.oidc_leeway", 0, 3_600));
        let has_keys = !self.text("http.oidc_keys").is_empty();
        for algorithm in &algorithms {
            if !ALGORITHMS.iter().any(|(name, _)| name == algorithm) {
                self.refuse("http.oidc_algorithms", format!("`{algorithm}` is not an algorithm that can be allowed"));
            }
        }
        if issuer.is_empty() {
            let set = [
                ("http.oidc_audience", !audiences.is_empty()),
                ("http.oidc_keys", has_keys),
                ("http.oidc_read_roles", !read_roles.is_empty()),
                ("http.oidc_store_roles", !store_roles.is_empty()),
            ];
            for (path, _) in set.into_iter().filter(|(_, is_set)| *is_set) {
                self.refuse(path, "it has no effect: `http.oidc_issuer` is empty".to_owned());
            }
            return None;
        }
        let needs = [
            ("http.oidc_audience", audiences.is_empty(), "a token for any other service would be accepted"),
            ("http.oidc_keys", !has_keys, "no signature can be verified"),
            ("http.oidc_algorithms", algorithms.is_empty(), "no token can be accepted"),
        ];
        for (path, is_missing, why) in needs {
            if is_missing {
                self.refuse(path, format!("it is empty, and `http.oidc_issuer` is set: {why}"));
            }
        }
        if read_roles.is_empty() && store_roles.is_empty() {
            let message = "no role gives a right: `http.oidc_read_roles` and `http.oidc_store_roles` are empty";
            self.refuse("http.oidc_issuer", message.to_owned());
        }
        Some(Issuer {
            issuer,
            audiences,
            keys: if has_keys { self.path("http.oidc_keys") } else { PathBuf::new() },
            algorithms,
            claim: self.text("http.oidc_claim").to_owned(),
            read_roles: read_roles.into_iter().collect(),
            store_roles: store_roles.into_iter().collect(),
            leeway,
        })
    }

    fn texts(&mut self, path: &str) -> Vec<String> {
        let values = self.layers.setting(path).value.as_array().cloned().unwrap_or_default();
        let mut texts = Vec::new();
        for value in values {
            match value.as_str() {
                Some(text) if !text.trim().is_empty() => texts.push(text.trim().to_owned()),
                _ => self.refuse(path, format!("{value} is not a text")),
            }
        }
        texts
    }

    fn addresses(&mut self, path: &str) -> Vec<IpAddr> {
        let mut addresses = Vec::new();
        for text in self.texts(path) {
            match text.parse() {
                Ok(address) => addresses.push(address),
                Err(_) => self.refuse(path, format!("`{text}` is not an IP address")),
            }
        }
        addresses
    }
}

impl Config {
    /// Returns the rights of callers without credentials. `None` if every caller must be a user.
    ///
    /// # Errors
    /// Fails if the settings contradict each other, or if others reach the port and no setting says
    /// who may send requests.
    pub fn http_anyone(&self) -> Result<Option<Rights>, Error> {
        let http = &self.http;
        let is_local = http.bind.ip().is_loopback();
        let has_users = http.users.is_some() || http.oidc.is_some();
        let (path, message) = match (http.access, has_users) {
            (HttpAccess::Auto | HttpAccess::Users, true) => return Ok(None),
            (HttpAccess::Auto | HttpAccess::Anyone, false) if is_local => return Ok(Some(Rights::ALL)),
            (HttpAccess::Anyone, false) => return Ok(Some(Rights::READ)),
            (HttpAccess::Auto, false) => (
                "http.bind",
                format!(
                    "others can reach {}, and nothing says who may ask over HTTP: write a file of users (`dcmdex user`, \
                     `http.users`), or `http.access = \"anyone\"` to let everyone who reaches the port search and retrieve",
                    http.bind
                ),
            ),
            (HttpAccess::Users, false) => {
                ("http.access", "`http.access` is \"users\", and `http.users` names no file".to_owned())
            }
            (HttpAccess::Anyone, true) => {
                let setting = if http.users.is_some() { "http.users" } else { "http.oidc_issuer" };
                ("http.access", format!("`http.access` is \"anyone\", and `{setting}` is set: remove one of the two"))
            }
        };
        let origin = self.layers.setting(path).origin.clone();
        Err(Error::Invalid(vec![SettingProblem { origin, message }]))
    }

    /// Returns the options of HTTP. Its timeouts are those of the network.
    ///
    /// # Errors
    /// Fails as [`Self::http_anyone`] does.
    pub fn web_options(&self) -> Result<web::Options, Error> {
        let (http, network) = (&self.http, &self.network);
        Ok(web::Options {
            bind: http.bind,
            public_url: http.public_url.clone(),
            hosts: http.hosts.clone(),
            cors_origins: http.cors_origins.clone(),
            trusted_proxies: http.trusted_proxies.clone(),
            user_header: http.user_header.clone(),
            anyone: self.http_anyone()?.unwrap_or(Rights::NONE),
            max_connections: http.max_connections,
            max_connections_per_address: http.max_connections_per_address,
            head_timeout: network.artim_timeout,
            idle_timeout: network.idle_timeout,
            read_timeout: network.read_timeout,
            write_timeout: network.write_timeout,
            query_time_limit: network.query_time_limit,
            drain_timeout: network.drain_timeout,
            max_results: http.max_results,
            metadata_cache_bytes: http.metadata_cache_bytes,
            min_free_bytes: self.min_free_bytes,
            query: self.find.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use toml::Value;

    use super::*;
    use crate::config::{Flag, Sources};

    fn config(flags: &[(&str, Value)]) -> Result<Config, String> {
        let flag = |(path, value): &(&str, Value)| Flag { path: (*path).into(), value: value.clone(), flag: "--flag" };
        let sources = Sources { flags: flags.iter().map(flag).collect(), ..Sources::default() };
        Config::load(&sources, Path::new("/nowhere")).map_err(|error| error.to_string())
    }

    fn anyone(flags: &[(&str, Value)]) -> Result<Option<Rights>, String> {
        config(flags)?.http_anyone().map_err(|error| error.to_string())
    }

    #[test]
    fn the_defaults_of_the_table_are_those_of_the_module() {
        let of_module = web::Options { query: config(&[]).unwrap().find, ..web::Options::new() };
        assert_eq!(format!("{:?}", config(&[]).unwrap().web_options().unwrap()), format!("{of_module:?}"));
        assert!(!config(&[]).unwrap().http.enabled);
    }

    #[test]
    fn who_may_ask_is_said_where_others_reach_the_port() {
        let outside = ("http.bind", Value::from("0.0.0.0"));
        let users = ("http.users", Value::from("users"));
        let access = |who: &str| ("http.access", Value::from(who));
        assert_eq!(anyone(&[]), Ok(Some(Rights::ALL)));
        assert_eq!(anyone(std::slice::from_ref(&users)), Ok(None));
        assert!(anyone(std::slice::from_ref(&outside)).unwrap_err().contains("nothing says who may ask"));
        assert_eq!(anyone(&[outside.clone(), users.clone()]), Ok(None));
        assert_eq!(anyone(&[outside, access("anyone")]), Ok(Some(Rights::READ)));
        assert!(anyone(&[access("users")]).unwrap_err().contains("names no file"));
        assert!(anyone(&[access("anyone"), users]).unwrap_err().contains("one of the two"));
        let oidc = [
            ("http.oidc_issuer", Value::from("https://login.example")),
            ("http.oidc_audience", Value::from(vec!["dcmdex"])),
            ("http.oidc_keys", Value::from("keys.json")),
            ("http.oidc_read_roles", Value::from(vec!["radiologist"])),
        ];
        let outside = ("http.bind", Value::from("0.0.0.0"));
        assert_eq!(anyone(&[&oidc[..], &[outside]].concat()), Ok(None));
        assert!(anyone(&[&oidc[..], &[access("anyone")]].concat()).unwrap_err().contains("http.oidc_issuer"));
    }

    #[test]
    fn what_cannot_be_meant_is_told() {
        for (flags, told) in [
            (vec![("http.user_header", Value::from("remote-user"))], "`http.trusted_proxies` is empty"),
            (vec![("http.trusted_proxies", Value::from(vec!["proxy"]))], "is not an IP address"),
            (vec![("http.public_url", Value::from("pacs"))], "is no URL"),
            (vec![("http.enabled", true.into()), ("http.tls", true.into())], "TLS needs `tls.certificate`"),
            (vec![("http.oidc_keys", Value::from("keys.json"))], "`http.oidc_issuer` is empty"),
            (vec![("http.oidc_algorithms", Value::from(vec!["HS256"]))], "`HS256` is not an algorithm"),
            (vec![("http.oidc_algorithms", Value::from(vec!["none"]))], "`none` is not an algorithm"),
            (vec![("http.oidc_issuer", Value::from("https://a"))], "`http.oidc_audience`: it is empty"),
            (vec![("http.oidc_issuer", Value::from("https://a"))], "no role gives a right"),
        ] {
            let error = config(&flags).unwrap_err();
            assert!(error.contains(told), "{error}");
        }
    }
}
