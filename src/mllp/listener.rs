//! The listener: who may send, how many connections, and the life of one.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{interval, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info};

use super::frame::{FrameLimits, MllpFrame, framed, next};
use crate::listening::{Listened, TlsSource};
use crate::model::peer::{AddressRange, CountedAs};
use crate::shares::Shares;
use crate::telemetry::log_limit::{self, LogLimit};
use crate::telemetry::metrics;
use crate::ul::certificates::{handshake_failure, is_only_closed};
use crate::worklist::{Hl7Intake, MAX_MESSAGE_LENGTH};

const LISTENED: Listened = Listened { one: "a connection for HL7", many: "connections for HL7" };

/// Bytes of the read buffer of a connection.
const BUFFER: usize = 8 * 1024;

/// Connections that each sender may have as long as there are any.
const LEAST_CONNECTIONS: usize = 1;

/// Settings of the listener.
#[derive(Clone, Debug)]
pub struct Options {
    /// Address and port. Port 0 takes a free one.
    pub bind: SocketAddr,
    /// Addresses that may send.
    pub senders: SharedSenders,
    /// Maximum number of connections.
    pub max_connections: usize,
    /// Maximum number of connections of one address.
    pub max_connections_of_one: usize,
    /// Time between two messages. Senders keep their connection for days, and are silent at night.
    pub idle_timeout: Duration,
    /// Time for a whole message.
    pub read_timeout: Duration,
    /// Time for the sender to take an acknowledgment.
    pub write_timeout: Duration,
    /// Time for messages in flight after the order to stop.
    pub drain_timeout: Duration,
}

/// Addresses that may send. If the list is empty, everybody who reaches the port may.
#[derive(Clone, Debug, Default)]
pub struct SharedSenders(Arc<ArcSwap<Vec<AddressRange>>>);

impl From<Vec<AddressRange>> for SharedSenders {
    fn from(senders: Vec<AddressRange>) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(senders)))
    }
}

impl SharedSenders {
    /// Replaces them, for the connections to come.
    pub fn replace(&self, senders: Vec<AddressRange>) {
        self.0.store(Arc::new(senders));
    }

    fn admit(&self, address: IpAddr) -> bool {
        let senders = self.0.load();
        senders.is_empty() || senders.iter().any(|range| range.contains(address))
    }
}

/// The port cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen for HL7 messages on {address}")]
pub struct Error {
    address: SocketAddr,
    source: io::Error,
}

/// A listener for HL7 messages.
pub struct MllpListener {
    listener: TcpListener,
    address: SocketAddr,
    options: Arc<Options>,
    intake: Arc<Hl7Intake>,
    tls: Option<TlsSource>,
    connections: Arc<Shares>,
    refusals: Arc<LogLimit>,
}

impl std::fmt::Debug for MllpListener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MllpListener").field("address", &self.address).finish_non_exhaustive()
    }
}

impl MllpListener {
    /// Opens the port. With TLS, senders must use it.
    ///
    /// # Errors
    /// Fails if the port cannot be had.
    pub async fn bind(options: Options, intake: Arc<Hl7Intake>, tls: Option<TlsSource>) -> Result<Self, Error> {
        let failed = |source| Error { address: options.bind, source };
        let listener = TcpListener::bind(options.bind).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let connections = Shares::new(options.max_connections, LEAST_CONNECTIONS, &metrics::HL7_CONNECTIONS_REFUSED);
        let (options, refusals) = (Arc::new(options), Arc::default());
        Ok(Self { listener, address, options, intake, tls, connections, refusals })
    }

