//! Corrections of patient identifiers: rules that an operator makes (docs/adr/0033).
//!
//! A rule replaces what objects say of their patient. It does so for a study, a series or a Patient
//! ID. The index keeps what the objects say, and leads to the patient that the rules come to. So a
//! rule can be undone at any time, and objects that come later are corrected as well.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::rules::{self, Description};
use super::types::CorrectedValues;
use crate::model::attribute::AttributeId;

/// The attributes that a rule can replace, in the order of their tags.
const CORRECTABLE: [AttributeId; 6] = [
    AttributeId::PatientName,
    AttributeId::PatientID,
    AttributeId::IssuerOfPatientID,
    AttributeId::PatientBirthDate,
    AttributeId::PatientBirthTime,
    AttributeId::PatientSex,
];

/// The keys of which a rule has at least one. The first one that it has leads to it.
const LEADING: [AttributeId; 3] =
    [AttributeId::StudyInstanceUID, AttributeId::SeriesInstanceUID, AttributeId::PatientID];

/// Values of one attribute that [`CorrectionEffect`] lists.
const LISTED_VALUES: usize = 5;

/// The reason why a rule is refused. The texts name attributes, and no values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CorrectionError {
    /// It does not say whose objects are wrong.
    #[error("a correction needs a StudyInstanceUID, a SeriesInstanceUID or a PatientID as its key")]
    NoLeadingKey,
    /// The attribute cannot be a key.
    #[error("{0} cannot be a key of a correction")]
    NotAKey(AttributeId),
    /// A rule compares whole values.
    #[error("{0} needs one whole value; `*`, `?` and `\\` are not allowed in it")]
    NotOneValue(AttributeId),
    /// Nothing is replaced.
    #[error("a correction replaces at least one value; hint: --set PatientID=VALUE")]
    NothingSet,
    /// The attribute cannot be replaced.
    #[error("{0} cannot be corrected; only the identifiers of a patient can")]
    NotCorrectable(AttributeId),
    /// The new value breaks the rules of its VR (PS3.5 6.2).
    #[error("the new {0} is not valid (PS3.5 6.2)")]
    BadValue(AttributeId),
    /// An attribute occurs twice.
    #[error("{0} is there twice")]
    Twice(AttributeId),
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Correction {
    /// Its number. 0 of a rule that is not in the index yet.
    pub number: i64,
    /// When it was made, in milliseconds since 1970 UTC.
    pub made_ms: i64,
    /// AE title of the node where it was made.
    pub system: String,
    /// Values of the objects that it corrects. An empty value stands for none.
    pub keys: Vec<(AttributeId, String)>,
    /// New values of these objects. An empty value takes the value away.
    pub values: Vec<(AttributeId, String)>,
    /// When it was undone. `None` while it holds.
    pub undone_ms: Option<i64>,
}

impl Correction {
    /// Checks a new rule.
    ///
    /// # Errors
    /// If a key or a value is not allowed.
    pub fn new(
        keys: Vec<(AttributeId, String)>,
        values: Vec<(AttributeId, String)>,
        (made_ms, system): (i64, String),
    ) -> Result<Self, CorrectionError> {
        // Without a value, a Patient ID narrows what another key leads to.
        let has_other = keys.iter().any(|(id, value)| LEADING.contains(id) && !value.is_empty());
        for (id, value) in &keys {
            let may_be_empty = !LEADING.contains(id) || *id == AttributeId::PatientID && has_other;
            if !LEADING.contains(id) && !CORRECTABLE.contains(id) {
                return Err(CorrectionError::NotAKey(*id));
            }
            if value.contains(['*', '?', '\\']) || (value.is_empty() && !may_be_empty) {
                return Err(CorrectionError::NotOneValue(*id));
            }
        }
        for (id, value) in &values {
            if !CORRECTABLE.contains(id) {
                return Err(CorrectionError::NotCorrectable(*id));
            }
            if !is_allowed(*id, value) {
                return Err(CorrectionError::BadValue(*id));
            }
        }
        for list in [&keys, &values] {
            let mut seen = BTreeSet::new();
            if let Some((id, _)) = list.iter().find(|(id, _)| !seen.insert(*id)) {
                return Err(CorrectionError::Twice(*id));
            }
        }
        let correction = Self { number: 0, made_ms, system, keys, values, undone_ms: None };
        match (correction.leading(), correction.values.is_empty()) {
            (None, _) => Err(CorrectionError::NoLeadingKey),
            (Some(_), true) => Err(CorrectionError::NothingSet),
            (Some(_), false) => Ok(correction),
        }
    }

    /// The key that leads to the rule.
    pub(super) fn leading(&self) -> Option<(AttributeId, &str)> {
        LEADING.iter().find_map(|leading| {
            let key = self.keys.iter().find(|(id, _)| id == leading);
            key.map(|(id, value)| (*id, value.as_str()))
        })
    }
}

