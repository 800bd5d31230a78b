//! The state that all requests share, and a request that may be answered.

use std::net::IpAddr;
use std::sync::Arc;

use hyper::HeaderMap;
use hyper::header::HeaderName;
use tokio::time::timeout;
use tokio_rustls::rustls::ServerConfig;

use super::access::SharedUsers;
use super::audited::ShownStudies;
use super::base_url::BaseUrl;
use super::body::{Body, Outlet};
use super::error::Error;
use super::inflated_members::Members;
use super::metadata_cache::MetadataCache;
use super::ohif::Ohif;
use super::piece_buffers::PieceBuffers;
use super::pixel_cache::PixelCache;
use super::problem::{Problem, WAIT_FOR_TURN};
use super::recalled_answers::RecalledAnswers;
use super::resource::Route;
use super::{Options, Services};
use crate::audit::Auditor;
use crate::db::open::directory_beside;
use crate::deliver::delivery::Delivery;
use crate::listening::TlsSource;
use crate::qr::readers::Readers;
use crate::receive::storage::Storage;
use crate::shares::{CountedPeer, MEMORY_BYTES, Shares, Turn, Turns};
use crate::store::SpoolDirectory;
use crate::telemetry::log_limit::LogLimit;
use crate::telemetry::metrics;

/// Maximum memory for metadata that are being made, in bytes. One client may have half of it. If it
/// is used up, answers are not kept.
const METADATA_BYTES: usize = 64 << 20;

/// Maximum number of threads that write answers and may wait for slow clients. One peer has half.
///
/// The process has 512 threads for work that blocks. C-STORE uses up to 256 of them, and retrievals
/// and queries some 100. Larger: slow clients take theirs. Smaller: fast clients wait for slow
/// ones.
const WRITING_THREADS: usize = 128;

/// State that all requests share.
pub(super) struct HttpState {
    /// The settings.
    pub(super) options: Options,
    /// Open connections to the index, and the turns to query it.
    pub(super) readers: Readers,
    /// The directory for answers that do not fit in memory.
    pub(super) spools: SpoolDirectory,
    /// Memory for arriving and outgoing data.
    pub(super) memory: Arc<Shares>,
    /// Finished metadata.
    pub(super) metadata: MetadataCache,
    /// Cached results of the index for metadata.
    pub(super) recalled: RecalledAnswers,
    /// Memory for metadata that are being made.
    pub(super) memory_of_metadata: Arc<Shares>,
    /// Members of archives that were inflated for frames.
    pub(super) members: Arc<Members>,
    /// Places of frames.
    pub(super) pixels: PixelCache,
    /// Threads that wait for clients.
    writers: Arc<Turns>,
    /// Buffers of pieces that go out.
    pub(super) pieces: Arc<PieceBuffers>,
    /// Parts that sending objects needs: codecs, turns to decompress, and objects that were
    /// verified.
    pub(super) delivery: Arc<Delivery>,
    /// Place where STOW-RS stores objects. `None` if it does not.
    pub(super) storage: Option<Arc<Storage>>,
    /// The files of the viewer, if there is one.
    pub(super) ohif: Option<Arc<Ohif>>,
    /// The users, which can be replaced while the node runs.
    pub(super) users: SharedUsers,
    /// The header in which a trusted proxy names the user.
    pub(super) user_header: Option<HeaderName>,
    /// The TLS settings. `None` for HTTP without TLS.
    pub(super) tls: Option<TlsSource>,
    /// The audit trail.
    pub(super) audit: Auditor,
    /// Limit of log lines about connections without TLS.
    pub(super) refusals: LogLimit,
}

impl HttpState {
    pub(super) fn new(options: Options, services: Services) -> Result<Self, Error> {
        let user_header = options.user_header.as_ref().map(|name| {
            HeaderName::from_bytes(name.to_ascii_lowercase().as_bytes()).map_err(|_| Error::HeaderName(name.clone()))
        });
        let spools = SpoolDirectory::new(directory_beside(&services.index), options.min_free_bytes.saturating_mul(2));
        Ok(Self {
            readers: Readers::new(services.index),
            metadata: MetadataCache::new(options.metadata_cache_bytes),
            recalled: RecalledAnswers::default(),
            memory_of_metadata: Shares::new(METADATA_BYTES, 0, &metrics::MEMORY_REFUSED),
            members: Arc::new(Members::new(spools.clone())),
            spools,
            memory: Shares::new(MEMORY_BYTES, 0, &metrics::MEMORY_REFUSED),
            pixels: PixelCache::default(),
            writers: Turns::new(WRITING_THREADS),
            pieces: Arc::default(),
            delivery: services.delivery,
            storage: services.storage,
            ohif: services.ohif,
            users: services.users,
            user_header: user_header.transpose()?,
            tls: services.tls,
            audit: services.audit,
            refusals: LogLimit::default(),
            options,
        })
    }

    /// Waits for the turn to query the index.
    pub(super) async fn turn(&self, peer: &CountedPeer) -> Result<Turn, Problem> {
        let turn = timeout(WAIT_FOR_TURN, self.readers.turns().take(peer)).await;
        turn.map_err(|_| Problem::busy("many searches are under way; try again"))
    }

    /// Waits for a thread that may wait for the client. Returns the body that it writes.
    pub(super) async fn written_body(&self, peer: &CountedPeer) -> Result<(Outlet, Body), Problem> {
        let turn = timeout(WAIT_FOR_TURN, self.writers.take(peer)).await;
        let turn = turn.map_err(|_| Problem::busy("many answers wait for slow clients; try again"))?;
        let (outlet, body) = Body::pieces(self.options.write_timeout);
        Ok((outlet.holding(turn), body))
    }

    /// Waits for the turn to decompress or render a frame.
    pub(super) async fn decoding(&self, peer: &CountedPeer) -> Result<Turn, Problem> {
        let turn = timeout(WAIT_FOR_TURN, self.delivery.decoders.turn(peer)).await;
        turn.map_err(|_| Problem::decoders_are_busy())
    }

    /// Returns the current TLS settings.
    pub(super) fn tls(&self) -> Option<Arc<ServerConfig>> {
        self.tls.as_ref().map(|source| source())
    }
}

/// A request for a resource, by a caller who may use it.
pub(super) struct Call<'r> {
    pub(super) route: Route<'r>,
    /// The path, still percent-encoded.
    pub(super) path: &'r str,
    /// The query, still percent-encoded.
    pub(super) query: &'r str,
    pub(super) headers: &'r HeaderMap,
    /// Start of URLs in the answer.
    pub(super) base: &'r BaseUrl,
    /// Address of the caller: the other end of the connection, or the one that a trusted proxy
    /// names.
    pub(super) address: IpAddr,
    /// Name of the user who asks. Empty if it is not known.
    pub(super) user: &'r str,
    /// The peer for which the request counts.
    pub(super) peer: CountedPeer,
    /// Studies whose objects are shown, for the audit trail. `None` if there is no trail.
    pub(super) shown: Option<&'r ShownStudies>,
}
