//! Lower priority of background threads, so that they do not slow down those that answer peers.

/// Nice increment of background threads. Beside a busy thread it gets a tenth of a processor, and
/// on an idle machine all of it.
const NICE: i32 = 10;

/// Gives the calling thread, and the threads that it starts, less of a busy processor.
///
/// A thread has a nice value of its own on Linux only. Elsewhere the value is that of the whole
/// process, and nothing happens.
pub(super) fn give_way() {
    if cfg!(target_os = "linux")
        && let Err(error) = rustix::process::nice(NICE)
    {
        tracing::warn!(%error, "a thread in the background cannot have a lower priority");
    }
}
