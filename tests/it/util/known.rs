//! The index entries of a node's instances.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::PathBuf;

use dcmdex::db::Search;
use dcmdex::model::attribute::AttributeId;
use dcmdex::model::find::{FindAnswer, FindRequest};
use dcmdex::model::level::{InformationModel, QueryRetrieveLevel};

use super::node::TestNode;

/// The index entry of an instance.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) class: String,
    pub(crate) transfer_syntax: String,
    /// Its first location. It is empty if no object is kept.
    pub(crate) path: PathBuf,
}

impl Known {
    /// Whether its frames are compressed.
    pub(crate) fn is_compressed(&self) -> bool {
        self.transfer_syntax.starts_with("1.2.840.10008.1.2.4") || self.transfer_syntax == "1.2.840.10008.1.2.5"
    }
}

/// Returns all instances by SOP Instance UID.
pub(crate) fn known(node: &TestNode) -> BTreeMap<String, Known> {
    let attributes = [AttributeId::SOPClassUID, AttributeId::SOPInstanceUID, AttributeId::AvailableTransferSyntaxUID];
    let question = FindRequest::new(InformationModel::PatientRoot, QueryRetrieveLevel::Image).returning(&attributes);
    let (mut reader, mut rows) = (node.reader(), Vec::new());
    let each = |answer: FindAnswer| {
        rows.push(answer.values.to_vec());
        ControlFlow::Continue(())
    };
    reader.find(&question, each).unwrap();
    rows.into_iter()
        .map(|values| {
            let [class, uid, transfer_syntax] = <[String; 3]>::try_from(values).unwrap();
            let path = reader.locations(&uid).unwrap()[0].path().unwrap_or_default();
            (uid, Known { class, transfer_syntax, path })
        })
        .collect()
}
