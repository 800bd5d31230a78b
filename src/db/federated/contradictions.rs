//! Contradictions between files. No file can see them by itself, so they are looked for when
//! somebody asks for conflicts. What one file lists is not listed again.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::ControlFlow;
use std::path::PathBuf;

use super::federation::Federation;
use super::lookups::{EntityLookups, answers, request_for, rows};
use super::part::{DescribedPatient, FederatedPart};
use crate::db::rules::{self, NameAndBirth, ObjectContent};
use crate::db::{ConflictEntry, Error};
use crate::model::answer_values::AnswerValues;
use crate::model::attribute::{ATTRIBUTES, AttributeId, AttributeId::*};
use crate::model::find::FindRequest;
use crate::model::level::QueryRetrieveLevel::{Image, Study};
use crate::model::location::Location;
use crate::model::record::InstanceRecord;

/// Descriptions under one Patient ID that are kept for a comparison. The patients of most IDs have
/// one or two. Larger: an ID such as `0` takes longer. Smaller: more pairs of people stay unseen.
const KEPT_DESCRIPTIONS: usize = 20 * rules::COMPARED_FROM_EACH_END;

/// A description with the number of its file.
type DescribedIn = (usize, DescribedPatient);

/// A series with its rows: the file of each, and the row of its study there.
type SeriesRows = (String, Vec<(usize, i64)>);

impl<R: FederatedPart> Federation<R> {
    /// The contradictions between files, in the order of their kinds.
    pub(super) fn contradictions(&mut self) -> Result<Vec<ConflictEntry>, Error> {
        let series = self.series_of_several_files()?;
        let people = self.people_of_several_files()?;
        let listed = self.studies_under_two_patients()?;
        let mut lookups = self.lookups()?;
        let mut found = lookups.other_contents()?;
        for (uid, of_files) in series {
            lookups.add_series_under_two_studies(&uid, &of_files, &mut found)?;
        }
        lookups.add_studies_under_two_patients(&listed, &mut found)?;
        for [one, other] in people {
            lookups.add_two_people(&one, &other, &mut found)?;
        }
        Ok(found)
    }

    /// The series of which several files have a row, each with the file and the study of its rows.
    fn series_of_several_files(&mut self) -> Result<Vec<SeriesRows>, Error> {
        let mut found: Vec<SeriesRows> = Vec::new();
        let is_of_several =
            |rows: &[(usize, i64)]| rows.iter().any(|(file, _)| rows.first().is_some_and(|one| one.0 != *file));
        let ask = |part: &mut R, each: &mut dyn FnMut((String, i64)) -> ControlFlow<()>| {
            part.each_series(&mut |uid, study| each((uid, study)))
        };
        self.in_order(
            ask,
            |(uid, _)| uid.clone(),
            |file, (uid, study)| {
                match found.last_mut() {
                    Some((last, rows)) if *last == uid => rows.push((file, study)),
                    // What one file alone has is replaced.
                    Some((last, rows)) if !is_of_several(rows.as_slice()) => {
                        (*last, *rows) = (uid, vec![(file, study)])
                    }
                    Some(_) | None => found.push((uid, vec![(file, study)])),
                }
                ControlFlow::Continue(())
            },
        )?;
        found.retain(|(_, rows)| is_of_several(rows));
        Ok(found)
    }

    /// Two descriptions of each patient whose files together seem to describe two people, if no
    /// file does so alone.
    fn people_of_several_files(&mut self) -> Result<Vec<[DescribedIn; 2]>, Error> {
        let mut found = Vec::new();
        let mut same: Vec<DescribedIn> = Vec::new();
        let ask = |part: &mut R, each: &mut dyn FnMut(DescribedPatient) -> ControlFlow<()>| part.each_described(each);
        self.in_order(
            ask,
            |patient| patient.patient_id.clone(),
            |file, patient| {
                if same.first().is_some_and(|(_, one)| one.patient_id != patient.patient_id) {
                    add_people(&std::mem::take(&mut same), &mut found);
                }
                if same.len() < KEPT_DESCRIPTIONS {
                    same.push((file, patient));
                }
                ControlFlow::Continue(())
            },
        )?;
        add_people(&same, &mut found);
        Ok(found)
    }

