//! Hints for a query that nothing matched.

use dicom_core::VR;

use crate::encoding::vr;
use crate::model::attribute::LetterCase;
use crate::model::datetime;

/// A key that narrowed a query.
pub(in crate::cli) struct MatchedKey {
    pub(in crate::cli) name: String,
    pub(in crate::cli) vr: VR,
    pub(in crate::cli) letter_case: LetterCase,
    pub(in crate::cli) value: String,
}

/// Returns the first hint that fits a query without answers. It never shows a value.
pub(in crate::cli) fn for_nothing(matched: &[MatchedKey]) -> Option<String> {
    // Two quotation marks ask for what has no value.
    let matched = || matched.iter().filter(|key| key.value != "\"\"");
    matched().find_map(of_form).or_else(|| matched().find_map(of_case)).or_else(|| matched().find_map(of_rest))
}

/// The value has a form that no value of the attribute has.
fn of_form(key: &MatchedKey) -> Option<String> {
    let MatchedKey { name, vr, value, .. } = key;
    let values = || value.split('\\').map(str::trim).filter(|value| !value.is_empty());
    let is_number = |value: &str| value.parse::<f64>().is_ok();
    match vr {
        VR::CS | VR::UI | VR::IS | VR::DS if value.contains(',') => Some(format!(
            "several values have a backslash between them: '{name}=A\\B' (in quotation marks for the shell)"
        )),
        VR::DA if values().any(|value| !is_range(value) && datetime::days(value.trim_end_matches('*')).is_none()) => {
            Some(format!("{name} is a date: write 2004-01-31, 2004-01, 2004, 2004-01-01..2004-06-30 or today-7d"))
        }
        VR::TM if values().any(|value| !is_range(value) && datetime::times(value.trim_end_matches('*')).is_none()) => {
            Some(format!("{name} is a time: write 10, 10:30, 103015 or 10:00..12:30"))
        }
        VR::UI if value.contains(['*', '?']) => {
            Some(format!("{name} has no wild cards: write whole UIDs, several with a backslash between them"))
        }
        VR::UI if values().any(|value| !value.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')) => {
            Some(format!("{name} is a UID: write digits with full stops between, such as 1.2.840.10008.5.1.4.1.1.2"))
        }
        VR::AS if value.contains(['-', '<', '>']) || value.contains("..") => {
            Some(format!("{name} has no ranges: write an age as it is kept, such as 045Y"))
        }
        vr if vr::is_number(*vr) && !values().all(is_number) => {
            Some(format!("{name} is a number and has no ranges or wild cards: write one number, such as {name}=3"))
        }
        _ => None,
    }
}

/// The case of the value is not that of most values.
fn of_case(key: &MatchedKey) -> Option<String> {
    let has_lower_case = key.value.chars().any(char::is_lowercase);
    (key.vr == VR::CS && has_lower_case)
        .then(|| format!("{} is a code, and codes are compared with their case: write it in capitals", key.name))
}

fn of_rest(key: &MatchedKey) -> Option<String> {
    let MatchedKey { name, vr, letter_case, value } = key;
    let has_wild_card = value.contains(['*', '?']);
    match vr {
        VR::PN if !has_wild_card => Some(format!("{name}=NAME* finds names that begin so, and {name}=*NAME* any part")),
        VR::LO | VR::SH if *letter_case == LetterCase::Sensitive && value.chars().any(char::is_alphabetic) => {
            Some(format!("{name} is compared with its case, and as a whole unless it has a `*`"))
        }
        VR::LO | VR::SH | VR::LT | VR::ST | VR::UT | VR::UC if !has_wild_card => {
            Some(format!("{name} is compared as a whole; '{name}=*WORD*' finds a part of it"))
        }
        _ => None,
    }
}

fn is_range(value: &str) -> bool {
    value.contains('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hint(name: &str, vr: VR, value: &str) -> String {
        let key = MatchedKey { name: name.to_owned(), vr, letter_case: LetterCase::Sensitive, value: value.to_owned() };
        for_nothing(&[key]).unwrap_or_default()
    }

    #[test]
    fn a_hint_fits_what_was_probably_meant() {
        for (name, vr, value, said) in [
            ("StudyDate", VR::DA, "gestern", "is a date"),
            ("StudyDate", VR::DA, "20241301", "is a date"),
            ("StudyTime", VR::TM, "noon", "is a time"),
            ("PatientAge", VR::AS, "030Y-060Y", "no ranges"),
            ("ModalitiesInStudy", VR::CS, "CT,MR", r"ModalitiesInStudy=A\B"),
            ("ModalitiesInStudy", VR::CS, "ct", "in capitals"),
            ("StudyInstanceUID", VR::UI, "1.2*", "no wild cards"),
            ("SOPClassUID", VR::UI, "CT", "is a UID"),
            ("SOPInstanceUID", VR::UI, "1.2,1.3", r"SOPInstanceUID=A\B"),
            ("MagneticFieldStrength", VR::DS, "1-3", "no ranges"),
            ("PatientName", VR::PN, "MILLER", "NAME*"),
            ("PatientID", VR::LO, "a1", "with its case"),
        ] {
            let hint = hint(name, vr, value);
            assert!(hint.contains(said) && !hint.contains(value), "{name}={value}: {hint}");
        }
    }

    #[test]
    fn a_sound_value_needs_no_hint() {
        for (vr, value) in [
            (VR::DA, "20240131"),
            (VR::DA, "2024-2025"),
            (VR::DA, "2024*"),
            (VR::TM, "10-12"),
            (VR::CS, r"CT\MR"),
            (VR::UI, "1.2.3"),
            (VR::IS, r"1\02"),
            (VR::LO, "471*"),
            (VR::SH, "\"\""),
        ] {
            assert_eq!(hint("X", vr, value), "", "{value}");
        }
    }
}
