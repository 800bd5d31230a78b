//! Values of a patient, study, series or instance, as a page shows them.

use std::sync::Arc;

use super::document::readable;
use crate::model::answer_values::AnswerValues;
use crate::model::attribute::AttributeId;
use crate::model::availability::ObjectAvailability;

/// One answer of a search, by attribute.
pub(super) struct Entity {
    pub(super) keys: Arc<Vec<AttributeId>>,
    pub(super) values: AnswerValues,
}

impl Entity {
    /// The value as the index has it; empty where there is none.
    pub(super) fn text(&self, id: AttributeId) -> &str {
        let at = self.keys.iter().position(|key| *key == id);
        at.map(|at| self.values.text(at)).unwrap_or_default()
    }

    /// The value as a person reads it.
    pub(super) fn shown(&self, id: AttributeId) -> String {
        readable(self.text(id))
    }

    /// A number; 0 where the value is none.
    pub(super) fn number(&self, id: AttributeId) -> u64 {
        self.text(id).trim().parse().unwrap_or(0)
    }

    /// A person's name as people write it, with one part for each component group.
    pub(super) fn name(&self, id: AttributeId) -> String {
        let groups = self.text(id).split('=').map(|group| {
            let parts = group.split('^').map(str::trim).filter(|part| !part.is_empty());
            parts.collect::<Vec<_>>().join(" ")
        });
        readable(&groups.filter(|group| !group.is_empty()).collect::<Vec<_>>().join(" · "))
    }

    /// A date as 2024-01-31. A value that is no date is shown as it is.
    pub(super) fn date(&self, id: AttributeId) -> String {
        let text = self.text(id);
        let is_date = text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_digit());
        match (text.get(..4), text.get(4..6), text.get(6..)) {
            (Some(year), Some(month), Some(day)) if is_date => format!("{year}-{month}-{day}"),
            _ => readable(text),
        }
    }

    /// Whether all its objects are at hand.
    pub(super) fn is_at_hand(&self) -> bool {
        self.text(AttributeId::InstanceAvailability) == ObjectAvailability::Online.as_str()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entity(id: AttributeId, value: &str) -> Entity {
        Entity { keys: Arc::new(vec![id]), values: [value].into_iter().collect() }
    }

    #[test]
    fn names_are_written_as_people_write_them() {
        let name = |text: &str| entity(AttributeId::PatientName, text).name(AttributeId::PatientName);
        assert_eq!(name("Yamada^Tarou=山田^太郎=やまだ^たろう"), "Yamada Tarou · 山田 太郎 · やまだ たろう");
        assert_eq!(name("Doe^^^Dr."), "Doe Dr.");
        assert_eq!(name("^="), "");
    }

    #[test]
    fn dates_are_written_with_hyphens_and_anything_else_as_it_is() {
        let date = |text: &str| entity(AttributeId::StudyDate, text).date(AttributeId::StudyDate);
        assert_eq!(date("20240131"), "2024-01-31");
        for odd in ["2024", "2024-01-31", "ä240131", "<b>24013"] {
            assert_eq!(date(odd), odd);
        }
    }
}