    /// The studies that some file lists as being under two patients.
    fn studies_under_two_patients(&mut self) -> Result<BTreeSet<String>, Error> {
        let mut listed = BTreeSet::new();
        for part in &mut self.parts {
            part.conflicts(|conflict| {
                if conflict.kind == "study-under-two-patients" {
                    listed.insert(conflict.study_instance_uid);
                }
                ControlFlow::Continue(())
            })?;
        }
        Ok(listed)
    }
}

/// Finds two people among the descriptions of one Patient ID, for each issuer.
fn add_people(same: &[DescribedIn], found: &mut Vec<[DescribedIn; 2]>) {
    for mut described in rules::by_meant_issuer(same, |(_, patient)| &patient.issuer).into_values() {
        // As within one file, so that the same two are told.
        described.sort_by(|(_, one), (_, other)| one.birth_date.cmp(&other.birth_date));
        let files: BTreeSet<usize> = described.iter().map(|(file, _)| *file).collect();
        let is_listed = |file: &usize| {
            let own: Vec<_> = described.iter().copied().filter(|(of, _)| of == file).collect();
            two_people(&own).is_some()
        };
        if files.len() < 2 || files.iter().any(is_listed) {
            continue;
        }
        found.extend(two_people(&described).map(|pair| pair.map(|described| (*described).clone())));
    }
}

fn two_people<'s, 'd>(described: &'s [&'d DescribedIn]) -> Option<[&'s &'d DescribedIn; 2]> {
    rules::two_people_of(described, |(_, patient)| NameAndBirth {
        names: patient.names.clone(),
        birth_date: patient.birth_date.clone(),
    })
}

