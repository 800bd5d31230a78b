//! Differences between two archives.

use super::{COMPARED, ComparedStudy};
use crate::model::person_name;

/// Kind of a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DifferenceKind {
    /// It is here and not there.
    OnlyHere,
    /// It is there and not here.
    OnlyThere,
    /// There are other numbers of series or instances.
    OtherCount,
    /// A value of the patient or the study differs.
    OtherValue,
    /// The other side did not answer completely.
    Unanswered,
}

impl DifferenceKind {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::OnlyHere, Self::OnlyThere, Self::OtherCount, Self::OtherValue, Self::Unanswered];

    /// A stable word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OnlyHere => "only-here",
            Self::OnlyThere => "only-there",
            Self::OtherCount => "other-count",
            Self::OtherValue => "other-value",
            Self::Unanswered => "unanswered",
        }
    }
}

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchiveDifference {
    /// Its kind.
    pub kind: DifferenceKind,
    /// One UID where a study differs, two where a series does, three where an instance does: Study,
    /// Series and SOP Instance UID. [`ArchiveDifference::level`] counts them.
    pub uids: Vec<String>,
    /// Keyword of the attribute that differs, or empty.
    pub attribute: &'static str,
    /// The value here.
    pub here: String,
    /// The value there.
    pub there: String,
}

impl ArchiveDifference {
    /// The level: STUDY, SERIES or IMAGE.
    #[must_use]
    pub fn level(&self) -> &'static str {
        match self.uids.len() {
            0 | 1 => "STUDY",
            2 => "SERIES",
            _ => "IMAGE",
        }
    }

    pub(super) fn only(kind: DifferenceKind, uids: &[&str], study: Option<&ComparedStudy>) -> Self {
        let text = study.map(describe).unwrap_or_default();
        let (here, there) = match kind {
            DifferenceKind::OnlyThere => (String::new(), text),
            _ => (text, String::new()),
        };
        Self { kind, uids: uids.iter().map(|uid| (*uid).to_owned()).collect(), attribute: "", here, there }
    }
}

/// Patient ID, date and number of instances of a study that one side lacks.
fn describe(study: &ComparedStudy) -> String {
    let value = |keyword| study.values.get(keyword).map_or("", String::as_str);
    let instances = study.counts[1].map(|count| format!(", {count} instances")).unwrap_or_default();
    format!("{} {}{instances}", value("PatientID"), value("StudyDate"))
}

/// The values that differ. A value that one side does not say is not compared: many peers leave
/// optional keys out. An empty value differs from any other.
#[must_use]
pub fn differing_values(uid: &str, here: &ComparedStudy, there: &ComparedStudy) -> Vec<ArchiveDifference> {
    let mut found = Vec::new();
    for keyword in COMPARED {
        let (Some(one), Some(other)) = (here.values.get(keyword), there.values.get(keyword)) else { continue };
        if normal(keyword, one) == normal(keyword, other) {
            continue;
        }
        found.push(ArchiveDifference {
            kind: DifferenceKind::OtherValue,
            uids: vec![uid.to_owned()],
            attribute: keyword,
            here: one.clone(),
            there: other.clone(),
        });
    }
    found
}

/// A value without padding and without empty components of a name.
fn normal(keyword: &str, value: &str) -> String {
    let value = value.trim();
    if keyword != "PatientName" {
        return value.to_owned();
    }
    let groups: Vec<&str> = value.split('=').map(|group| group.trim_end_matches(['^', ' '])).collect();
    person_name::fold(groups.join("=").trim_end_matches('='))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn study(values: &[(&'static str, &str)]) -> ComparedStudy {
        let values = values.iter().map(|(keyword, value)| (*keyword, (*value).to_owned())).collect();
        ComparedStudy { values, counts: [None; 2] }
    }

    #[test]
    fn only_what_means_something_else_differs() {
        let here = study(&[("PatientName", "Müller^Änne^^"), ("PatientID", "1"), ("AccessionNumber", "A")]);
        let there = study(&[("PatientName", "MÜLLER^ÄNNE"), ("PatientID", "2")]);
        let found = differing_values("1.2", &here, &there);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].attribute, found[0].here.as_str(), found[0].there.as_str()), ("PatientID", "1", "2"));
    }

    // A migration that loses values is what is looked for.
    #[test]
    fn a_value_that_one_side_has_lost_differs_and_one_that_it_does_not_say_does_not() {
        let here = study(&[("PatientID", "1"), ("AccessionNumber", "A"), ("PatientSex", "")]);
        let there = study(&[("PatientID", ""), ("PatientSex", " ")]);
        for (one, other, values) in [(&here, &there, ("1", "")), (&there, &here, ("", "1"))] {
            let found = differing_values("1.2", one, other);
            assert_eq!(found.len(), 1, "{found:?}");
            assert_eq!((found[0].attribute, (found[0].here.as_str(), found[0].there.as_str())), ("PatientID", values));
        }
    }
}
