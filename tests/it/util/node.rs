//! A node of our own, in this process, on a free port.

use std::net::SocketAddr;
use std::thread;

use dcmdex::scp::{Node, Options};
use tokio::runtime::Builder;
use tokio_util::sync::CancellationToken;

/// A running node on 127.0.0.1. Stopped when dropped.
#[derive(Debug)]
pub(crate) struct TestNode {
    address: SocketAddr,
    shutdown: CancellationToken,
    thread: Option<thread::JoinHandle<()>>,
}

impl TestNode {
    /// Called `DCMDEX`, everything else as by default.
    pub(crate) fn start() -> Self {
        Self::with(|_| {})
    }

    /// With other settings.
    pub(crate) fn with(change: impl FnOnce(&mut Options)) -> Self {
        let mut options = Options::new("DCMDEX".parse().unwrap());
        options.bind = SocketAddr::from(([127, 0, 0, 1], 0));
        change(&mut options);
        let shutdown = CancellationToken::new();
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let node = runtime.block_on(Node::bind(options)).unwrap();
        let address = node.local_addr();
        let stop = shutdown.clone();
        let thread = thread::spawn(move || runtime.block_on(node.run(stop)));
        Self { address, shutdown, thread: Some(thread) }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn port(&self) -> String {
        self.address.port().to_string()
    }

    /// Gives the order to stop, and does not wait.
    pub(crate) fn order_to_stop(&self) {
        self.shutdown.cancel();
    }

    /// Stops it as SIGTERM does, and waits until it has.
    pub(crate) fn stop(mut self) {
        self.finish();
    }

    fn finish(&mut self) {
        self.shutdown.cancel();
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(thread::panicking() || ended.is_ok(), "the node panicked");
        }
    }
}

impl Drop for TestNode {
    fn drop(&mut self) {
        self.finish();
    }
}