impl<R: FederatedPart> EntityLookups<'_, R> {
    /// An entry that names one object of a file with these keys.
    fn entry(&mut self, kind: &str, file: usize, keys: &[(AttributeId, &str)]) -> Result<Option<ConflictEntry>, Error> {
        let returned = [StudyInstanceUID, SeriesInstanceUID, SOPInstanceUID];
        let asked = FindRequest { limit: Some(1), wants_location: true, ..request_for(Image, keys, &returned) };
        let Some(answer) = answers(self.parts, file, &asked)?.into_iter().next() else { return Ok(None) };
        let value = |id| value_of(&asked, &answer.values, id);
        let path = |location: &Location| location.place.shown_path(&location.directory, &location.file_name);
        Ok(Some(ConflictEntry {
            kind: kind.to_owned(),
            study_instance_uid: value(StudyInstanceUID),
            other_study_instance_uid: String::new(),
            series_instance_uid: value(SeriesInstanceUID),
            sop_instance_uid: value(SOPInstanceUID),
            path: answer.location.as_deref().map_or_else(PathBuf::new, path),
        }))
    }

    /// Instances of shared studies that two files have with other content.
    fn other_contents(&mut self) -> Result<Vec<ConflictEntry>, Error> {
        let mut found = Vec::new();
        let own = ATTRIBUTES.iter().filter(|attribute| attribute.level == Image && attribute.is_stored());
        let own: Vec<AttributeId> = own.map(|attribute| attribute.id).collect();
        for study in self.shared.uids().cloned().collect::<Vec<_>>() {
            let keys = [(StudyInstanceUID, &*study)];
            let mut files: HashMap<String, usize> = HashMap::new();
            for part in 0..self.parts.len() {
                for uid in rows(self.parts, part, Image, &keys, &[SOPInstanceUID])?.into_iter().flatten() {
                    *files.entry(uid).or_default() += 1;
                }
            }
            let mut first: HashMap<String, (InstanceRecord, Location)> = HashMap::new();
            for part in 0..self.parts.len() {
                let asked = FindRequest { wants_location: true, ..request_for(Image, &keys, &own) };
                for answer in answers(self.parts, part, &asked)? {
                    let uid = value_of(&asked, &answer.values, SOPInstanceUID);
                    let Some(location) = answer.location.filter(|_| files.get(&uid) > Some(&1)) else { continue };
                    let mut record = InstanceRecord::new();
                    own.iter().for_each(|id| record.set(*id, &value_of(&asked, &answer.values, *id)));
                    let Some((other, of_other)) = first.get(&uid) else {
                        first.insert(uid, (record, *location));
                        continue;
                    };
                    let content = |record, location: &Location| ObjectContent {
                        record,
                        place: location.place,
                        size: location.size,
                        checksum: None,
                    };
                    if content(&record, &location).differs_from(&content(other, of_other)) {
                        let keys = [(StudyInstanceUID, &*study), (SOPInstanceUID, &*uid)];
                        found.extend(self.entry("instance-with-other-content", part, &keys)?);
                    }
                }
            }
        }
        Ok(found)
    }

    /// Adds the studies of a series of several files, if these are different ones. A file lists a
    /// study itself if it has the series in a study with a lower UID.
    fn add_series_under_two_studies(
        &mut self,
        series: &str,
        of_files: &[(usize, i64)],
        found: &mut Vec<ConflictEntry>,
    ) -> Result<(), Error> {
        let mut studies: BTreeMap<String, BTreeSet<usize>> = BTreeMap::new();
        for (file, row) in of_files {
            if let Some(part) = self.parts.get_mut(*file)
                && let Some(study) = part.study_at(*row)?
            {
                studies.entry(study).or_default().insert(*file);
            }
        }
        let mut seen: BTreeSet<usize> = BTreeSet::new();
        for (at, (study, files)) in studies.iter().enumerate() {
            let is_listed = files.iter().any(|file| seen.contains(file));
            seen.extend(files);
            if let Some(file) = files.first().filter(|_| at > 0 && !is_listed) {
                let keys = [(StudyInstanceUID, &**study), (SeriesInstanceUID, series)];
                found.extend(self.entry("series-under-two-studies", *file, &keys)?);
            }
        }
        Ok(())
    }

    /// Adds shared studies whose parts name different patients, if no file lists them.
    fn add_studies_under_two_patients(
        &mut self,
        listed: &BTreeSet<String>,
        found: &mut Vec<ConflictEntry>,
    ) -> Result<(), Error> {
        let patient: Vec<AttributeId> = rules::patient_attributes().collect();
        for study in self.shared.uids().filter(|study| !listed.contains(*study)).cloned().collect::<Vec<_>>() {
            let (mut files, mut told) = (Vec::new(), Vec::new());
            for part in 0..self.parts.len() {
                for description in rows(self.parts, part, Study, &[(StudyInstanceUID, &study)], &patient)? {
                    files.push(part);
                    told.push(description);
                }
            }
            for other in rules::patients_of_study(&told).iter().skip(1) {
                if let Some(file) = other.members.first().and_then(|member| files.get(*member)) {
                    found.extend(self.entry("study-under-two-patients", *file, &[(StudyInstanceUID, &study)])?);
                }
            }
        }
        Ok(())
    }

    fn add_two_people(
        &mut self,
        one: &DescribedIn,
        other: &DescribedIn,
        found: &mut Vec<ConflictEntry>,
    ) -> Result<(), Error> {
        let mut study_of = |(file, patient): &DescribedIn| match self.parts.get_mut(*file) {
            Some(part) => part.study_of_description(patient.row),
            None => Ok(None),
        };
        let (Some(first), Some(second)) = (study_of(one)?, study_of(other)?) else { return Ok(()) };
        if let Some(entry) = self.entry("patient-id-of-two-people", other.0, &[(StudyInstanceUID, &second)])? {
            found.push(ConflictEntry { other_study_instance_uid: first, ..entry });
        }
        Ok(())
    }
}

/// The value of an attribute in an answer.
fn value_of(asked: &FindRequest, values: &AnswerValues, id: AttributeId) -> String {
    let place = asked.return_keys.iter().position(|key| key.attribute == id);
    place.map(|at| values.text(at).to_owned()).unwrap_or_default()
}
