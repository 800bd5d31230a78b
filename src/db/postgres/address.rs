//! The address of a PostgreSQL database, and the secrets that go with it.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use data_encoding::HEXLOWER;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, LoadBalanceHosts, SslMode, TargetSessionAttrs};

use super::roots::NamedRoots;
use super::tls::ServerTls;
use crate::db::Error;

/// The parameter of an address that says where this node has a root.
const ROOT: &str = "dcmdex_root";

/// Beginnings of an address.
const SCHEMES: [&str; 2] = ["postgresql://", "postgres://"];

/// Longest wait for a server that does not answer (`connect_timeout`). A node has to try the next
/// host soon.
const TIME_LIMIT: Duration = Duration::from_secs(5);

/// Longest time that sent bytes may stay without an acknowledgement, before the server counts as
/// gone. Without it, a node would wait for a primary that lost its network for a quarter of an
/// hour.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(10);

/// Idle time after which the system asks whether the server is still there.
const KEEPALIVES_IDLE: Duration = Duration::from_secs(10);

/// Time until the system asks again. Its own value is 75 seconds.
const KEEPALIVES_INTERVAL: Duration = Duration::from_secs(5);

/// The port of a server if none is named.
const DEFAULT_PORT: u16 = 5432;

/// Address of an index in PostgreSQL.
#[derive(Clone)]
pub struct PostgresAddress {
    config: Config,
    shown: String,
    tls: ServerTls,
    names_session: bool,
    roots: Arc<NamedRoots>,
}

impl PostgresAddress {
    /// Reads the address of an index, as a path. `None` if it is that of a file.
    ///
    /// # Errors
    /// [`Error::Address`] if the address cannot be used, or if it holds a password.
    pub fn of(index: &Path) -> Result<Option<Self>, Error> {
        let text = index.to_str().filter(|text| is_address(text));
        #[expect(clippy::disallowed_methods, reason = "PostgreSQL names these variables, not the program")]
        let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
        text.map(|text| Self::read(text, variable)).transpose()
    }