    /// Returns address and port.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Takes messages until it is told to stop. Then it finishes those in flight.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut tasks = JoinSet::new();
        let mut log = interval(log_limit::PERIOD);
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                _ = log.tick() => self.refusals.tell(),
                Some(ended) = tasks.join_next(), if !tasks.is_empty() => LISTENED.ended(ended),
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, peer)) => self.begin(stream, peer.ip().to_canonical(), &mut tasks, &shutdown),
                    Err(error) => LISTENED.failed(&error, &shutdown).await,
                },
            }
        }
        let Self { listener, options, refusals, .. } = self;
        drop(listener);
        LISTENED.drain(&mut tasks, options.drain_timeout).await;
        refusals.tell_all();
    }

    fn begin(&self, stream: TcpStream, address: IpAddr, tasks: &mut JoinSet<()>, shutdown: &CancellationToken) {
        let options = &self.options;
        if !options.senders.admit(address) {
            metrics::HL7_CONNECTIONS_REFUSED.increment();
            if self.refusals.allows(address, "the address is not one of `worklist.hl7_senders`") {
                info!(peer.addr = %address, "connection for HL7 refused: the address is not one of `worklist.hl7_senders`");
            }
            return;
        }
        let peer = Arc::new(CountedAs::address(address));
        let Some(place) = self.connections.take_below(&peer, 1, options.max_connections_of_one) else {
            debug!(peer.addr = %address, "connection for HL7 refused: too many are open");
            return;
        };
        let (options, intake, tls) = (Arc::clone(options), Arc::clone(&self.intake), self.tls.clone());
        let (shutdown, refusals) = (shutdown.clone(), Arc::clone(&self.refusals));
        tasks.spawn(async move {
            let _ = stream.set_nodelay(true);
            let ended = match tls {
                None => serve(stream, address, &options, &intake, &shutdown).await,
                Some(tls) => match timeout(options.read_timeout, TlsAcceptor::from(tls()).accept(stream)).await {
                    Ok(Ok(stream)) => serve(stream, address, &options, &intake, &shutdown).await,
                    Ok(Err(error)) if is_only_closed(&error) => Err(error),
                    Ok(Err(error)) => {
                        if refusals.allows(address, "TLS handshake failed") {
                            let why = handshake_failure(&error);
                            info!(peer.addr = %address, "no HL7 messages: TLS handshake failed: {why}");
                        }
                        Ok(())
                    }
                    Err(_) => Err(io::ErrorKind::TimedOut.into()),
                },
            };
            if let Err(error) = ended {
                debug!(peer.addr = %address, %error, "a connection for HL7 was lost");
            }
            drop(place);
        });
    }
}

/// Takes one message after the other.
async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    address: IpAddr,
    options: &Options,
    intake: &Arc<Hl7Intake>,
    shutdown: &CancellationToken,
) -> io::Result<()> {
    let (reader, mut writer) = tokio::io::split(stream);
    let mut reader = BufReader::with_capacity(BUFFER, reader);
    let limits = FrameLimits { longest: MAX_MESSAGE_LENGTH, idle: options.idle_timeout, whole: options.read_timeout };
    loop {
        let frame = tokio::select! {
            biased;
            // A message that has begun is lost to this, and the sender has no acknowledgment of it.
            () = shutdown.cancelled() => return Ok(()),
            frame = next(&mut reader, limits) => frame?,
        };
        let sender = address.to_string();
        match frame {
            MllpFrame::Over => return Ok(()),
            MllpFrame::Bad(reason) => {
                let intake = Arc::clone(intake);
                let _ = spawn_blocking(move || intake.refuse_unfinished(reason, &sender)).await;
                return Ok(());
            }
            MllpFrame::Message(message) => {
                let intake = Arc::clone(intake);
                let taken = spawn_blocking(move || intake.take(&message, &sender)).await;
                let Ok(acknowledgment) = taken else {
                    error!("a defect of this program ended the intake of an HL7 message");
                    return Ok(());
                };
                let bytes = framed(&acknowledgment.bytes);
                let sent = timeout(options.write_timeout, async {
                    writer.write_all(&bytes).await?;
                    writer.flush().await
                });
                sent.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
            }
        }
    }
}
