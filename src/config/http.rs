//! Settings of HTTP.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::check::Check;
use super::key::{KeyOf, Texts};
use super::keys::settings;
use super::{Config, Error, SettingProblem};
use crate::access::jwt::{ALGORITHMS, Issuer};
use crate::access::users::Rights;
use crate::{qr, scp, web};

/// Callers that may send requests over HTTP, as given by the setting `http.access`.
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
    /// Settings of the server. `anyone` is set when it is known who may send requests.
    pub server: web::Options,
    /// Whether the port uses TLS.
    pub tls: bool,
    /// File of users.
    pub users: Option<PathBuf>,
    /// Callers that may send requests.
    pub access: HttpAccess,
    /// Issuer of access tokens.
    pub oidc: Option<Issuer>,
    /// Folder of the OHIF viewer.
    pub ohif: Option<PathBuf>,
}

impl Check<'_> {
    /// The address for supervisors.
    pub(super) fn monitoring(&mut self) -> Option<SocketAddr> {
        let address = self.parsed(settings::MONITORING_BIND).unwrap_or(IpAddr::from(Ipv4Addr::LOCALHOST));
        let port = u16::try_from(self.integer(settings::MONITORING_PORT)).unwrap_or_default();
        self.boolean(settings::MONITORING_ENABLED).then(|| SocketAddr::new(address, port))
    }

    /// The settings of HTTP. Its timeouts are those of the node.
    pub(super) fn http(&mut self, node: &scp::Options, query: &qr::Options, min_free_bytes: u64) -> Http {
        let address = match self.text(settings::HTTP_BIND) {
            "localhost" => IpAddr::from(Ipv4Addr::LOCALHOST),
            _ => self.parsed(settings::HTTP_BIND).unwrap_or(IpAddr::from(Ipv4Addr::LOCALHOST)),
        };
        let port = u16::try_from(self.integer(settings::HTTP_PORT)).unwrap_or_default();
        let max_results = self.integer(settings::HTTP_MAX_RESULTS);
        let http = Http {
            enabled: self.boolean(settings::HTTP_ENABLED),
            tls: self.boolean(settings::HTTP_TLS),
            users: self.optional_path(settings::HTTP_USERS),
            access: self.choice(
                settings::HTTP_ACCESS,
                [("auto", HttpAccess::Auto), ("users", HttpAccess::Users), ("anyone", HttpAccess::Anyone)],
            ),
            oidc: self.oidc(),
            ohif: self.optional_path(settings::HTTP_OHIF),
            server: web::Options {
                bind: SocketAddr::new(address, port),
                public_url: match self.text(settings::HTTP_PUBLIC_URL) {
                    "" => None,
                    _ => self.parsed(settings::HTTP_PUBLIC_URL),
                },
                hosts: self.texts_of(settings::HTTP_HOSTS, web::is_authority, "host name"),
                cors_origins: self.texts_of(
                    settings::HTTP_CORS_ORIGINS,
                    web::is_origin,
                    "origin as in `https://viewer.example.org`",
                ),
                trusted_proxies: self.addresses(settings::HTTP_TRUSTED_PROXIES),
                user_header: self.optional_text(settings::HTTP_USER_HEADER),
                anyone: Rights::NONE,
                max_connections: self.count(settings::HTTP_MAX_CONNECTIONS),
                max_connections_per_address: self.count(settings::HTTP_MAX_CONNECTIONS_PER_ADDRESS),
                head_timeout: node.artim_timeout,
                idle_timeout: node.idle_timeout,
                read_timeout: node.read_timeout,
                write_timeout: node.write_timeout,
                query_time_limit: node.query_time_limit,
                drain_timeout: node.drain_timeout,
                max_results: (max_results > 0).then_some(max_results),
                metadata_cache_bytes: self.count(settings::HTTP_METADATA_CACHE_MIB) << 20,
                min_free_bytes,
                query: query.clone(),
            },
        };
        if http.server.user_header.is_some() && http.server.trusted_proxies.is_empty() {
            self.refuse(
                settings::HTTP_USER_HEADER.path(),
                "it has no effect: `http.trusted_proxies` is empty".to_owned(),
            );
        }
        if http.server.user_header.is_some() && http.users.is_none() {
            self.refuse(
                settings::HTTP_USER_HEADER.path(),
                "it gives no rights without a file of users (`http.users`)".to_owned(),
            );
        }
        if http.enabled && http.tls && self.text(settings::TLS_CERTIFICATE).is_empty() {
            self.refuse(settings::HTTP_TLS.path(), "TLS needs `tls.certificate`".to_owned());
        }
        http
    }

    fn oidc(&mut self) -> Option<Issuer> {
        let issuer = self.text(settings::HTTP_OIDC_ISSUER).to_owned();
        let audiences = self.texts(settings::HTTP_OIDC_AUDIENCE);
        let algorithms = self.texts(settings::HTTP_OIDC_ALGORITHMS);
        let (read_roles, store_roles) =
            (self.texts(settings::HTTP_OIDC_READ_ROLES), self.texts(settings::HTTP_OIDC_STORE_ROLES));
        let leeway = Duration::from_secs(self.integer(settings::HTTP_OIDC_LEEWAY));
        let keys = self.optional_path(settings::HTTP_OIDC_KEYS);
        for algorithm in &algorithms {
            if !ALGORITHMS.iter().any(|(name, _)| name == algorithm) {
                self.refuse(
                    settings::HTTP_OIDC_ALGORITHMS.path(),
                    format!("`{algorithm}` is not an algorithm that can be allowed"),
                );
            }
        }
        if issuer.is_empty() {
            let without_effect = [
                (settings::HTTP_OIDC_AUDIENCE.path(), !audiences.is_empty()),
                (settings::HTTP_OIDC_KEYS.path(), keys.is_some()),
                (settings::HTTP_OIDC_READ_ROLES.path(), !read_roles.is_empty()),
                (settings::HTTP_OIDC_STORE_ROLES.path(), !store_roles.is_empty()),
            ];
            for (path, _) in without_effect.into_iter().filter(|(_, is_set)| *is_set) {
                self.refuse(path, "it has no effect: `http.oidc_issuer` is empty".to_owned());
            }
            return None;
        }
        let needs = [
            (
                settings::HTTP_OIDC_AUDIENCE.path(),
                audiences.is_empty(),
                "a token for any other service would be accepted",
            ),
            (settings::HTTP_OIDC_KEYS.path(), keys.is_none(), "no signature can be verified"),
            (settings::HTTP_OIDC_ALGORITHMS.path(), algorithms.is_empty(), "no token can be accepted"),
        ];
        for (path, is_missing, why) in needs {
            if is_missing {
                self.refuse(path, format!("it is empty, and `http.oidc_issuer` is set: {why}"));
            }
        }
        if read_roles.is_empty() && store_roles.is_empty() {
            let message = "no role gives a right: `http.oidc_read_roles` and `http.oidc_store_roles` are empty";
            self.refuse(settings::HTTP_OIDC_ISSUER.path(), message.to_owned());
        }
        Some(Issuer {
            issuer,
            audiences,
            keys: keys.unwrap_or_default(),
            algorithms,
            claim: self.text(settings::HTTP_OIDC_CLAIM).to_owned(),
            read_roles: read_roles.into_iter().collect(),
            store_roles: store_roles.into_iter().collect(),
            leeway,
        })
    }

    pub(super) fn texts(&mut self, key: KeyOf<Texts>) -> Vec<String> {
        let mut texts = Vec::new();
        for value in self.layers.value(key) {
            match value.as_str() {
                Some(text) if !text.trim().is_empty() => texts.push(text.trim().to_owned()),
                _ => self.refuse(key.path(), format!("{value} is not a text")),
            }
        }
        texts
    }

    /// Reads texts that must be one of `what`.
    fn texts_of(&mut self, key: KeyOf<Texts>, is_one: fn(&str) -> bool, what: &str) -> Vec<String> {
        let texts = self.texts(key);
        for text in texts.iter().filter(|text| !is_one(text)) {
            self.refuse(key.path(), format!("`{text}` is no {what}"));
        }
        texts
    }

    fn addresses(&mut self, key: KeyOf<Texts>) -> Vec<IpAddr> {
        let mut addresses = Vec::new();
        for text in self.texts(key) {
            match text.parse() {
                Ok(address) => addresses.push(address),
                Err(_) => self.refuse(key.path(), format!("`{text}` is not an IP address")),
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
        let is_local = http.server.bind.ip().is_loopback();
        let has_users = http.users.is_some() || http.oidc.is_some();
        let (path, message) = match (http.access, has_users) {
            (HttpAccess::Auto | HttpAccess::Users, true) => return Ok(None),
            (HttpAccess::Auto | HttpAccess::Anyone, false) if is_local => return Ok(Some(Rights::ALL)),
            (HttpAccess::Anyone, false) => return Ok(Some(Rights::READ)),
            (HttpAccess::Auto, false) => (
                "http.bind",
                format!(
                    "others can reach {}, and nothing says who may ask over HTTP; hint: write a file of users (`dcmdex user`, \
                     `http.users`), or `http.access = \"anyone\"` to let everyone who reaches the port search and retrieve",
                    http.server.bind
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

    /// Returns the options of the HTTP server.
    ///
    /// # Errors
    /// Fails as [`Self::http_anyone`] does.
    pub fn web_options(&self) -> Result<web::Options, Error> {
        Ok(web::Options { anyone: self.http_anyone()?.unwrap_or(Rights::NONE), ..self.http.server.clone() })
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
            (vec![("http.hosts", Value::from(vec!["a b"]))], "`http.hosts`: `a b` is no host name"),
            (vec![("http.cors_origins", Value::from(vec!["a"]))], "`a` is no origin as in"),
            (vec![("http.cors_origins", Value::from(vec!["https://a/"]))], "`https://a/` is no origin as in"),
            (vec![("audit.max_mib", Value::from(-1))], "`audit.max_mib`: -1 is not from"),
            (vec![("audit.keep_days", Value::from(-1))], "`audit.keep_days`: -1 is not from"),
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
