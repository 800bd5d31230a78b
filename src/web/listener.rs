//! The listening socket. Each connection has a task of its own. Their number is limited, and they
//! end in order.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{interval, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use super::connection_activity::{Activity, Left};
use super::error::Error;
use super::host::Arrival;
use super::stall_timeout::StallTimeout;
use super::{Options, Services};
use crate::listening::Listened;
use crate::telemetry::{log_limit, metrics};
use crate::ul::certificates::{handshake_failure, is_only_closed};
use crate::web::dispatch::answer;
use crate::web::http_state::HttpState;

const LISTENED: Listened = Listened { one: "an HTTP connection", many: "HTTP connections" };

/// Maximum length of the head of a request, in bytes.
const MAX_HEAD_BYTES: usize = 64 << 10;

/// Maximum number of headers of a request.
const MAX_HEADERS: usize = 100;

/// Maximum number of requests in flight on one HTTP/2 connection. OHIF has 100.
const MAX_STREAMS: u32 = 128;

/// Number of bytes of a response that HTTP/2 keeps for one stream.
const STREAM_BUFFER_BYTES: usize = 256 << 10;

/// Maximum number of HTTP/2 streams that a client opened and reset before the node saw them. A
/// client that resets more is cut off (CVE-2023-44487).
const MAX_RESET_STREAMS: usize = 20;

/// Maximum number of HTTP/2 streams that the node itself reset because of the client.
const MAX_FAULTY_STREAMS: usize = 128;

/// Maximum time for an HTTP/2 client to answer a ping.
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// Maximum time for a connection to end after it was told to.
const CLOSING: Duration = Duration::from_secs(5);

/// The HTTP side of a node, bound to its port and not yet serving.
pub struct Web {
    listener: TcpListener,
    address: SocketAddr,
    server: Arc<HttpState>,
    slots: Arc<ConnectionSlots>,
}

impl std::fmt::Debug for Web {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Web").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Web {
    /// Binds the port. Nothing is accepted before [`Self::run`].
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub async fn bind(options: Options, services: Services) -> Result<Self, Error> {
        let failed = |source| Error::Bind { address: options.bind, source };
        let listener = TcpListener::bind(options.bind).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let slots = Arc::new(ConnectionSlots {
            all: options.max_connections,
            of_one: options.max_connections_per_address,
            taken: Mutex::default(),
        });
        let server = Arc::new(HttpState::new(options, services)?);
        Ok(Self { listener, address, server, slots })
    }

    /// The address and port that it listens on.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown` is cancelled. Then it accepts nothing more and finishes responses in
    /// flight. After [`Options::drain_timeout`] it cuts off the rest.
    pub async fn run(self, shutdown: CancellationToken) {
        let Self { listener, server, slots, .. } = self;
        let mut connections = JoinSet::new();
        let mut log = interval(log_limit::PERIOD);
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                _ = log.tick() => server.refusals.tell(),
                Some(ended) = connections.join_next(), if !connections.is_empty() => LISTENED.ended(ended),
                accepted = listener.accept() => match accepted {
                    Ok((stream, peer)) => match ConnectionSlots::take(&slots, peer.ip()) {
                        Some(place) => {
                            let (server, shutdown) = (Arc::clone(&server), shutdown.clone());
                            connections.spawn(async move {
                                connection(stream, peer.ip(), server, shutdown).await;
                                drop(place);
                            });
                        }
                        None => {
                            metrics::HTTP_CONNECTIONS_REFUSED.increment();
                            debug!("HTTP connection closed: its address, or all addresses together, have their maximum of connections");
                        }
                    },
                    Err(error) => LISTENED.failed(&error, &shutdown).await,
                },
            }
        }
        drop(listener);
        info!(connections = connections.len(), "no more HTTP connections accepted, finishing");
        LISTENED.drain(&mut connections, server.options.drain_timeout).await;
        server.refusals.tell_all();
    }
}

/// Slots for connections.
struct ConnectionSlots {
    all: usize,
    of_one: usize,
    taken: Mutex<HashMap<IpAddr, usize>>,
}

/// A slot for a connection, taken until it is dropped.
struct ConnectionSlot {
    slots: Arc<ConnectionSlots>,
    address: IpAddr,
}

