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

-- Texts with a backslash in attributes that are to have one value: it separates values to matching.
CREATE INDEX patient_of_several_values ON patient (patient_id)
    WHERE instr(patient_id || issuer_of_patient_id || patient_birth_date || patient_birth_time || patient_sex,
          '\');
CREATE INDEX study_of_several_values ON study (study_date)
    WHERE instr(study_date || study_time || accession_number || study_id || patient_age || admission_id, '\');
CREATE INDEX series_of_several_values ON study_series (modality)
    WHERE instr(modality || series_date || series_time || body_part_examined || laterality || patient_position
          || device_serial_number || performed_procedure_step_start_date ||
          performed_procedure_step_start_time || performed_procedure_step_id, '\');

-- Names of several values are found by any word.
INSERT INTO name_word (word, sound, other_sound) SELECT '', '', ''
    WHERE EXISTS (SELECT 1 FROM patient WHERE instr(patient_name, '\')) AND NOT EXISTS (SELECT 1 FROM name_word WHERE word = '');
DELETE FROM patient_name_word WHERE patient IN (SELECT id FROM patient WHERE instr(patient_name, '\'));
INSERT INTO patient_name_word (word, patient)
    SELECT (SELECT id FROM name_word WHERE word = ''), id FROM patient WHERE instr(patient_name, '\');
DELETE FROM name_word WHERE id NOT IN (SELECT word FROM patient_name_word);

-- Who sent what, and when; and checksums of what is received.
CREATE TABLE arrival (
    id                          INTEGER PRIMARY KEY,
    kind                        TEXT NOT NULL,
    calling_ae_title            TEXT NOT NULL DEFAULT '',
    address                     TEXT NOT NULL DEFAULT '',
    scan                        INTEGER REFERENCES scan (id),
    first_ms                    INTEGER NOT NULL
);
CREATE INDEX arrival_by_time ON arrival (first_ms);
CREATE INDEX arrival_by_sender ON arrival (calling_ae_title);
CREATE TABLE change_floor (
    id                          INTEGER PRIMARY KEY CHECK (id = 0),
    change                      INTEGER NOT NULL
);
INSERT INTO change_floor (id, change) VALUES (0, 0);
ALTER TABLE instance_group ADD COLUMN arrival INTEGER REFERENCES arrival (id);
ALTER TABLE instance_group ADD COLUMN changed_ms INTEGER;
ALTER TABLE instance_group ADD COLUMN change INTEGER NOT NULL DEFAULT 1;
ALTER TABLE instance_group ADD COLUMN change_block INTEGER NOT NULL DEFAULT 1;
CREATE INDEX instance_group_by_change_block ON instance_group (change_block);
CREATE INDEX instance_group_by_arrival ON instance_group (arrival) WHERE arrival IS NOT NULL;
ALTER TABLE instance ADD COLUMN checksum BLOB;
ALTER TABLE copy ADD COLUMN checksum BLOB;

-- A row of patient becomes what the objects of one study say together (docs/adr/0014). The program fills the new columns
-- and gives each study its row; it makes the index patient_by_id first.
DROP INDEX patient_by_id;
ALTER TABLE patient ADD COLUMN values_hash INTEGER NOT NULL DEFAULT 0;
ALTER TABLE patient ADD COLUMN person INTEGER;
CREATE INDEX patient_by_person ON patient (person) WHERE person IS NOT NULL;
CREATE TABLE two_people (
    patient_id                  TEXT NOT NULL,
    issuer_of_patient_id        TEXT NOT NULL,
    one                         INTEGER NOT NULL REFERENCES patient (id),
    other                       INTEGER NOT NULL REFERENCES patient (id),
    PRIMARY KEY (patient_id, issuer_of_patient_id)
) WITHOUT ROWID;

CREATE TABLE index_identity (
    id                          TEXT NOT NULL
);
