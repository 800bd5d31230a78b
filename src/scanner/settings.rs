//! The settings of a scan that the readers of files and archives need.

use std::sync::Arc;

use super::Stop;
use super::known_members::KnownMembers;
use super::offline::{TapeCheck, TapeFiles};
use super::settling::Settling;
use super::throttle::Throttle;
use crate::ingest::Wanted;

/// The settings that a reader needs.
#[derive(Clone, Debug)]
pub(super) struct ReadSettings {
    pub(super) stop: Stop,
    /// Whether to read files again whose size and time have not changed.
    pub(super) full: bool,
    pub(super) throttle: Arc<Throttle>,
    pub(super) settling: Option<Settling>,
    pub(super) tape_files: TapeFiles,
    pub(super) tape_check: Arc<TapeCheck>,
    pub(super) members: Arc<KnownMembers>,
    pub(super) wanted: &'static Wanted,
}
