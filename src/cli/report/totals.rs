//! Totals of a report.

use std::collections::BTreeMap;

use crate::db::{StudyProblem, StudyReport};

/// Totals of a report.
#[derive(Default)]
pub(super) struct ReportTotals {
    pub(super) studies: u64,
    pub(super) instances: u64,
    pub(super) with_problems: u64,
    /// Studies and objects of each problem.
    pub(super) by_problem: BTreeMap<StudyProblem, (u64, u64)>,
    /// Studies of each year, and those of them with problems.
    pub(super) by_year: BTreeMap<String, (u64, u64)>,
}

impl ReportTotals {
    pub(super) fn add(&mut self, study: &StudyReport) {
        self.studies += 1;
        self.instances += study.instances;
        let has_problems = !study.problems.is_empty();
        self.with_problems += u64::from(has_problems);
        for (problem, count) in &study.problems {
            let total = self.by_problem.entry(*problem).or_default();
            total.0 += 1;
            total.1 += count;
        }
        let year = study.study_date.get(..4).filter(|year| year.bytes().all(|byte| byte.is_ascii_digit()));
        let year = self.by_year.entry(year.unwrap_or("none").to_owned()).or_default();
        year.0 += 1;
        year.1 += u64::from(has_problems);
    }
}
