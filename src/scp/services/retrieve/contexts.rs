//! The presentation contexts of an association in which objects are sent.

use std::collections::{BTreeMap, HashMap};

use crate::deliver::error::DeliverError;
use crate::deliver::framing::ObjectForm;
use crate::encoding::syntax::NativeSyntax;
use crate::qr::{Instances, ObjectKind};
use crate::scp::negotiation::{Agreement, PresentationContext};

/// The presentation contexts in which objects may be sent, by SOP Class.
#[derive(Clone, Debug, Default)]
pub(super) struct OutgoingContexts(HashMap<String, Vec<(u8, String)>>);

impl OutgoingContexts {
    /// Returns the contexts of an association in which the requestor is the SCP.
    pub(super) fn of_acceptor(agreement: &Agreement) -> Self {
        let is_returned = |context: &PresentationContext| agreement.requestor_is_scp.contains(&context.abstract_syntax);
        let accepted = agreement.contexts.iter().filter(|(_, context)| is_returned(context));
        accepted.map(|(id, context)| (*id, &context.abstract_syntax, &context.transfer_syntax)).collect()
    }

    /// Returns the context for an object of this kind, and the transfer syntax to which the object
    /// must be rewritten.
    pub(super) fn choose(&self, kind: &ObjectKind) -> Result<ObjectForm, DeliverError> {
        let accepted = self.0.get(&kind.sop_class_uid).ok_or(DeliverError::NotAccepted)?;
        let find = |uid: &str| accepted.iter().find(|(_, transfer_syntax)| transfer_syntax == uid).map(|(id, _)| *id);
        if let Some(id) = find(&kind.transfer_syntax) {
            return Ok(ObjectForm { context_id: id, rewrite: None });
        }
        // Pixel data are never transcoded.
        NativeSyntax::of_uid(&kind.transfer_syntax).ok_or(DeliverError::NotAccepted)?;
        NativeSyntax::TARGETS
            .into_iter()
            .find_map(|target| find(target.uid()).map(|context_id| ObjectForm { context_id, rewrite: Some(target) }))
            .ok_or(DeliverError::NotAccepted)
    }
}

impl<'a> FromIterator<(u8, &'a String, &'a String)> for OutgoingContexts {
    fn from_iter<I: IntoIterator<Item = (u8, &'a String, &'a String)>>(contexts: I) -> Self {
        let mut by_class: HashMap<String, Vec<(u8, String)>> = HashMap::new();
        for (id, abstract_syntax, transfer_syntax) in contexts {
            by_class.entry(abstract_syntax.clone()).or_default().push((id, transfer_syntax.clone()));
        }
        Self(by_class)
    }
}

/// Returns the kinds of objects in a list of instances, each with the number of instances.
pub(super) fn kinds(instances: &Instances) -> BTreeMap<&ObjectKind, usize> {
    let mut kinds = BTreeMap::new();
    for instance in instances.iter_from(0) {
        *kinds.entry(instance.kind).or_default() += 1;
    }
    kinds
}
