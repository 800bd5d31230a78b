//! The HTTP side of the node: DICOMweb (PS3.18), its access rules, and what an operator looks at.
//!
//! tokio and hyper live here and nowhere below. In reading order:
//!
//! - [`Options`] are the settings, and [`Web`] is the listener.
//! - `resource` is the one table of resources, and `answer` makes a response of a request.
//! - `host` decides which names and origins are served, and `access` who asks.
//! - `negotiate` reads Accept.
//! - `query` and `search` are QIDO-RS.
//! - `target`, `metadata`, `instances`, `frames` and `all_bulk_data` are WADO-RS.
//! - [`codec`] and `decompress` give frames without compression.
//! - [`looks`], `picture` and `render` make pictures.
//! - `store` is STOW-RS.
//! - `page` and `ohif` are for people.
//! - [`conformance`] has the tables of the conformance statement.
//!
//! A question of QIDO-RS becomes the
//! [`FindRequest`](crate::model::find::FindRequest) that a C-FIND would make of it.

mod access;
mod activity;
mod all_bulk_data;
mod answer;
mod base_url;
mod body;
mod call;
mod capabilities;
pub mod codec;
pub mod conformance;
mod decompress;
mod error;
mod forms;
mod forwarded;
mod found;
mod frames;
mod host;
mod instances;
mod listener;
pub mod looks;
mod members;
mod metadata;
mod metadata_cache;
mod monitoring;
pub mod multipart;
mod native_model;
pub mod negotiate;
mod object_json;
mod objects;
mod ohif;
mod page;
#[cfg(feature = "render")]
pub mod picture;
mod pixels;
mod problem;
pub mod query;
mod ranges;
#[cfg(feature = "render")]
mod render;
mod resource;
mod search;
mod store;
mod target;
mod timed;
mod viewer;
mod wado_uri;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio_rustls::rustls::ServerConfig;

pub use access::SharedUsers;
pub use base_url::{BaseUrl, BaseUrlError};
pub use error::Error;
pub use listener::Web;
pub use ohif::{Ohif, OhifError};
pub use resource::{METHODS_OF_RESOURCES, ResourceMethods};

use crate::access::users::Rights;
use crate::deliver::delivery::Delivery;
use crate::qr;
use crate::receive::storage::Storage;

/// Gives the TLS settings of the moment, at each handshake; so certificates are read again without a restart.
pub type TlsSource = Arc<dyn Fn() -> Arc<ServerConfig> + Send + Sync>;

/// Settings of the HTTP side. The cost of too high and too low is said at each.
#[derive(Clone, Debug)]
pub struct Options {
    /// Address and port to listen on. Port 0 takes a free one.
    pub bind: SocketAddr,
    /// The URL under which clients reach the node; `None`: that of each request.
    pub public_url: Option<BaseUrl>,
    /// Host names that the node is called by, besides IP addresses, `localhost` and the host of `public_url`.
    pub hosts: Vec<String>,
    /// Origins whose pages may read answers (CORS); `*` is every one, without credentials.
    pub cors_origins: Vec<String>,
    /// Proxies whose `Forwarded` and `X-Forwarded-*` headers, and whose user header, are believed.
    pub trusted_proxies: Vec<IpAddr>,
    /// The header in which a trusted proxy says who the user is, in lower case.
    pub user_header: Option<String>,
    /// What callers may do where there are no users.
    pub anyone: Rights,
    /// Connections at one time. Too low: clients wait. Too high: open files and some 100 KB of memory each.
    pub max_connections: usize,
    /// Connections of one address at one time. Too low: a busy proxy is cut off. Too high: one client takes all.
    pub max_connections_per_address: usize,
    /// Time for the head of a request, and for a TLS handshake. Too low: slow lines fail. Too high: silent
    /// connections hold on to their place.
    pub head_timeout: Duration,
    /// Time that a connection may be open without a request. Too low: clients connect again. Too high: places are held.
    pub idle_timeout: Duration,
    /// Time between two pieces of a request body. Too low: slow lines fail. Too high: places are held.
    pub read_timeout: Duration,
    /// Time for a client to take the next bytes. Too low: slow clients are cut off. Too high: places are held.
    pub write_timeout: Duration,
    /// Time that the index may work on a search. Too low: searches in a huge archive fail. Too high: one bad search
    /// keeps a processor busy.
    pub query_time_limit: Duration,
    /// After the order to stop: time for responses in flight.
    pub drain_timeout: Duration,
    /// The most results of one search; a Warning says that there are more. `None`: all.
    pub max_results: Option<u64>,
    /// Bytes of finished metadata that are kept in memory. 0: none. Larger: more memory. Smaller: more
    /// objects are read again.
    pub metadata_cache_bytes: usize,
    /// Bytes that stay free on the disk of the index, of results that wait for slow clients.
    pub min_free_bytes: u64,
    /// How queries are answered.
    pub query: qr::Options,
}

impl Options {
    /// The defaults, on the loopback address and port 8080.
    #[must_use]
    pub fn new() -> Self {
        Self {
            bind: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            public_url: None,
            hosts: Vec::new(),
            cors_origins: Vec::new(),
            trusted_proxies: Vec::new(),
            user_header: None,
            anyone: Rights::ALL,
            max_connections: 512,
            max_connections_per_address: 64,
            head_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
            read_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(30),
            query_time_limit: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(10),
            max_results: None,
            metadata_cache_bytes: 64 << 20,
            min_free_bytes: 256 << 20,
            query: qr::Options::default(),
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self::new()
    }
}

/// What the HTTP side answers from.
#[derive(Clone)]
pub struct Services {
    /// The index.
    pub index: PathBuf,
    /// What sends objects; the one of C-GET.
    pub delivery: Arc<Delivery>,
    /// What stores objects; the one of C-STORE. `None`: nothing is stored.
    pub storage: Option<Arc<Storage>>,
    /// Who may do what; can be replaced while the node runs.
    pub users: SharedUsers,
    /// OHIF; `None`: it is not served.
    pub ohif: Option<Arc<Ohif>>,
    /// Certificates; `None`: without TLS.
    pub tls: Option<TlsSource>,
}

impl std::fmt::Debug for Services {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Services").field("index", &self.index).field("tls", &self.tls.is_some()).finish_non_exhaustive()
    }
}
