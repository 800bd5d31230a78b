//! Web servers that take events: one POST for each (RFC 9110), signed as "Standard Webhooks" has
//! it.

use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use super::delivery_failure::DeliveryFailure;
use super::error::Error;
use super::message::OutgoingEvent;
use super::receiver::{EventReceiver, WebhookTarget, WebhookUrl};
use super::signing::SigningKey;
use crate::model::clock::Clock;
use crate::ul::tls;

/// Bytes of a response that are read, so that its connection can be used again.
const RESPONSE_BYTES: usize = 64 << 10;

/// A web server that can be called.
pub(super) struct WebhookCaller {
    runtime: Runtime,
    timeout: Duration,
    link: WebhookLink,
}

/// The way to it.
struct WebhookLink {
    url: WebhookUrl,
    tls: Option<TlsConnector>,
    key: Option<SigningKey>,
    /// The connection of the last event, if it is still open.
    open: Option<SendRequest<Full<Bytes>>>,
    /// Whether there is a connection for the event under way.
    is_connected: bool,
}

impl WebhookCaller {
    /// Reads certificates and key.
    pub(super) fn new(receiver: &EventReceiver, target: &WebhookTarget) -> Result<Self, Error> {
        let (name, timeout) = (&receiver.name, receiver.timeout);
        let config = target.url.has_tls().then(|| tls::client_config(target.authorities.as_deref(), None)).transpose();
        let tls = config.map_err(|source| Error::Certificates { receiver: name.clone(), source })?;
        let key = target.secret.as_deref().map(SigningKey::read).transpose();
        let key = key.map_err(|source| Error::Key { receiver: name.clone(), source })?;
        // The thread of the receiver drives it, so a receiver needs no further one.
        let runtime = Builder::new_current_thread().enable_all().build().map_err(Error::Thread)?;
        let tls = tls.map(TlsConnector::from);
        let link = WebhookLink { url: target.url.clone(), tls, key, open: None, is_connected: false };
        Ok(Self { runtime, timeout, link })
    }

    /// Posts an event.
    pub(super) fn deliver(&mut self, event: &OutgoingEvent) -> Result<(), DeliveryFailure> {
        let Self { runtime, timeout: limit, link } = self;
        link.is_connected = false;
        let done = runtime.block_on(async { timeout(*limit, link.post(event)).await });
        done.unwrap_or_else(|_elapsed| {
            link.open = None;
            let text = format!("no answer in {limit:?}");
            Err(if link.is_connected { DeliveryFailure::Silent(text) } else { DeliveryFailure::Unreachable(text) })
        })
    }
}

impl WebhookLink {
    async fn post(&mut self, event: &OutgoingEvent) -> Result<(), DeliveryFailure> {
        let ready = match self.open.take() {
            Some(mut open) => open.ready().await.is_ok().then_some(open),
            None => None,
        };
        let was_open = ready.is_some();
        let mut sender = match ready {
            Some(open) => open,
            None => self.connect().await?,
        };
        self.is_connected = true;
        let response = match sender.send_request(self.request(event)?).await {
            // The server may have closed a connection that stood idle.
            Err(_closed) if was_open => {
                self.is_connected = false;
                sender = self.connect().await?;
                self.is_connected = true;
                sender.send_request(self.request(event)?).await
            }
            sent => sent,
        };
        let response = response.map_err(|error| DeliveryFailure::Silent(format!("no answer: {error}")))?;
        let status = response.status();
        if is_read_to_its_end(response).await {
            self.open = Some(sender);
        }
        match status.is_success() {
            true => Ok(()),
            false => Err(DeliveryFailure::Refused(format!("HTTP status {}", status.as_u16()))),
        }
    }

    fn request(&self, event: &OutgoingEvent) -> Result<Request<Full<Bytes>>, DeliveryFailure> {
        let seconds = Clock::System.now_ms().div_euclid(1000);
        let mut request = Request::post(self.url.path())
            .header(HOST, self.url.authority())
            .header(USER_AGENT, concat!("dcmdex/", env!("CARGO_PKG_VERSION")))
            .header(CONTENT_TYPE, "application/json")
            .header("webhook-id", &event.id)
            .header("webhook-timestamp", seconds);
        if let Some(key) = &self.key {
            request = request.header("webhook-signature", key.signature(&event.id, seconds, &event.body));
        }
        let body = Full::new(Bytes::copy_from_slice(&event.body));
        request.body(body).map_err(|error| DeliveryFailure::Refused(error.to_string()))
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, DeliveryFailure> {
        let cannot = |error: std::io::Error| DeliveryFailure::Unreachable(error.to_string());
        let stream = TcpStream::connect((self.url.host(), self.url.port())).await.map_err(cannot)?;
        stream.set_nodelay(true).map_err(cannot)?;
        let Some(tls) = &self.tls else { return speak(stream).await };
        let name = ServerName::try_from(self.url.host().to_owned());
        let name = name.map_err(|error| DeliveryFailure::Unreachable(error.to_string()))?;
        speak(tls.connect(name, stream).await.map_err(cannot)?).await
    }
}

async fn speak(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> Result<SendRequest<Full<Bytes>>, DeliveryFailure> {
    let (sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| DeliveryFailure::Unreachable(error.to_string()))?;
    // It ends with the connection. An error shows in the request under way.
    tokio::spawn(async move {
        let _ended = connection.await;
    });
    Ok(sender)
}

async fn is_read_to_its_end(response: Response<Incoming>) -> bool {
    let mut body = response.into_body();
    let mut read = 0;
    loop {
        match body.frame().await {
            None => return true,
            Some(Ok(frame)) => read += frame.data_ref().map_or(0, Bytes::len),
            Some(Err(_)) => return false,
        }
        if read > RESPONSE_BYTES {
            return false;
        }
    }
}
