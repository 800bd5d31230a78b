//! The presentation contexts of an association in which objects are sent.

use std::collections::{BTreeMap, HashMap};

use super::retriever::Decompression;
use crate::deliver::error::DeliverError;
use crate::deliver::framing::{ObjectForm, SentForm};
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

    /// Returns the context for an object of this kind, and what must become of the object for it.
    pub(super) fn choose(&self, kind: &ObjectKind, decompression: Decompression) -> Result<ObjectForm, DeliverError> {
        let accepted = self.0.get(&kind.sop_class_uid).ok_or(DeliverError::NotAccepted)?;
        let find = |uid: &str| accepted.iter().find(|(_, transfer_syntax)| transfer_syntax == uid).map(|(id, _)| *id);
        let stored = &kind.transfer_syntax;
        if let Some(context_id) = find(stored) {
            return Ok(ObjectForm { channel: context_id, sent: SentForm::AsStored });
        }
        let changed = match NativeSyntax::of_uid(stored) {
            Some(_) => SentForm::Rewritten,
            None if decompression.covers(stored) => SentForm::Decompressed,
            None => return Err(DeliverError::NotAccepted),
        };
        let targets = NativeSyntax::TARGETS.into_iter();
        let accepted = targets.filter_map(|target| find(target.uid()).map(|id| (id, changed(target))));
        let mut forms = accepted.map(|(context_id, sent)| ObjectForm { channel: context_id, sent });
        forms.next().ok_or(DeliverError::NotAccepted)
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
