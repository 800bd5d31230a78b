//! What is known of records that come one after the other and share their values.

use std::rc::Rc;

use super::super::columns::{has_own_column, is_stored_above, place_in_shared, shared};
use super::rows::{File, InstanceGroup, ParentRows};
use crate::model::attribute::AttributeId;
use crate::model::declared::DeclaredSet;
use crate::model::level::QueryRetrieveLevel;
use crate::model::record::{Common, InstanceRecord};

/// Where a record went, and where those go without a look that have the same values in common with others.
pub(super) struct Run {
    pub(super) common: Common,
    pub(super) directory: i64,
    pub(super) parents: ParentRows,
    pub(super) instance_group: Rc<InstanceGroup>,
    pub(super) upper_uids_are_valid: bool,
    /// New instances that have not been counted yet.
    pub(super) instances: i64,
}

impl Run {
    pub(super) fn takes(&self, record: &InstanceRecord, file: &File<'_>) -> bool {
        self.directory == file.directory
            && record
                .common()
                .is_some_and(|(common, mut own)| common.is(&self.common) && !own.any(decides_instance_group))
    }
}

/// Whether the instance group of a record depends on this attribute.
pub(super) fn decides_instance_group(id: AttributeId) -> bool {
    matches!(id, AttributeId::SOPClassUID | AttributeId::AvailableTransferSyntaxUID) || is_stored_above(id)
}

/// What is known of the diffs of records that share their values: of thirty values, only the few that a record has for itself
/// have to be looked at.
pub(super) struct Differences {
    pub(super) common: Common,
    pub(super) instance_group: Rc<InstanceGroup>,
    /// Places of [`shared`] at which the values in common differ from those of the instance group, ascending.
    places: Vec<usize>,
}

impl Differences {
    /// As [`diff_of`].
    pub(super) fn diff_of(
        known: &mut Option<Self>,
        record: &InstanceRecord,
        instance_group: &Rc<InstanceGroup>,
        declared: &DeclaredSet,
    ) -> Option<String> {
        let Some((common, own)) = record.common() else { return diff_of(record, instance_group, declared) };
        let is_known = |known: &Self| known.common.is(common) && Rc::ptr_eq(&known.instance_group, instance_group);
        let known = match known {
            Some(known) if is_known(known) => known,
            other => other.insert(Self {
                common: common.clone(),
                instance_group: Rc::clone(instance_group),
                places: (0..shared().len())
                    .filter(|&place| {
                        let (id, text) = (shared().get(place), instance_group.shared.get(place));
                        id.zip(text).is_some_and(|(&id, text)| common.value(id) != text && !has_own_column(id))
                    })
                    .collect(),
            }),
        };
        let mut places: Vec<usize> = own.filter(|&id| !has_own_column(id)).filter_map(place_in_shared).collect();
        if places.is_empty() {
            return diff_among(known.places.iter().copied(), record, instance_group, declared);
        }
        places.extend(&known.places);
        places.sort_unstable();
        places.dedup();
        diff_among(places.into_iter(), record, instance_group, declared)
    }
}

/// The values of a record that differ from those of its instance group, as a JSON object, where there are any.
fn diff_of(record: &InstanceRecord, instance_group: &InstanceGroup, declared: &DeclaredSet) -> Option<String> {
    diff_among(0..shared().len(), record, instance_group, declared)
}

/// As [`diff_of`], of the attributes at these places of [`shared`], which ascend.
fn diff_among(
    places: impl Iterator<Item = usize>,
    record: &InstanceRecord,
    instance_group: &InstanceGroup,
    declared: &DeclaredSet,
) -> Option<String> {
    let mut diff: Option<serde_json::Map<String, serde_json::Value>> = None;
    for place in places {
        let (Some(&id), Some(shared)) = (shared().get(place), instance_group.shared.get(place)) else { continue };
        let value = record.value(id);
        if value != shared && !has_own_column(id) {
            diff.get_or_insert_default().insert(id.attribute().column.to_owned(), value.into());
        }
    }
    if record.has_declared() {
        for unit in declared.units().iter().filter(|unit| unit.level == QueryRetrieveLevel::Image) {
            let value = record.declared(unit.number);
            let shared = instance_group.declared.get(&unit.key).and_then(serde_json::Value::as_str).unwrap_or_default();
            if value != shared {
                diff.get_or_insert_default().insert(unit.key.clone(), value.into());
            }
        }
    }
    diff.map(|diff| serde_json::Value::Object(diff).to_string())
}
