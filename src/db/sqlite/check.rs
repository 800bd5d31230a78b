//! Check of an index against itself.

use rusqlite::{Connection, ErrorCode};

use super::schema::WORKLIST;
use crate::db::{CheckReport, Finding};

/// Most findings of one kind that are listed. A damaged file can have millions.
const LISTED_FINDINGS: usize = 100;

/// Rules, each with a query that returns a row for each place that breaks it.
const CHECKS: &[(&str, &str)] = &[
    ("sqlite integrity", "SELECT integrity_check FROM pragma_integrity_check WHERE integrity_check <> 'ok'"),
    (
        "instances per instance_group",
        "SELECT printf('instance_group %d says %d, has %d', id, instance_count, n) FROM (SELECT h.id, h.instance_count, \
         (SELECT count(*) FROM instance i WHERE i.instance_group = h.id) AS n FROM instance_group h) WHERE n <> instance_count",
    ),
    (
        "instances per series",
        "SELECT printf('series %d says %d, has %d', id, instance_count, n) FROM (SELECT e.id, e.instance_count, \
         (SELECT ifnull(sum(h.instance_count), 0) FROM instance_group h WHERE h.series = e.id) AS n FROM study_series e) \
         WHERE n <> instance_count",
    ),
    (
        "instances per study",
        "SELECT printf('study %d says %d, has %d', id, instance_count, n) FROM (SELECT s.id, s.instance_count, \
         (SELECT ifnull(sum(e.instance_count), 0) FROM study_series e WHERE e.study = s.id) AS n FROM study s) \
         WHERE n <> instance_count",
    ),
    (
        "series per study",
        "SELECT printf('study %d says %d, has %d', id, series_count, n) FROM (SELECT s.id, s.series_count, \
         (SELECT count(*) FROM study_series e WHERE e.study = s.id) AS n FROM study s) WHERE n <> series_count",
    ),
    (
        "modalities per study",
        "SELECT printf('study %d', id) FROM study s WHERE modalities_in_study <> ifnull(dcm_each_once((SELECT group_concat(modality, '\\') \
         FROM (SELECT DISTINCT modality FROM study_series WHERE study = s.id AND modality <> '' ORDER BY modality))), '')",
    ),
    (
        "SOP classes per study",
        "SELECT printf('study %d', id) FROM study s WHERE sop_classes_in_study <> ifnull((SELECT \
         group_concat(sop_class_uid, '\\') FROM (SELECT DISTINCT h.sop_class_uid FROM study_series e JOIN instance_group h \
         ON h.series = e.id WHERE e.study = s.id AND h.sop_class_uid <> '' ORDER BY h.sop_class_uid)), '')",
    ),
    (
        "anatomic regions per study",
        "SELECT printf('study %d', id) FROM study s WHERE anatomic_regions_in_study_code_sequence <> \
         ifnull((SELECT json_group_array(json(item)) FROM (SELECT DISTINCT j.value AS item FROM study_series e, \
         json_each(iif(json_valid(e.anatomic_region_sequence), \
                 e.anatomic_region_sequence, '[]')) j WHERE e.study = s.id AND e.anatomic_region_sequence <> '' ORDER BY item) \
         HAVING count(*) > 0), '')",
    ),
    (
        "nothing empty",
        "SELECT printf('instance_group %d', id) FROM instance_group WHERE instance_count = 0 \
         UNION ALL SELECT printf('series %d', id) FROM study_series WHERE instance_count = 0 \
         UNION ALL SELECT printf('study %d', id) FROM study WHERE instance_count = 0 \
         UNION ALL SELECT printf('patient %d', id) FROM patient p WHERE NOT EXISTS (SELECT 1 FROM study WHERE patient = p.id) \
         AND NOT EXISTS (SELECT 1 FROM study_patient WHERE patient = p.id)",
    ),
    (
        "references",
        "SELECT printf('instance without instance_group %d', i.instance_group) FROM instance i WHERE NOT EXISTS \
         (SELECT 1 FROM instance_group WHERE id = i.instance_group) \
         UNION ALL SELECT printf('instance_group %d', id) FROM instance_group h WHERE NOT EXISTS (SELECT 1 FROM study_series WHERE id = h.series) \
         OR NOT EXISTS (SELECT 1 FROM directory WHERE id = h.directory) \
         UNION ALL SELECT printf('series %d', id) FROM study_series e WHERE NOT EXISTS (SELECT 1 FROM study WHERE id = e.study) \
         UNION ALL SELECT printf('study %d', id) FROM study s WHERE NOT EXISTS (SELECT 1 FROM patient WHERE id = s.patient)",
    ),
    (
        "copies",
        "SELECT printf('copy in directory %d', directory) FROM copy c WHERE NOT EXISTS \
         (SELECT 1 FROM instance i WHERE i.instance_group = c.instance_group AND i.uid_suffix = c.uid_suffix)",
    ),
    (
        "descriptions of patients",
        "SELECT printf('patient %d and %d say the same', p.id, o.id) FROM patient p JOIN patient o \
         ON o.patient_id = p.patient_id AND o.identity = p.identity AND o.issuer_of_patient_id = p.issuer_of_patient_id \
         AND o.patient_birth_date = p.patient_birth_date AND o.values_hash = p.values_hash AND o.id > p.id \
         AND o.patient_name = p.patient_name AND o.patient_comments = p.patient_comments \
         UNION ALL SELECT printf('patient %d of no person', id) FROM patient p WHERE person IS NULL AND EXISTS (SELECT 1 \
         FROM patient o WHERE o.patient_id = p.patient_id AND o.identity = p.identity AND o.id <> p.id) \
         UNION ALL SELECT printf('patient %d alone of a person', id) FROM patient p WHERE person IS NOT NULL AND NOT EXISTS \
         (SELECT 1 FROM patient o WHERE o.patient_id = p.patient_id AND o.identity = p.identity AND o.id <> p.id) \
         UNION ALL SELECT printf('patients %d and %d of one issuer and two persons', min(id), max(id)) FROM patient \
         WHERE person IS NOT NULL GROUP BY patient_id, identity, issuer_of_patient_id HAVING min(person) <> max(person) \
         UNION ALL SELECT printf('two people %d and %d', one, other) FROM two_people t WHERE NOT EXISTS (SELECT 1 FROM patient p \
         JOIN patient o ON o.person = p.person WHERE p.id = t.one AND o.id = t.other AND p.patient_id = t.patient_id)",
    ),
    (
        "words of names",
        "SELECT printf('patient %d without a word', p.id) FROM patient p, json_each(dcm_name_words(p.patient_name_norm, \
         p.patient_name_ideographic_norm, p.patient_name_phonetic_norm)) w WHERE NOT EXISTS (SELECT 1 FROM name_word n \
         JOIN patient_name_word l ON l.word = n.id AND l.patient = p.id WHERE n.word = w.value) \
         UNION ALL SELECT printf('patient %d with a word too many', l.patient) FROM patient_name_word l \
         LEFT JOIN name_word n ON n.id = l.word LEFT JOIN patient p ON p.id = l.patient WHERE n.word IS NULL OR p.id IS NULL \
         OR n.word NOT IN (SELECT value FROM json_each(dcm_name_words(p.patient_name_norm, \
         p.patient_name_ideographic_norm, p.patient_name_phonetic_norm))) \
         UNION ALL SELECT printf('word %d of nobody', id) FROM name_word n WHERE NOT EXISTS \
         (SELECT 1 FROM patient_name_word WHERE word = n.id)",
    ),
    (
        "look-up by SOP Instance UID",
        "SELECT printf('an instance of instance_group %d', i.instance_group) FROM instance_group h JOIN instance i ON i.instance_group = h.id \
         WHERE NOT EXISTS (SELECT 1 FROM uid_lookup u WHERE u.hash = dcm_uid_hash(dcm_uid(i.uid_suffix, h.uid_prefix)) \
         AND u.instance_group = i.instance_group) AND NOT EXISTS (SELECT 1 FROM uid_lookup_recent u \
         WHERE u.hash = dcm_uid_hash(dcm_uid(i.uid_suffix, h.uid_prefix)) AND u.instance_group = i.instance_group)",
    ),
];

