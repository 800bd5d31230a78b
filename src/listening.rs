//! Behaviour of every listener: a pause after an accept that failed, and the end of its tasks.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinError, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_rustls::rustls::ServerConfig;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

/// Pause after an accept that failed. Smaller: a process without free file descriptors spins and
/// fills the log. Larger: peers wait longer than the fault lasts.
const PAUSE: Duration = Duration::from_millis(100);

/// Returns the current TLS settings at each handshake. So certificates are read again without a
/// restart.
pub type TlsSource = Arc<dyn Fn() -> Arc<ServerConfig> + Send + Sync>;

/// The connections of one kind, as the log calls them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Listened {
    /// One of them, such as `an HTTP connection`.
    pub(crate) one: &'static str,
    /// Several of them, such as `HTTP connections`.
    pub(crate) many: &'static str,
}

impl Listened {
    /// Handles an accept that failed. It waits, unless the fault is that of one connection that is
    /// already gone. It returns early when `shutdown` is cancelled.
    pub(crate) async fn failed(self, error: &io::Error, shutdown: &CancellationToken) {
        use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
        if matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted) {
            return;
        }
        warn!(%error, "cannot accept {}, trying again", self.one);
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = sleep(PAUSE) => {}
        }
    }

    /// Tells if the task of a connection ended by a panic.
    pub(crate) fn ended(self, ended: Result<(), JoinError>) {
        if ended.is_err_and(|error| error.is_panic()) {
            // The message of the panic went to stderr. It may hold anything, so it is not repeated
            // here.
            error!("{} ended by a defect of this program; the others go on", self.one);
        }
    }

    /// Lets the tasks finish what they are doing, and cuts off the rest after this time.
    pub(crate) async fn drain(self, tasks: &mut JoinSet<()>, limit: Duration) {
        let drain = async {
            while let Some(ended) = tasks.join_next().await {
                self.ended(ended);
            }
        };
        if timeout(limit, drain).await.is_err() {
            warn!(connections = tasks.len(), "{} cut off: not finished in time", self.many);
            tasks.shutdown().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTENED: Listened = Listened { one: "a connection", many: "connections" };

    #[tokio::test]
    async fn the_pause_ends_when_the_node_stops() {
        let (shutdown, error) = (CancellationToken::new(), io::Error::from(io::ErrorKind::OutOfMemory));
        shutdown.cancel();
        let mut failed = Box::pin(LISTENED.failed(&error, &shutdown));
        assert!(is_ready(&mut failed), "it waits although the node stops");
        let (running, gone) = (CancellationToken::new(), io::Error::from(io::ErrorKind::Interrupted));
        assert!(!is_ready(&mut Box::pin(LISTENED.failed(&error, &running))));
        assert!(is_ready(&mut Box::pin(LISTENED.failed(&gone, &running))), "one connection delays the others");
    }

    /// Whether a future is ready at once.
    fn is_ready(future: &mut std::pin::Pin<Box<impl Future<Output = ()>>>) -> bool {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        future.as_mut().poll(&mut context).is_ready()
    }

    #[tokio::test]
    async fn what_does_not_end_is_cut_off() {
        let mut tasks = JoinSet::new();
        tasks.spawn(std::future::pending::<()>());
        tasks.spawn(async {});
        LISTENED.drain(&mut tasks, Duration::ZERO).await;
        assert!(tasks.is_empty());
    }
}