    fn read(text: &str, variable: impl Fn(&str) -> Option<PathBuf>) -> Result<Self, Error> {
        let wrong = |detail: String| Error::Address { detail };
        let (text, own) = OwnParameters::take(text);
        // The text of this error can hold the password.
        let mut config: Config = text.parse().map_err(|error| wrong(reason(&error)))?;
        if config.get_password().is_some() {
            let detail = "a password does not belong there, where other users see it; hint: put it into a file of \
                          the form of ~/.pgpass, and name that with passfile=FILE or PGPASSFILE";
            return Err(wrong(detail.to_owned()));
        }
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err(wrong("it names no host".to_owned()));
        }
        let Some(database) = config.get_dbname().map(str::to_owned) else {
            return Err(wrong("it names no database".to_owned()));
        };
        let tls = match (&own.authorities, own.verifies) {
            (Some(file), _) => ServerTls::verified(file).map_err(wrong)?,
            (None, true) => return Err(wrong("sslmode=verify-full needs sslrootcert=FILE".to_owned())),
            (None, false) => ServerTls::unverified().map_err(wrong)?,
        };
        if own.verifies {
            config.ssl_mode(SslMode::Require);
        }
        let names_session = text.contains("target_session_attrs=");
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(TIME_LIMIT);
        }
        if config.get_tcp_user_timeout().is_none() {
            config.tcp_user_timeout(TCP_USER_TIMEOUT);
        }
        if !text.contains("keepalives_idle=") {
            config.keepalives_idle(KEEPALIVES_IDLE);
        }
        if !text.contains("keepalives_interval=") {
            config.keepalives_interval(KEEPALIVES_INTERVAL);
        }
        if config.get_application_name().is_none() {
            config.application_name("dcmdex");
        }
        let hosts = hosts_of(&config);
        let shown = format!("postgresql://{}/{database}", hosts.join(","));
        let file = own.passfile.or_else(|| variable("PGPASSFILE")).or_else(|| Some(variable("HOME")?.join(".pgpass")));
        if let Some(password) = file.and_then(|file| std::fs::read_to_string(file).ok()).and_then(|secrets| {
            hosts.iter().find_map(|host| password_of(&secrets, host, &database, config.get_user().unwrap_or_default()))
        }) {
            config.password(password);
        }
        Ok(Self { config, shown, tls, names_session, roots: Arc::new(NamedRoots::new(own.roots)) })
    }

    /// Settings for a connection to each host, in the order in which they are tried. A connection
    /// that writes goes to a server that can be written, unless the address says otherwise.
    pub(super) fn configs(&self, writes: bool) -> Vec<Config> {
        let mut config = self.config.clone();
        if writes && !self.names_session {
            config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        }
        let hosts = config.get_hosts().len().max(config.get_hostaddrs().len());
        let mut configs: Vec<Config> = (0..hosts).map(|at| of_host(&config, at)).collect();
        if config.get_load_balance_hosts() == LoadBalanceHosts::Random {
            let any = RandomState::new().build_hasher().finish() as usize;
            configs.rotate_left(any.checked_rem(hosts).unwrap_or(0));
        }
        configs
    }

    /// Time for which the server may be silent.
    pub(super) fn time_limit(&self) -> Duration {
        self.config.get_connect_timeout().copied().unwrap_or(TIME_LIMIT)
    }

    /// Places of the roots of the index on this node.
    pub(super) fn roots(&self) -> &Arc<NamedRoots> {
        &self.roots
    }

    /// Adds to an address where this node has the roots of the index, by name. So whoever opens the
    /// index knows them.
    #[must_use]
    pub fn with_roots<'r>(index: &Path, roots: impl IntoIterator<Item = (&'r str, &'r Path)>) -> PathBuf {
        let mut address = index.as_os_str().to_owned();
        let mut mark = if address.as_encoded_bytes().contains(&b'?') { "&" } else { "?" };
        for (name, path) in roots {
            let path = HEXLOWER.encode(path.as_os_str().as_encoded_bytes());
            address.push(format!("{mark}{ROOT}={name}:{path}"));
            mark = "&";
        }
        address.into()
    }

    /// An address as it was before [`Self::with_roots`].
    #[must_use]
    pub fn without_roots(index: &Path) -> PathBuf {
        let Some(text) = index.to_str().filter(|text| is_address(text)) else { return index.to_owned() };
        let ends = ["?", "&"].into_iter().filter_map(|mark| text.find(&format!("{mark}{ROOT}=")));
        text.get(..ends.min().unwrap_or(text.len())).unwrap_or(text).into()
    }

    pub(super) fn tls(&self) -> &ServerTls {
        &self.tls
    }

    /// Hosts and database, without user and password.
    #[must_use]
    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// The same where an error names the path of an index.
    pub(in crate::db) fn path(&self) -> PathBuf {
        PathBuf::from(&self.shown)
    }
}

impl std::fmt::Debug for PostgresAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.shown)
    }
}

/// Whether the path of an index is the address of a server.
pub(in crate::db) fn is_address(index: &str) -> bool {
    SCHEMES.iter().any(|scheme| index.starts_with(scheme))
}

/// Reason why an address cannot be used, without its text.
fn reason(error: &tokio_postgres::Error) -> String {
    use std::error::Error as _;
    error.source().map_or_else(|| "it cannot be read".to_owned(), ToString::to_string)
}

/// Parameters of an address that the driver does not know.
#[derive(Default)]
struct OwnParameters {
    passfile: Option<PathBuf>,
    /// Certificates of authorities (`sslrootcert`).
    authorities: Option<PathBuf>,
    /// Whether the certificate of the server has to be verified.
    verifies: bool,
    /// Roots by name: see [`PostgresAddress::with_roots`].
    roots: Vec<(String, PathBuf)>,
}