impl ConnectionSlots {
    fn take(slots: &Arc<Self>, address: IpAddr) -> Option<ConnectionSlot> {
        // With IPv6 everyone has 2^64 addresses.
        let address = match address.to_canonical() {
            IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) >> 64 << 64).into()),
            v4 => v4,
        };
        let mut taken = slots.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let of_one = taken.get(&address).copied().unwrap_or(0);
        if of_one >= slots.of_one || taken.values().sum::<usize>() >= slots.all {
            return None;
        }
        taken.insert(address, of_one + 1);
        Some(ConnectionSlot { slots: Arc::clone(slots), address })
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        let mut taken = self.slots.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.address);
            }
        }
    }
}

async fn connection(stream: TcpStream, peer: IpAddr, server: Arc<HttpState>, shutdown: CancellationToken) {
    let _held = metrics::HTTP_CONNECTIONS_ACTIVE.hold();
    // Answers are small or go out in large pieces. Waiting for more data would only cost time.
    let _ = stream.set_nodelay(true);
    let address = peer.to_canonical();
    let Ok(local) = stream.local_addr() else { return };
    let Some(tls) = server.tls() else {
        return serve(stream, Arrival { address, local, has_tls: false }, server, shutdown).await;
    };
    match timeout(server.options.head_timeout, TlsAcceptor::from(tls).accept(stream)).await {
        Ok(Ok(stream)) => serve(stream, Arrival { address, local, has_tls: true }, server, shutdown).await,
        Ok(Err(error)) if is_only_closed(&error) => debug!(%error, "no TLS on an HTTP connection"),
        Ok(Err(error)) => {
            if server.refusals.allows(address, "TLS handshake failed") {
                info!(peer.addr = %address, "no HTTP: TLS handshake failed: {}", handshake_failure(&error));
            }
        }
        Err(_) => debug!("no TLS on an HTTP connection: it took too long"),
    }
}

async fn serve<S>(stream: S, arrival: Arrival, server: Arc<HttpState>, shutdown: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let options = &server.options;
    let activity = Activity::new();
    let builder = builder(options);
    let service = {
        let (server, activity) = (Arc::clone(&server), Arc::clone(&activity));
        service_fn(move |request| {
            let in_flight = Activity::begin(&activity);
            let server = Arc::clone(&server);
            async move {
                let response = answer(&server, request, arrival).await;
                Ok::<_, Infallible>(response.map(|body| body.counted(in_flight)))
            }
        })
    };
    let stream = TokioIo::new(StallTimeout::new(stream, options.write_timeout, Arc::clone(&activity)));
    let mut connection = pin!(builder.serve_connection(stream, service));
    let mut closing = false;
    loop {
        // The activity of the connection changes meanwhile, so no wait is longer than any limit.
        let shortest = options.head_timeout.min(options.idle_timeout).min(options.write_timeout);
        let wait = match activity.left(options) {
            _ if closing => CLOSING,
            Left::Idle(left) | Left::Stalled(left) => left.min(shortest),
            Left::Working => shortest,
        };
        tokio::select! {
            biased;
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    debug!(%error, "an HTTP connection ended early");
                }
                return;
            }
            () = shutdown.cancelled(), if !closing => {
                connection.as_mut().graceful_shutdown();
                break;
            }
            // A request may have come and gone meanwhile. The time without activity counts.
            () = sleep(wait.max(Duration::from_millis(1))) => match activity.left(options) {
                // The connection was told to end, and nothing of the last response is still on its
                // way.
                Left::Idle(left) if closing && left.is_zero() => return,
                Left::Idle(left) if left.is_zero() => {
                    connection.as_mut().graceful_shutdown();
                    closing = true;
                }
                // HTTP/2 has a window of its own. The socket takes bytes while the responses stand
                // still.
                Left::Stalled(left) if left.is_zero() => {
                    debug!("an HTTP client does not read its responses");
                    return;
                }
                Left::Idle(_) | Left::Stalled(_) | Left::Working => {}
            },
        }
    }
    // The listener cuts off connections that take too long.
    if let Err(error) = connection.await {
        debug!(%error, "an HTTP connection ended early");
    }
}

fn builder(options: &Options) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    // Without a timer, hyper's own time limits have no effect.
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(options.head_timeout)
        .max_buf_size(MAX_HEAD_BYTES)
        .max_headers(MAX_HEADERS);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(options.idle_timeout)
        .keep_alive_timeout(PING_TIMEOUT)
        .max_concurrent_streams(MAX_STREAMS)
        .max_pending_accept_reset_streams(MAX_RESET_STREAMS)
        .max_local_error_reset_streams(MAX_FAULTY_STREAMS)
        .max_header_list_size(MAX_HEAD_BYTES as u32)
        .max_send_buf_size(STREAM_BUFFER_BYTES);
    builder
}
