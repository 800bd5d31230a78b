//! What readers and the reading of archives are set up with.

use std::sync::Arc;

use super::known_members::KnownMembers;
use super::throttle::Throttle;
use super::{Probe, Stop};
use crate::ingest::Wanted;

/// The settings of one scan that reading a file needs.
#[derive(Clone, Debug)]
pub(super) struct ReadSettings {
    pub(super) stop: Stop,
    /// Whether files are read that the index knows as they are.
    pub(super) full: bool,
    pub(super) throttle: Arc<Throttle>,
    pub(super) probe: Probe,
    pub(super) members: Arc<KnownMembers>,
    pub(super) wanted: &'static Wanted,
}
