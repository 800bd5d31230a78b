//! The HTTP side of the node: DICOMweb (PS3.18), its access rules, and pages for operators.
//!
//! tokio and hyper live here and nowhere below. In reading order:
//!
//! - [`Options`] are the settings, and [`Web`] is the listener.
//! - `resource` is the one table of resources, and `dispatch` makes a response of a request.
//! - `host` decides which names and origins are served, and `access` who asks.
//! - `negotiate` reads Accept.
//! - `query` and `search` are QIDO-RS.
//! - `wado_target`, `metadata`, `instances`, `frames` and `all_bulk_data` are WADO-RS.
//! - `decompress` gives frames without compression.
//! - `picture` and `render` make pictures.
//! - `store` is STOW-RS.
//! - `page` and `ohif` are for people.
//! - [`conformance`] has the tables of the conformance statement.
//!
//! A question of QIDO-RS becomes the
//! [`FindRequest`](crate::model::find::FindRequest) that a C-FIND would make of it.

mod access;
mod all_bulk_data;
mod audited;
mod base_url;
mod body;
mod capabilities;
pub mod conformance;
mod connection_activity;
mod decompress;
mod dispatch;
mod error;
mod forms;
mod forwarded;
mod frame_source;
mod frames;
mod host;
mod http_state;
mod inflated_members;
mod instances;
mod listener;
mod metadata;
mod metadata_cache;
mod monitor;
mod monitoring;
pub mod multipart;
mod native_model;
pub mod negotiate;
mod object_json;
mod object_reader;
mod ohif;
mod page;
#[cfg(feature = "render")]
pub mod picture;
mod piece_buffers;
mod pixel_cache;
mod problem;
pub mod query;
mod ranges;
mod recalled_answers;
#[cfg(feature = "render")]
mod render;
mod resource;
mod search;
mod stall_timeout;
mod store;
mod viewer;
mod wado_target;
mod wado_uri;
mod weighted_cache;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use access::SharedUsers;
pub use base_url::{BaseUrl, BaseUrlError, is_authority, is_origin};
pub use error::Error;
pub use listener::Web;
pub use monitor::{Monitor, MonitorSources};
pub use ohif::{Ohif, OhifError};
pub use resource::{METHODS_OF_RESOURCES, ResourceMethods};

use crate::access::users::Rights;
use crate::audit::Auditor;
use crate::deliver::delivery::Delivery;
use crate::listening::TlsSource;
use crate::qr;
use crate::receive::storage::Storage;

/// Settings of the HTTP side, each with the cost of a value that is too low or too high.
#[derive(Clone, Debug)]
pub struct Options {
    /// Address and port to listen on. Port 0 takes a free one.
    pub bind: SocketAddr,
    /// URL under which clients reach the node. `None` means the URL of each request.
    pub public_url: Option<BaseUrl>,
    /// Host names of the node, besides IP addresses, `localhost` and the host of `public_url`.
    pub hosts: Vec<String>,
    /// Origins whose pages may read answers (CORS). `*` means every origin, without credentials.
    pub cors_origins: Vec<String>,
    /// Proxies whose `Forwarded`, `X-Forwarded-*` and user headers are trusted.
    pub trusted_proxies: Vec<IpAddr>,
    /// Header in which a trusted proxy names the user, in lower case.
    pub user_header: Option<String>,
    /// Rights of callers if there are no users.
    pub anyone: Rights,
    /// Maximum number of connections. Too low: clients wait. Too high: each takes an open file and
    /// some 100 KB of memory.
    pub max_connections: usize,
    /// Maximum number of connections of one address. Too low: a busy proxy is cut off. Too high:
    /// one client takes all.
    pub max_connections_per_address: usize,
    /// Time for the head of a request, and for a TLS handshake. Too low: slow lines fail. Too high:
    /// silent connections keep their place.
    pub head_timeout: Duration,
    /// Time for which a connection may be open without a request. Too low: clients connect again.
    /// Too high: places are kept.
    pub idle_timeout: Duration,
    /// Time between two pieces of a request body. Too low: slow lines fail. Too high: places are
    /// kept.
    pub read_timeout: Duration,
    /// Time for a client to take the next bytes. Too low: slow clients are cut off. Too high:
    /// places are kept.
    pub write_timeout: Duration,
    /// Time for the index to work on a search. Too low: searches in a huge archive fail. Too high:
    /// one bad search keeps a processor busy.
    pub query_time_limit: Duration,
    /// Time for responses in flight after the order to stop.
    pub drain_timeout: Duration,
    /// Maximum number of results of one search. A Warning says that there are more. `None` means no
    /// limit.
    pub max_results: Option<u64>,
    /// Maximum memory for finished metadata, in bytes. 0 keeps none. Larger: more memory. Smaller:
    /// more objects are read again.
    pub metadata_cache_bytes: usize,
    /// Number of bytes that stay free on the disk of the index. Results that wait for slow clients
    /// leave them free.
    pub min_free_bytes: u64,
    /// Settings of queries.
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

/// Services that the HTTP side answers from.
#[derive(Clone)]
pub struct Services {
    /// The index file.
    pub index: PathBuf,
    /// The sender of objects, which C-GET uses too.
    pub delivery: Arc<Delivery>,
    /// The storage of objects, which C-STORE uses too. `None` means that nothing is stored.
    pub storage: Option<Arc<Storage>>,
    /// The users and their rights. They can be replaced while the node runs.
    pub users: SharedUsers,
    /// The build of OHIF. `None` means that it is not served.
    pub ohif: Option<Arc<Ohif>>,
    /// The certificates. `None` means no TLS.
    pub tls: Option<TlsSource>,
    /// The audit trail.
    pub audit: Auditor,
}

impl std::fmt::Debug for Services {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Services").field("index", &self.index).field("tls", &self.tls.is_some()).finish_non_exhaustive()
    }
}
