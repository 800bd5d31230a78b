//! Moves removed objects to the trash while a node runs.

use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::Context as _;

use crate::config::Config;
use crate::receive::storage::Storage;
use crate::receive::trash::{self, SweptObjects};

/// Pause between two looks for removed objects. A look that finds none is one query.
const POLL: Duration = Duration::from_secs(2);

/// The thread that moves removed objects to the trash. `dcmdex remove` leaves that to the node,
/// which may receive the same instances meanwhile.
pub(super) struct Trashing {
    /// Dropping it ends the thread.
    go_on: mpsc::Sender<()>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Trashing {
    pub(super) fn start(config: &Config, storage: &Arc<Storage>) -> anyhow::Result<Self> {
        let (go_on, ended) = mpsc::channel();
        let Some(root) = storage.objects.as_ref().map(|objects| objects.root().to_owned()) else {
            return Ok(Self { go_on, thread: None });
        };
        let (index, storage) = (config.index.clone(), Arc::clone(storage));
        let work = move || {
            loop {
                let hold = |uid: &str| storage.under_way.blocking_turn(uid);
                let unsettled = storage.objects.as_deref().filter(|_| storage.journal.is_some());
                match trash::sweep(&index, (&root, unsettled), &storage.writer, hold) {
                    Ok(SweptObjects { kept: 0, deleted: 0, .. }) => {}
                    Ok(SweptObjects { kept, deleted, .. }) => {
                        tracing::info!(kept, deleted, "removed objects are in the trash, or deleted for good");
                    }
                    Err(error) => {
                        tracing::error!(%error, "removed objects are not in the trash; the next look tries again")
                    }
                }
                if !matches!(ended.recv_timeout(POLL), Err(RecvTimeoutError::Timeout)) {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("trash".into()).spawn(work);
        Ok(Self { go_on, thread: Some(thread.context("cannot start the thread for the trash")?) })
    }

    pub(super) fn stop(self) {
        drop(self.go_on);
        if self.thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("a defect of dcmdex ended the thread for the trash");
        }
    }
}
