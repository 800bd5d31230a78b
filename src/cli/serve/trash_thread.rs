//! The thread that moves removed objects to the trash. `dcmdex remove` leaves that to the node,
//! which may receive the same instances meanwhile.

use std::sync::Arc;
use std::time::Duration;

use super::repeating::RepeatingThreads;
use crate::config::Config;
use crate::receive::storage::Storage;
use crate::receive::trash::{self, SweptObjects};

/// Pause between two looks for removed objects. A look that finds none is one query.
const POLL: Duration = Duration::from_secs(2);

/// Starts the thread, if the node keeps objects.
pub(super) fn start(threads: &mut RepeatingThreads, config: &Config, storage: &Arc<Storage>) -> anyhow::Result<()> {
    let Some(root) = storage.objects.as_ref().map(|objects| objects.root().to_owned()) else { return Ok(()) };
    let (index, storage) = (config.index.clone(), Arc::clone(storage));
    threads.start("trash", move |_| {
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
        POLL
    })
}
