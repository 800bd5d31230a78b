//! A wish to stop a scan.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// A wish to stop, which any thread or signal can express.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// The flag itself, for a signal handler to set.
    #[must_use]
    pub fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0)
    }

    /// Asks for a stop: what is being read is finished and handed over, nothing new is begun.
    pub fn ask(&self) {
        self.0.store(true, Relaxed);
    }

    /// Whether a stop was asked for.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        self.0.load(Relaxed)
    }
}
