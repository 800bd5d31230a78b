//! Description of a DIMSE service before any message: its SOP Classes, the name that grants it, and
//! its answers in negotiation.
//!
//! Negotiation and the conformance statement read only this. The service itself stands behind
//! [`DimseService`](super::services::service::DimseService).

use std::fmt;

use crate::model::sop_class::is_storage;

/// The description of one service. There is one `static` of it in the file of each service.
pub struct ServiceClass {
    /// The name by which the table of peers grants the service (`services` of `[[peer]]`).
    pub grant: &'static str,
    /// The abstract syntaxes of its presentation contexts.
    pub sop_classes: SopClasses,
    /// The grant under which objects come back in contexts of this service. The requestor is then
    /// the SCP of these SOP Classes, as for the sub-operations of a C-GET (PS3.4 C.5.3).
    pub returned_by: Option<&'static str>,
    /// Answers a SOP Class Extended Negotiation Sub-Item (PS3.7 D.3.3.5): application information
    /// in, application information out. `None` leaves the sub-item unanswered.
    pub extended_negotiation: fn(&[u8]) -> Option<Vec<u8>>,
}

/// The SOP Classes of a service.
#[derive(Clone, Copy, Debug)]
pub enum SopClasses {
    /// Exactly these. The messages have data sets that this program writes or reads.
    Listed(&'static [ListedSopClass]),
    /// Every SOP Class of the Storage Service Class, private and unknown ones included. The
    /// messages carry objects, which keep their transfer syntax.
    Storage,
}

/// A SOP Class that this node is an SCP of.
#[derive(Clone, Copy, Debug)]
pub struct ListedSopClass {
    /// Its UID.
    pub uid: &'static str,
    /// Whether this program is an SCU of it as well, in the words of the conformance statement.
    pub as_scu: &'static str,
}

impl ListedSopClass {
    /// A SOP Class that this program is no SCU of.
    pub(super) const fn scp(uid: &'static str) -> Self {
        Self { uid, as_scu: "no" }
    }
}

/// The value of [`ServiceClass::extended_negotiation`] for a service without any.
pub(super) fn no_extended_negotiation(_: &[u8]) -> Option<Vec<u8>> {
    None
}

impl ServiceClass {
    /// Whether a presentation context with this abstract syntax is one of this service.
    #[must_use]
    pub fn has(&self, abstract_syntax: &str) -> bool {
        match self.sop_classes {
            SopClasses::Listed(classes) => classes.iter().any(|class| class.uid == abstract_syntax),
            SopClasses::Storage => is_storage(abstract_syntax),
        }
    }
}

impl PartialEq for ServiceClass {
    /// Each service has one description, so its address is its identity.
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for ServiceClass {}

impl fmt::Debug for ServiceClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ServiceClass").field(&self.grant).finish()
    }
}
