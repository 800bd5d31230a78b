//! Lines of the log about objects that are not stored, or that contradict what is kept.
//!
//! A line says who sent the object and why it is told. The SOP Instance UID stands in a line of its
//! own, at debug: UIDs lead to a patient. `dcmdex check` lists conflicts with their UIDs.

use tracing::{debug, error, info, warn};

use super::error::ReceiveError;
use super::storage::Storage;
use crate::db::ReceivedFrom;
use crate::model::uid::is_uid_shaped;
use crate::telemetry::log_limit::LogLimit;

impl Storage {
    /// Returns the counts of lines in the log about objects that were refused.
    pub(crate) fn log_limit(&self) -> &LogLimit {
        self.under_way.log_limit()
    }

    /// Logs an object that is not stored, unless the log has enough of its sender. Our own failures
    /// are told where they are met.
    pub(crate) fn log_refused(&self, sender: &ReceivedFrom, sop_instance_uid: &str, why: &str) {
        if self.may_log(sender, why) {
            info!(sender = %sender, "an object was refused: {why}");
        }
        debug!(sender = %sender, sop_instance_uid = uid(sop_instance_uid), "an object was refused: {why}");
    }

    /// Logs a failure of this node to store an object that came over HTTP, unless the log has
    /// enough of them. A full disk fails a thousand objects.
    pub(crate) fn log_failed_over_http(&self, sender: &ReceivedFrom, error: &ReceiveError) {
        if self.may_log(sender, &error.to_string()) {
            error!(%error, "an object that came over HTTP is not stored");
        }
    }

    /// Logs an object with other content than the one that is kept.
    pub(super) fn log_conflict(&self, sender: &ReceivedFrom, sop_instance_uid: &str, what: &str) {
        if self.may_log(sender, what) {
            warn!(
                sender = %sender,
                "an instance came with other content than the one that is kept; {what}; `dcmdex check` lists it"
            );
        }
        let sop_instance_uid = uid(sop_instance_uid);
        debug!(sender = %sender, sop_instance_uid, "an instance came with other content; {what}");
    }

    fn may_log(&self, sender: &ReceivedFrom, why: &str) -> bool {
        sender.address.is_none_or(|address| self.log_limit().allows(address, why))
    }
}

/// A SOP Instance UID as it may stand in the log. A text that is no UID may be anything, also a
/// name.
fn uid(text: &str) -> &str {
    if is_uid_shaped(text) { text } else { "(not a UID)" }
}