impl OwnParameters {
    /// Takes them out of an address.
    fn take(text: &str) -> (String, Self) {
        let mut own = Self::default();
        let Some((address, parameters)) = text.split_once('?') else { return (text.to_owned(), own) };
        let mut is_other = |parameter: &&str| {
            match parameter.split_once('=') {
                Some(("passfile", file)) => own.passfile = Some(PathBuf::from(file)),
                Some(("sslrootcert", file)) => own.authorities = Some(PathBuf::from(file)),
                Some(("sslmode", "verify-full" | "verify-ca")) => own.verifies = true,
                Some((ROOT, root)) => own.roots.extend(root_of(root)),
                _ => return true,
            }
            false
        };
        let others: Vec<&str> = parameters.split('&').filter(|parameter| is_other(parameter)).collect();
        let mark = if others.is_empty() { "" } else { "?" };
        (format!("{address}{mark}{}", others.join("&")), own)
    }
}

/// The name and the path of a root.
fn root_of(text: &str) -> Option<(String, PathBuf)> {
    let (name, path) = text.split_once(':')?;
    let path = HEXLOWER.decode(path.as_bytes()).ok()?;
    Some((name.to_owned(), super::keys::path_from(&path)))
}

/// Settings for one of several hosts. The driver has one time limit for all hosts. So one that
/// accepts connections and says nothing would keep it from the next one.
fn of_host(all: &Config, at: usize) -> Config {
    let mut config = Config::new();
    match all.get_hosts().get(at) {
        Some(Host::Tcp(name)) => drop(config.host(name)),
        Some(Host::Unix(directory)) => drop(config.host_path(directory)),
        None => {}
    }
    all.get_hostaddrs().get(at).map(|address| config.hostaddr(*address));
    all.get_ports().get(at).or(all.get_ports().first()).map(|port| config.port(*port));
    all.get_user().map(|user| config.user(user));
    all.get_password().map(|password| config.password(password));
    all.get_dbname().map(|name| config.dbname(name));
    all.get_options().map(|options| config.options(options));
    all.get_application_name().map(|name| config.application_name(name));
    all.get_connect_timeout().map(|timeout| config.connect_timeout(*timeout));
    all.get_tcp_user_timeout().map(|timeout| config.tcp_user_timeout(*timeout));
    all.get_keepalives_interval().map(|interval| config.keepalives_interval(interval));
    all.get_keepalives_retries().map(|retries| config.keepalives_retries(retries));
    config
        .ssl_mode(all.get_ssl_mode())
        .ssl_negotiation(all.get_ssl_negotiation())
        .channel_binding(all.get_channel_binding())
        .keepalives(all.get_keepalives())
        .keepalives_idle(all.get_keepalives_idle())
        .target_session_attrs(all.get_target_session_attrs());
    config
}

/// The hosts with their ports, or the directories of their sockets.
fn hosts_of(config: &Config) -> Vec<String> {
    let port = |at: usize| {
        let ports = config.get_ports();
        ports.get(at).or(ports.first()).copied().unwrap_or(DEFAULT_PORT)
    };
    let name = |host: &Host| match host {
        Host::Tcp(name) => name.clone(),
        Host::Unix(directory) => directory.display().to_string(),
    };
    let of_addresses = config.get_hostaddrs().iter().map(ToString::to_string);
    let names: Vec<String> = match config.get_hosts() {
        [] => of_addresses.collect(),
        hosts => hosts.iter().map(name).collect(),
    };
    names.iter().enumerate().map(|(at, name)| format!("{name}:{}", port(at))).collect()
}

/// The password that a file of the form `host:port:database:user:password` has. `*` stands for
/// anything, and a backslash goes before a colon or a backslash of a value.
fn password_of(secrets: &str, host: &str, database: &str, user: &str) -> Option<String> {
    let (name, port) = host.rsplit_once(':')?;
    let wanted = [name, port, database, user];
    secrets.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let fields = fields_of(line);
        let (password, fields) = fields.split_last()?;
        let fits = |(field, wanted): (&String, &str)| {
            field == "*" || field == wanted || (field == "localhost" && wanted.starts_with('/'))
        };
        (fields.len() == wanted.len() && fields.iter().zip(wanted).all(fits)).then(|| password.clone())
    })
}

