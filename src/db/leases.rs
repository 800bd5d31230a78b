//! Shared scans: several processes scan parts of the same paths (docs/adr/0049).

use std::path::PathBuf;

/// What there is for a worker of a shared scan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NextUnit {
    /// It has the unit of this path now. `None` is all of the scan, after all other units. What the
    /// worker writes is refused as soon as somebody else has the unit.
    Leased(Option<PathBuf>),
    /// Others have all units that are left, or have to take them.
    Wait {
        /// Whether some are below roots that this process does not have.
        elsewhere: bool,
    },
    /// All units that are left are below roots that this process does not have, and nobody has one
    /// of them now.
    Elsewhere,
    /// Nothing is left.
    Finished,
}
