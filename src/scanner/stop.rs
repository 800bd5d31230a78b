//! The request to stop a scan.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// A request to stop the scan. Any thread or signal handler can make it.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// The flag itself, for a signal handler to set.
    #[must_use]
    pub fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0)
    }

    /// Requests a stop. Readers finish the current file and hand over its result. They start no
    /// other.
    pub fn ask(&self) {
        self.0.store(true, Relaxed);
    }

    /// Whether somebody requested a stop.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        self.0.load(Relaxed)
    }
}