fn fields_of(line: &str) -> Vec<String> {
    let (mut fields, mut rest) = (vec![String::new()], line.chars());
    while let Some(next) = rest.next() {
        // The password may hold colons.
        if next == ':' && fields.len() < 5 {
            fields.push(String::new());
        } else if let Some(field) = fields.last_mut() {
            field.extend(if next == '\\' { rest.next() } else { Some(next) });
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<PostgresAddress, Error> {
        PostgresAddress::read(text, |_| None)
    }

    #[test]
    fn an_address_is_shown_without_its_user() {
        let address = read("postgresql://node@h1:1,h2:2/archive?target_session_attrs=any&connect_timeout=3").unwrap();
        assert_eq!(address.shown(), "postgresql://h1:1,h2:2/archive");
        assert_eq!(address.configs(true)[0].get_target_session_attrs(), TargetSessionAttrs::Any);
        let address = read("postgres:///archive?host=/run/postgresql").unwrap();
        assert_eq!(address.shown(), "postgresql:///run/postgresql:5432/archive");
        assert_eq!(address.configs(true)[0].get_target_session_attrs(), TargetSessionAttrs::ReadWrite);
        assert!(PostgresAddress::of(Path::new("/a/index.db")).unwrap().is_none());
    }

    #[test]
    fn each_host_is_asked_with_all_that_the_address_says() {
        let text = "postgresql://node@h1:1,h2:2/archive?connect_timeout=3&tcp_user_timeout=4&options=-c%20jit%3Doff\
                    &keepalives=1&keepalives_idle=7&keepalives_interval=8&keepalives_retries=9&sslmode=require\
                    &channel_binding=disable&application_name=a&target_session_attrs=read-write";
        let configs = read(text).unwrap().configs(true);
        for (host, port, config) in [("h1", 1, &configs[0]), ("h2", 2, &configs[1])] {
            let alone = text.replace("h1:1,h2:2", &format!("{host}:{port}"));
            assert_eq!(*config, alone.parse::<Config>().unwrap());
        }
        assert_eq!(configs.len(), 2);
        let any = read("postgresql://h1,h2,h3/archive?load_balance_hosts=random").unwrap();
        assert_eq!(any.configs(false).len(), 3);
    }

    #[test]
    fn a_wrong_address_is_refused_without_its_secrets() {
        for text in [
            "postgresql://u:secret@h/d",
            "postgresql://u:secret@h/d?nothing=1",
            "postgresql://h?password=secret",
            "postgresql://u@h",
            "postgresql:///d",
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(!error.contains("secret") && !error.contains("u@"), "{text}: {error}");
        }
    }

    #[test]
    fn the_password_comes_from_a_file() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("secrets");
        std::fs::write(&file, "# comment\nother:*:*:*:no\nh1:*:archive:node:a:b\\\\c\n*:*:*:*:any\n").unwrap();
        let password = |text: &str| {
            let config = read(text).unwrap().configs(false).remove(0);
            String::from_utf8(config.get_password().unwrap_or_default().to_vec()).unwrap()
        };
        let named = format!("passfile={}", file.display());
        assert_eq!(password(&format!("postgresql://node@h1/archive?{named}")), "a:b\\c");
        assert_eq!(password(&format!("postgresql://node@h2/archive?connect_timeout=1&{named}")), "any");
        assert_eq!(password("postgresql://node@h1/archive"), "");
        let of_variable = |name: &str| (name == "PGPASSFILE").then(|| file.clone());
        let address = PostgresAddress::read("postgresql://node@h1/archive", of_variable).unwrap();
        assert_eq!(address.configs(false)[0].get_password(), Some(&b"a:b\\c"[..]));
        assert!(!format!("{address:?}").contains("a:b"));
    }
}
