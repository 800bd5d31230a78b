-- From schema version 1 to version 2. Append only: a released step is never edited.
--
-- The views name tables and columns that are renamed here. The program makes them anew after this step.
DROP VIEW instances;
DROP VIEW series;
DROP VIEW studies;
DROP VIEW patients;

ALTER TABLE said RENAME TO asserted_values;
DROP INDEX said_by_hash;
CREATE INDEX asserted_values_by_hash ON asserted_values (hash);

ALTER TABLE shelf RENAME TO instance_group;
ALTER TABLE instance_group RENAME COLUMN patient_said TO patient_values;
ALTER TABLE instance_group RENAME COLUMN study_said TO study_values;
ALTER TABLE instance_group RENAME COLUMN series_said TO series_values;
DROP INDEX shelf_by_series;
DROP INDEX shelf_by_directory;
DROP INDEX shelf_by_patient;
DROP INDEX shelf_by_patient_said;
DROP INDEX shelf_by_study_said;
DROP INDEX shelf_by_series_said;
CREATE INDEX instance_group_by_series ON instance_group (series, directory);
CREATE INDEX instance_group_by_directory ON instance_group (directory);
CREATE INDEX instance_group_by_patient ON instance_group (patient) WHERE patient IS NOT NULL;
CREATE INDEX instance_group_by_patient_values ON instance_group (patient_values) WHERE patient_values IS NOT NULL;
CREATE INDEX instance_group_by_study_values ON instance_group (study_values) WHERE study_values IS NOT NULL;
CREATE INDEX instance_group_by_series_values ON instance_group (series_values) WHERE series_values IS NOT NULL;

ALTER TABLE instance RENAME COLUMN shelf TO instance_group;
ALTER TABLE uid_lookup RENAME COLUMN shelf TO instance_group;
ALTER TABLE uid_lookup_recent RENAME COLUMN shelf TO instance_group;
ALTER TABLE uid_lookup_shared RENAME COLUMN shelf TO instance_group;
ALTER TABLE copy RENAME COLUMN shelf TO instance_group;