/// Whether a value may stand in an object. It has the form of its VR and at most its length.
fn is_allowed(id: AttributeId, value: &str) -> bool {
    use dicom_core::VR;
    let vr = id.attribute().vr;
    // PS3.5 table 6.2-1. A component group of a name has the length by itself.
    let is_short = match vr {
        VR::PN => {
            let groups: Vec<&str> = value.split('=').collect();
            let fits = |group: &&str| group.chars().count() <= 64 && group.split('^').count() <= 5;
            groups.len() <= 3 && groups.iter().all(fits)
        }
        VR::CS => value.len() <= 16,
        _ => value.chars().count() <= 64,
    };
    is_short && !value.contains('\\') && value.trim() == value && rules::is_valid(vr, value)
}

/// The rules that hold, in the order in which they were made.
#[derive(Debug, Default)]
pub struct Corrections {
    rules: Vec<Correction>,
    /// Places of rules by the value of the key that leads to them.
    by_key: HashMap<String, Vec<usize>>,
}

impl Corrections {
    /// The rules of these that hold.
    #[must_use]
    pub fn new(all: Vec<Correction>) -> Self {
        let rules: Vec<Correction> = all.into_iter().filter(|rule| rule.undone_ms.is_none()).collect();
        let mut by_key: HashMap<String, Vec<usize>> = HashMap::new();
        for (at, rule) in rules.iter().enumerate() {
            if let Some((_, value)) = rule.leading() {
                by_key.entry(value.to_owned()).or_default().push(at);
            }
        }
        Self { rules, by_key }
    }

    /// Whether no rule holds.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Description of the patient in objects of this study and series with the rules, and the last
    /// rule that was applied. `None` if the description stays the same.
    ///
    /// Each rule sees what the rules before it have made.
    pub(super) fn corrected(&self, of: (&str, &str), said: &[String]) -> Option<(Description, &Correction)> {
        if self.is_empty() {
            return None;
        }
        let (mut now, mut next, mut last) = (said.to_vec(), 0, None);
        while let Some(at) = self.first_from(next, of, &now) {
            next = at + 1;
            last = self.rules.get(at);
            for (id, value) in last.map_or(&[][..], |rule| &rule.values) {
                rules::set_value(&mut now, *id, value);
            }
        }
        last.filter(|_| now != said).map(|last| (now, last))
    }

    /// The place of the first rule from `next` on that is meant for these values.
    fn first_from(&self, next: usize, (study, series): (&str, &str), said: &[String]) -> Option<usize> {
        let value = |id| match id {
            AttributeId::StudyInstanceUID => study,
            AttributeId::SeriesInstanceUID => series,
            id => rules::value_of(said, id),
        };
        let is_meant = |rule: &Correction| rule.keys.iter().all(|(id, key)| value(*id) == key);
        let first = |leading: AttributeId| {
            let places = self.by_key.get(value(leading))?;
            let places = places.get(places.partition_point(|at| *at < next)..)?;
            places.iter().copied().find(|at| self.rules.get(*at).is_some_and(is_meant))
        };
        LEADING.into_iter().filter_map(first).min()
    }

    /// Values that the rules replace in objects of this study and series. `None` if there are none.
    pub(super) fn values_for(&self, of: (&str, &str), said: &[String]) -> Option<CorrectedValues> {
        let (now, last) = self.corrected(of, said)?;
        let differs = |id: &AttributeId| rules::value_of(&now, *id) != rules::value_of(said, *id);
        let values = CORRECTABLE.into_iter().filter(differs);
        let values = values.map(|id| (id, rules::value_of(&now, id).to_owned())).collect();
        Some(CorrectedValues { values, made_ms: last.made_ms, system: last.system.clone() })
    }
}

/// A change of the rules.
#[derive(Clone, Debug)]
pub enum CorrectionChange {
    /// A new rule, or one that an index that was lost had.
    Make(Correction),
    /// A rule does not hold any more.
    Undo {
        /// The rule.
        correction: Correction,
        /// When, in milliseconds since 1970 UTC.
        undone_ms: i64,
    },
}

impl CorrectionChange {
    /// The rule.
    #[must_use]
    pub const fn correction(&self) -> &Correction {
        match self {
            Self::Make(correction) | Self::Undo { correction, .. } => correction,
        }
    }

    /// The rules with this change.
    pub(super) fn applied_to(&self, mut rules: Vec<Correction>) -> Vec<Correction> {
        match self {
            Self::Make(correction) => rules.push(correction.clone()),
            Self::Undo { correction, undone_ms } => {
                rules.iter_mut().filter(|rule| rule.number == correction.number).for_each(|rule| {
                    rule.undone_ms = Some(*undone_ms);
                });
            }
        }
        rules
    }
}

