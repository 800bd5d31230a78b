-- The views are the interface of the index for other programs. They are made anew with each new schema version. Some programs
-- read SQLite with an engine of their own (DuckDB), and run the text of the views with it. So the text has no GLOB and no LIKE,
-- and only functions and operators that both engines know.

-- One row for each patient: where studies say different things of one, the row of what says most.
CREATE VIEW patients AS
WITH ranked AS (
    SELECT p.*, row_number() OVER (PARTITION BY p.person ORDER BY {completeness} DESC, {values}) AS place
    FROM patient p WHERE p.person IS NOT NULL
)
SELECT p.id AS patient, {columns},
       (SELECT count(*) FROM study s WHERE s.patient = p.id)
       + (SELECT count(*) FROM study_patient x WHERE x.patient = p.id) AS number_of_patient_related_studies,
       (SELECT ifnull(sum(s.series_count), 0) FROM study s WHERE s.patient = p.id)
       + (SELECT ifnull(sum(s.series_count), 0) FROM study_patient x JOIN study s ON s.id = x.study
          WHERE x.patient = p.id) AS number_of_patient_related_series,
       (SELECT ifnull(sum(s.instance_count), 0) FROM study s WHERE s.patient = p.id)
       + (SELECT ifnull(sum(s.instance_count), 0) FROM study_patient x JOIN study s ON s.id = x.study
          WHERE x.patient = p.id) AS number_of_patient_related_instances
FROM patient p WHERE p.person IS NULL
UNION ALL
SELECT p.person AS patient, {columns},
       (SELECT count(*) FROM patient q JOIN study s ON s.patient = q.id WHERE q.person = p.person)
       + (SELECT count(*) FROM patient q JOIN study_patient x ON x.patient = q.id WHERE q.person = p.person),
       (SELECT ifnull(sum(s.series_count), 0) FROM patient q JOIN study s ON s.patient = q.id WHERE q.person = p.person)
       + (SELECT ifnull(sum(s.series_count), 0) FROM patient q JOIN study_patient x ON x.patient = q.id
          JOIN study s ON s.id = x.study WHERE q.person = p.person),
       (SELECT ifnull(sum(s.instance_count), 0) FROM patient q JOIN study s ON s.patient = q.id WHERE q.person = p.person)
       + (SELECT ifnull(sum(s.instance_count), 0) FROM patient q JOIN study_patient x ON x.patient = q.id
          JOIN study s ON s.id = x.study WHERE q.person = p.person)
FROM ranked p WHERE p.place = 1;