/// Rules of the worklist. An index that never had one lacks its tables.
const WORKLIST_CHECKS: &[(&str, &str)] = &[
    (
        "worklist items",
        "SELECT printf('item %d: %s', id, iif(NOT json_valid(item), 'it is no JSON', 'it has an unknown state or source')) \
         FROM worklist_item WHERE NOT json_valid(item) OR NOT json_valid(generated) OR NOT json_valid(warnings) \
         OR state NOT BETWEEN 0 AND 4 OR source NOT BETWEEN 0 AND 2",
    ),
    (
        // A row without attributes says that an order was cancelled before it came.
        "columns of worklist items",
        "SELECT printf('item %d', id) FROM worklist_item WHERE json_valid(item) AND item <> '{}' AND ( \
         study_instance_uid IS NOT json_extract(item, '$.0020000D.Value[0]') \
         OR patient_id IS NOT json_extract(item, '$.00100020.Value[0]') \
         OR step_id IS NOT json_extract(item, '$.00400100.Value[0].00400009.Value[0]') \
         OR modality IS NOT json_extract(item, '$.00400100.Value[0].00080060.Value[0]') \
         OR start_date IS NOT json_extract(item, '$.00400100.Value[0].00400002.Value[0]'))",
    ),
    (
        "references of the worklist",
        "SELECT printf('who asked for item %d, which is not there', item) FROM worklist_asked a WHERE NOT EXISTS \
         (SELECT 1 FROM worklist_item WHERE id = a.item)",
    ),
    (
        "performed procedure steps",
        "SELECT printf('step %s', sop_instance_uid) FROM performed_step WHERE NOT json_valid(attributes) \
         OR status NOT IN ('IN PROGRESS', 'COMPLETED', 'DISCONTINUED')",
    ),
];

pub(super) fn run(connection: &Connection) -> rusqlite::Result<CheckReport> {
    let transaction = connection.unchecked_transaction()?;
    let mut report = CheckReport::default();
    let worklist = if WORKLIST.are_in(connection)? { WORKLIST_CHECKS } else { &[] };
    for &(check, sql) in CHECKS.iter().chain(worklist) {
        match run_check(connection, check, sql, &mut report) {
            // A check that meets damage cannot go on, but the others can.
            Err(error) if is_damage(&error) => {
                report.findings.push(Finding { check, detail: error.to_string() });
            }
            result => result?,
        }
    }
    transaction.finish()?;
    Ok(report)
}

fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

fn run_check(
    connection: &Connection,
    check: &'static str,
    sql: &str,
    report: &mut CheckReport,
) -> rusqlite::Result<()> {
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([])?;
    let mut found = 0;
    while let Some(row) = rows.next()? {
        report.findings.push(Finding { check, detail: row.get(0)? });
        found += 1;
        if found == LISTED_FINDINGS {
            report.findings.push(Finding { check, detail: "and more".into() });
            break;
        }
    }
    Ok(())
}