/// Effect of a change of the rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CorrectionEffect {
    /// Instances whose objects are answered otherwise.
    pub instances: u64,
    /// Their studies, with the Patient ID before.
    pub studies: BTreeMap<String, String>,
    /// The values of each attribute that changes, before and after. Of many there are some.
    pub values: BTreeMap<AttributeId, [BTreeSet<String>; 2]>,
}

impl CorrectionEffect {
    /// Adds instances of a study.
    pub(super) fn add(&mut self, study: &str, instances: u64, before: &[String], after: &[String]) {
        self.instances += instances;
        self.studies.insert(study.to_owned(), rules::value_of(before, AttributeId::PatientID).to_owned());
        for id in CORRECTABLE {
            let both = [before, after].map(|said| rules::value_of(said, id));
            if both[0] == both[1] {
                continue;
            }
            for (listed, value) in self.values.entry(id).or_default().iter_mut().zip(both) {
                if listed.len() < LISTED_VALUES {
                    listed.insert(value.to_owned());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use AttributeId::*;

    fn said(values: &[(AttributeId, &str)]) -> Description {
        let mut said = vec![String::new(); rules::patient_attributes().count()];
        values.iter().for_each(|(id, value)| rules::set_value(&mut said, *id, value));
        said
    }

    fn rule(keys: &[(AttributeId, &str)], values: &[(AttributeId, &str)]) -> Result<Correction, CorrectionError> {
        let owned = |list: &[(AttributeId, &str)]| list.iter().map(|(id, value)| (*id, (*value).to_owned())).collect();
        Correction::new(owned(keys), owned(values), (7, "DCMDEX".to_owned()))
    }

    #[test]
    fn a_rule_says_whose_objects_are_wrong_and_has_values_that_an_object_may_have() {
        let new = [(PatientID, "NEW")];
        assert!(rule(&[(PatientID, "OLD"), (IssuerOfPatientID, "")], &new).is_ok());
        assert!(rule(&[(StudyInstanceUID, "1.2"), (PatientID, "")], &new).is_ok());
        for (keys, values, error) in [
            (&[(PatientID, "O"), (StudyInstanceUID, "")][..], &new[..], CorrectionError::NotOneValue(StudyInstanceUID)),
            (&[(PatientName, "A")], &new, CorrectionError::NoLeadingKey),
            (&[(PatientID, "")], &new, CorrectionError::NotOneValue(PatientID)),
            (&[(PatientID, "O*")], &new, CorrectionError::NotOneValue(PatientID)),
            (&[(PatientID, "O"), (Modality, "CT")], &new, CorrectionError::NotAKey(Modality)),
            (&[(PatientID, "O")], &[], CorrectionError::NothingSet),
            (&[(PatientID, "O")], &[(StudyDate, "2024")], CorrectionError::NotCorrectable(StudyDate)),
            (&[(PatientID, "O")], &[(PatientBirthDate, "1.1.2000")], CorrectionError::BadValue(PatientBirthDate)),
            (&[(PatientID, "O")], &[(PatientName, "A=B=C=D")], CorrectionError::BadValue(PatientName)),
            (&[(PatientID, "O")], &[(PatientID, "A\\B")], CorrectionError::BadValue(PatientID)),
            (&[(PatientID, "O")], &[new[0], new[0]], CorrectionError::Twice(PatientID)),
        ] {
            assert_eq!(rule(keys, values), Err(error), "{keys:?} {values:?}");
        }
    }

    #[test]
    fn each_rule_sees_what_the_rules_before_it_have_made() {
        let rules = [
            rule(&[(PatientID, "A")], &[(PatientID, "B"), (PatientSex, "F")]),
            rule(&[(PatientID, "C")], &[(PatientID, "D")]),
            rule(&[(StudyInstanceUID, "1.2"), (PatientSex, "F")], &[(PatientID, "C")]),
        ];
        let corrections = Corrections::new(rules.into_iter().map(Result::unwrap).collect());
        let now = |study, of: &[(AttributeId, &str)]| {
            corrections.corrected((study, "1.2.3"), &said(of)).map(|(corrected, _)| corrected)
        };
        let both = |id| Some(said(&[(PatientID, id), (PatientSex, "F")]));
        assert_eq!(now("1.1", &[(PatientID, "A")]), both("B"), "the third rule is for another study");
        assert_eq!(now("1.2", &[(PatientID, "A")]), both("C"), "the second rule came before the third one");
        assert_eq!(now("1.2", &[(PatientID, "C")]), Some(said(&[(PatientID, "D")])));
        assert_eq!(now("1.2", &[(PatientID, "E")]), None);
    }
}
