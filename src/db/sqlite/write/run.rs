//! Records that come one after the other and share their values: what is known of one holds for the
//! next.

use std::rc::Rc;

use super::super::columns::{has_own_column, is_stored_above, place_in_shared, shared};
use super::super::sql_values::JsonTexts;
use super::rows::{File, InstanceGroup, ParentRows};
use crate::model::attribute::AttributeId;
use crate::model::declared::DeclaredSet;
use crate::model::level::QueryRetrieveLevel;
use crate::model::record::{Common, InstanceRecord};

/// The instance group of the last record. Records that share its values go there without a search.
pub(super) struct Run {
    pub(super) common: Common,
    pub(super) directory: i64,
    pub(super) parents: ParentRows,
    pub(super) instance_group: Rc<InstanceGroup>,
    pub(super) upper_uids_are_valid: bool,
    /// New instances that are not counted yet.
    pub(super) instances: i64,
}

impl Run {
    pub(super) fn takes(&self, record: &InstanceRecord, file: &File<'_>) -> bool {
        self.directory == file.directory
            && record.common().is_some_and(|(common, mut own)| {
                common.shares_memory_with(&self.common) && !own.any(decides_instance_group)
            })
    }
}

/// Whether this attribute decides to which instance group a record belongs.
pub(super) fn decides_instance_group(id: AttributeId) -> bool {
    matches!(id, AttributeId::SOPClassUID | AttributeId::AvailableTransferSyntaxUID) || is_stored_above(id)
}

/// The places at which records that share their values differ from their instance group. Of thirty
/// values, only the few that a record has for itself remain to be compared.
pub(super) struct Differences {
    pub(super) common: Common,
    pub(super) instance_group: Rc<InstanceGroup>,
    /// Places in [`shared`], ascending, at which the common values differ from those of the group.
    places: Vec<usize>,
}

impl Differences {
    /// Does what [`diff_of`] does.
    pub(super) fn diff_of(
        known: &mut Option<Self>,
        record: &InstanceRecord,
        instance_group: &Rc<InstanceGroup>,
        declared: &DeclaredSet,
    ) -> Option<String> {
        let Some((common, own)) = record.common() else { return diff_of(record, instance_group, declared) };
        let is_known =
            |known: &Self| known.common.shares_memory_with(common) && Rc::ptr_eq(&known.instance_group, instance_group);
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

/// The values of a record that differ from those of its instance group, as a JSON object, if there
/// are any.
fn diff_of(record: &InstanceRecord, instance_group: &InstanceGroup, declared: &DeclaredSet) -> Option<String> {
    diff_among(0..shared().len(), record, instance_group, declared)
}

/// Does what [`diff_of`] does for the attributes at these places of [`shared`], which ascend.
fn diff_among(
    places: impl Iterator<Item = usize>,
    record: &InstanceRecord,
    instance_group: &InstanceGroup,
    declared: &DeclaredSet,
) -> Option<String> {
    let mut diff: Option<JsonTexts> = None;
    for place in places {
        let (Some(&id), Some(shared)) = (shared().get(place), instance_group.shared.get(place)) else { continue };
        let value = record.value(id);
        if value != shared && !has_own_column(id) {
            diff.get_or_insert_default().insert(id.attribute().column, value);
        }
    }
    if record.has_declared() {
        for unit in declared.units().iter().filter(|unit| unit.level == QueryRetrieveLevel::Image) {
            let value = record.declared(unit.number);
            let shared = instance_group.declared.get(&unit.key).unwrap_or("");
            if value != shared {
                diff.get_or_insert_default().insert(&unit.key, value);
            }
        }
    }
    diff.map(JsonTexts::into_text)
}
