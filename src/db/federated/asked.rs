//! The files of a federation while a question is answered.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use super::lookups::EntityLookups;

/// The files of a federation while a question is answered.
pub(super) struct FederatedFiles<'f, R> {
    pub(super) parts: &'f mut [R],
    pub(super) lookups: EntityLookups<'f, R>,
    pub(super) state: &'f AskedState,
}

/// Whether a question is being answered, and whether it must end.
#[derive(Debug, Default)]
pub(super) struct AskedState {
    pub(super) is_asked: AtomicBool,
    pub(super) is_interrupted: AtomicBool,
}

impl AskedState {
    pub(super) fn is_interrupted(&self) -> bool {
        self.is_interrupted.load(SeqCst)
    }
}
