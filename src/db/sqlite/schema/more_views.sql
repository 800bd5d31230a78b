-- Views for people. Each joins what a question usually needs. They read the tables and the views before them. They need no
-- schema version of their own, because a writer makes those that an index lacks. They have no GLOB and no LIKE (see
-- patients_view.sql).

-- One row for each SOP Instance, with its file and what is known above it.
CREATE VIEW IF NOT EXISTS files AS
SELECT i.path, i.size, i.mtime, p.patient_id, p.patient_name, p.patient_birth_date, p.patient_sex, s.study_date, s.study_time,
       s.accession_number, s.study_description, s.patient_age, e.modality, e.series_number, e.series_description,
       e.body_part_examined, e.protocol_name, e.station_name, e.institution_name, e.manufacturer, e.manufacturer_model_name,
       i.instance_number, i.image_type, i.acquisition_date, i.acquisition_time, i."rows", i."columns", i.number_of_frames,
       i.sop_class_uid, i.available_transfer_syntax_uid, i.study_instance_uid, i.series_instance_uid, i.sop_instance_uid,
       i.declared, i.checksum, i.received_ms, i.changed_ms, i.change, i.arrival, i.sender, i.sender_address, i.scan,
       i.study, i.series
FROM instances i
JOIN study_series e ON e.id = i.series
JOIN study s ON s.id = i.study
JOIN patient p ON p.id = s.patient;

-- One row for each further file of an instance.
CREATE VIEW IF NOT EXISTS copies AS
SELECT d.path || CASE WHEN d.place = 3 THEN '!/' WHEN d.path = '/' THEN '' ELSE '/' END || c.file_name AS path,
       c.size, c.mtime_ms / 1000.0 AS mtime, c.differs,
       s.study_instance_uid, e.series_instance_uid, {uid} AS sop_instance_uid
FROM copy c
JOIN directory d ON d.id = c.directory
JOIN instance_group h ON h.id = c.instance_group
JOIN study_series e ON e.id = h.series
JOIN study s ON s.id = e.study
WHERE d.place <> 2;

-- One row for each file that could not be read.
CREATE VIEW IF NOT EXISTS failed_files AS
SELECT CASE WHEN f.file_name = '' THEN d.path
           ELSE d.path || CASE WHEN d.place = 3 THEN '!/' WHEN d.path = '/' THEN '' ELSE '/' END || f.file_name END AS path,
       f.size, f.mtime_ms / 1000.0 AS mtime, f.reason, f.detail
FROM unindexed_file f
JOIN directory d ON d.id = f.directory
WHERE f.kind = 'failed';

-- One row for each contradiction in the archive. UIDs and path are empty where the contradiction is not about one.
CREATE VIEW IF NOT EXISTS conflicts AS
SELECT 'instance-with-other-content' AS kind, '' AS patient_id, c.study_instance_uid, c.series_instance_uid,
       c.sop_instance_uid, c.path
FROM copies c WHERE c.differs <> 0
UNION ALL
SELECT c.kind, '', c.study_instance_uid, c.series_instance_uid, c.sop_instance_uid,
       CASE WHEN d.place = 2 THEN ''
           ELSE d.path || CASE WHEN d.place = 3 THEN '!/' WHEN d.path = '/' THEN '' ELSE '/' END || c.file_name END
FROM conflict c JOIN directory d ON d.id = c.directory
UNION ALL
SELECT 'series-under-two-studies', '', s.study_instance_uid, e.series_instance_uid, '', ''
FROM study_series e JOIN study s ON s.id = e.study
WHERE EXISTS (SELECT 1 FROM study_series o JOIN study os ON os.id = o.study
              WHERE o.series_instance_uid = e.series_instance_uid AND os.study_instance_uid < s.study_instance_uid)
UNION ALL
SELECT 'study-under-two-patients', p.patient_id, s.study_instance_uid, '', '', ''
FROM study_patient x JOIN study s ON s.id = x.study JOIN patient p ON p.id = x.patient
UNION ALL
SELECT 'patient-id-of-two-people', t.patient_id, '', '', '', '' FROM two_people t;

-- One row for each time that a peer sent instances, or a scan found some, for an hour at most.
CREATE VIEW IF NOT EXISTS arrivals AS
SELECT r.first_ms AS received_ms, r.kind AS arrival, r.calling_ae_title AS sender, r.address AS sender_address, r.scan,
       count(DISTINCT e.study) AS number_of_studies, count(DISTINCT h.series) AS number_of_series,
       ifnull(sum(h.instance_count), 0) AS number_of_instances
FROM arrival r
LEFT JOIN instance_group h ON h.arrival = r.id
LEFT JOIN study_series e ON e.id = h.series
GROUP BY r.id, r.first_ms, r.kind, r.calling_ae_title, r.address, r.scan;

-- One row for each value of a declared attribute, by the keyword (or group and element, if it is private) of its root.
CREATE VIEW IF NOT EXISTS declared_values AS
SELECT i.study, i.series, i.sop_instance_uid, substr(v.key, 2, length(v.key) - 18) AS keyword, v.value
FROM instances i, json_each(i.declared) v
WHERE i.declared IS NOT NULL;
