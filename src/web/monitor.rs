//! The port for supervisors: `/metrics`, `/healthz`, `/readyz` and `/status`, on an address of its
//! own.
//!
//! It has no users, since monitoring has none, and nothing of a patient. It is apart from DICOMweb,
//! so that it answers while all places there are taken, and that each can be reachable for others.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, ORIGIN, X_CONTENT_TYPE_OPTIONS};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::error::Error;
use super::monitoring;
use crate::listening::Listened;
use crate::model::peer::CountedAs;
use crate::shares::{Share, Shares};
use crate::telemetry::metrics;

/// Connections at a time. One address has half of them. Larger: more memory. Smaller: fewer
/// supervisors are answered at a time.
const MAX_CONNECTIONS: usize = 32;

/// Bytes of the head of a request.
const MAX_HEAD_BYTES: usize = 8 << 10;

/// Time for the head of a request, and between two requests. Larger: clients that send no request
/// keep their places longer. Smaller: supervisors have to connect for each request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(8);

/// Longest life of a connection. After it a client connects again.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(600);

const LISTENED: Listened = Listened { one: "a connection of a supervisor", many: "connections of supervisors" };

/// Sources of the answers. The functions may block, and run on threads of their own.
#[derive(Clone)]
pub struct MonitorSources {
    /// Computes the gauges that are not counted as things happen.
    pub refresh: Arc<dyn Fn() + Send + Sync>,
    /// Returns why the node does not serve. Empty if it does.
    pub problems: Arc<dyn Fn() -> Vec<String> + Send + Sync>,
    /// The state of the node, or why there is none.
    pub status: Arc<dyn Fn() -> Result<Value, String> + Send + Sync>,
}

/// The port for supervisors, bound and not yet serving.
pub struct Monitor {
    listener: TcpListener,
    address: SocketAddr,
    sources: MonitorSources,
}

impl std::fmt::Debug for Monitor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Monitor").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Monitor {
    /// Binds the port. Nothing is accepted before [`Self::run`].
    ///
    /// # Errors
    /// If the address cannot be listened on.
    pub async fn bind(address: SocketAddr, sources: MonitorSources) -> Result<Self, Error> {
        let failed = |source| Error::Monitor { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address, sources })
    }

    /// The address and port that it listens on.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `shutdown` is cancelled.
    pub async fn run(self, shutdown: CancellationToken) {
        let places = Shares::new(MAX_CONNECTIONS, 1, &metrics::HTTP_CONNECTIONS_REFUSED);
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                Some(ended) = connections.join_next(), if !connections.is_empty() => LISTENED.ended(ended),
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, peer)) => match places.take(&Arc::new(CountedAs::address(peer.ip())), 1) {
                        Some(place) => {
                            connections.spawn(serve(TokioIo::new(stream), self.sources.clone(), Arc::new(place)));
                        }
                        None => debug!(peer.addr = %peer.ip(), "connection of a supervisor closed: too many are open"),
                    },
                    Err(error) => LISTENED.failed(&error, &shutdown).await,
                },
            }
        }
        // Answers are small: who has not taken one by now is not there any more.
        connections.shutdown().await;
    }
}

async fn serve(stream: TokioIo<tokio::net::TcpStream>, sources: MonitorSources, place: Arc<Share>) {
    let service = service_fn(|request| {
        let (sources, place) = (sources.clone(), Arc::clone(&place));
        async move { Ok::<_, Infallible>(answer(&request, sources, place).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(stream, service);
    // A client that breaks off, or takes too long, is no concern of ours.
    let _ended = timeout(CONNECTION_TIMEOUT, connection).await;
}

async fn answer(request: &Request<Incoming>, sources: MonitorSources, place: Arc<Share>) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n".to_owned());
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    // A page in a browser of this machine has no business here.
    if request.headers().contains_key(ORIGIN) {
        return text(StatusCode::FORBIDDEN, "not for pages\n".to_owned());
    }
    let path = request.uri().path().to_owned();
    let made = spawn_blocking(move || made(&path, &sources, place));
    made.await.unwrap_or_else(|_| text(StatusCode::INTERNAL_SERVER_ERROR, "a defect of dcmdex\n".to_owned()))
}

/// Makes the answer for a path. The place is taken until its end, even if the client goes away.
fn made(path: &str, sources: &MonitorSources, _place: Arc<Share>) -> Response<Full<Bytes>> {
    match path {
        "/healthz" => text(StatusCode::OK, "ok\n".to_owned()),
        "/readyz" => ready(&(sources.problems)()),
        "/metrics" => {
            (sources.refresh)();
            let mut response = text(StatusCode::OK, monitoring::metrics_text());
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(monitoring::METRICS_TYPE));
            response
        }
        "/status" => match (sources.status)() {
            Ok(status) => as_json(StatusCode::OK, &status),
            Err(error) => as_json(StatusCode::SERVICE_UNAVAILABLE, &json!({ "error": error })),
        },
        _ => text(StatusCode::NOT_FOUND, "/metrics, /healthz, /readyz or /status\n".to_owned()),
    }
}

fn ready(problems: &[String]) -> Response<Full<Bytes>> {
    match problems {
        [] => text(StatusCode::OK, "ready\n".to_owned()),
        problems => text(StatusCode::SERVICE_UNAVAILABLE, problems.join("\n") + "\n"),
    }
}

fn as_json(status: StatusCode, value: &Value) -> Response<Full<Bytes>> {
    let mut response = text(status, value.to_string() + "\n");
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn text(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
