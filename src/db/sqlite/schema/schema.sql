-- The tables of the index, schema version 2. docs/schema.md explains them. The views in views.sql are the interface for
-- other programs.
--
-- Text columns hold UTF-8, '' where the attribute is absent or empty. Their names are the keywords of PS3.6 in snake case.

-- What sets this index apart from others: one row, once a node has stored with it. The storage directory has the same id.
CREATE TABLE index_identity (
    id                          TEXT NOT NULL
);

-- What is said of patients: a row for each set of values that the objects of some study say together. A row never changes.
-- Studies whose objects say the same lead to one row.
CREATE TABLE patient (
    id                          INTEGER PRIMARY KEY,
    patient_id                  TEXT NOT NULL,
    issuer_of_patient_id        TEXT NOT NULL DEFAULT '',
    -- '' where there is a Patient ID; otherwise what keeps patients without one apart (name and birth date).
    identity                    TEXT NOT NULL DEFAULT '',
    patient_name                TEXT NOT NULL DEFAULT '',
    -- The three component groups in normal form (case, accents and width folded), for searching.
    patient_name_norm           TEXT NOT NULL DEFAULT '',
    patient_name_ideographic_norm TEXT NOT NULL DEFAULT '',
    patient_name_phonetic_norm  TEXT NOT NULL DEFAULT '',
    patient_birth_date          TEXT NOT NULL DEFAULT '',
    patient_birth_time          TEXT NOT NULL DEFAULT '',
    patient_sex                 TEXT NOT NULL DEFAULT '',
    other_patient_ids           TEXT NOT NULL DEFAULT '',
    other_patient_names         TEXT NOT NULL DEFAULT '',
    other_patient_ids_sequence  TEXT NOT NULL DEFAULT '',
    ethnic_group                TEXT NOT NULL DEFAULT '',
    patient_comments            TEXT NOT NULL DEFAULT '',
    referenced_patient_sequence TEXT NOT NULL DEFAULT '',
    -- The character set of one of the objects that the values came from.
    character_set               TEXT NOT NULL DEFAULT '',
    -- A hash of the values, by which a row is found again.
    values_hash                 INTEGER NOT NULL DEFAULT 0,
    -- NULL where no other row has the same Patient ID and identity. Otherwise a negative number that the rows of one patient
    -- have in common. Rows with the same issuer are one patient. Rows without an issuer belong to the issuer that sorts first.
    person                      INTEGER
);
CREATE INDEX patient_by_id ON patient (patient_id, identity, issuer_of_patient_id, patient_birth_date, values_hash);
CREATE INDEX patient_by_person ON patient (person) WHERE person IS NOT NULL;
CREATE INDEX patient_by_name ON patient (patient_name_norm);
CREATE INDEX patient_by_ideographic_name ON patient (patient_name_ideographic_norm)
    WHERE patient_name_ideographic_norm <> '';
CREATE INDEX patient_by_phonetic_name ON patient (patient_name_phonetic_norm)
    WHERE patient_name_phonetic_norm <> '';
-- Rows with a backslash in an attribute that is to have one value; it separates values to matching (src/db/sqlite/separated.rs).
CREATE INDEX patient_of_several_values ON patient (patient_id)
    WHERE instr(patient_id || issuer_of_patient_id || patient_birth_date || patient_birth_time || patient_sex,
          '\');

-- The distinct words of patients' names in normal form, to find names by what stands anywhere in them. A name of very many
-- or very long words, or of several values, is kept under the empty word alone, which stands for every one.
CREATE TABLE name_word (
    id                          INTEGER PRIMARY KEY,
    word                        TEXT NOT NULL,
    -- Codes of how it sounds (Double Metaphone), '' where it has none.
    sound                       TEXT NOT NULL,
    other_sound                 TEXT NOT NULL
);
CREATE UNIQUE INDEX name_word_by_word ON name_word (word);
CREATE INDEX name_word_by_sound ON name_word (sound) WHERE sound <> '';
CREATE INDEX name_word_by_other_sound ON name_word (other_sound) WHERE other_sound <> '';
CREATE TABLE patient_name_word (
    word                        INTEGER NOT NULL REFERENCES name_word (id),
    patient                     INTEGER NOT NULL REFERENCES patient (id),
    PRIMARY KEY (word, patient)
) WITHOUT ROWID;

CREATE TABLE study (
    id                          INTEGER PRIMARY KEY,
    patient                     INTEGER NOT NULL REFERENCES patient (id),
    study_instance_uid          TEXT NOT NULL,
    study_date                  TEXT NOT NULL DEFAULT '',
    study_time                  TEXT NOT NULL DEFAULT '',
    accession_number            TEXT NOT NULL DEFAULT '',
    study_id                    TEXT NOT NULL DEFAULT '',
    study_description           TEXT NOT NULL DEFAULT '',
    -- Kept exact by the writer: number of rows below, and the distinct values in them.
    series_count                INTEGER NOT NULL DEFAULT 0,
    instance_count              INTEGER NOT NULL DEFAULT 0,
    modalities_in_study         TEXT NOT NULL DEFAULT '',
    sop_classes_in_study        TEXT NOT NULL DEFAULT '',
    -- The items of anatomic_region_sequence of its series, each once.
    anatomic_regions_in_study_code_sequence TEXT NOT NULL DEFAULT '',
    referring_physician_name    TEXT NOT NULL DEFAULT '',
    physicians_of_record        TEXT NOT NULL DEFAULT '',
    name_of_physicians_reading_study TEXT NOT NULL DEFAULT '',
    admitting_diagnoses_description TEXT NOT NULL DEFAULT '',
    issuer_of_accession_number_sequence TEXT NOT NULL DEFAULT '',
    procedure_code_sequence     TEXT NOT NULL DEFAULT '',
    referenced_study_sequence   TEXT NOT NULL DEFAULT '',
    patient_age                 TEXT NOT NULL DEFAULT '',
    patient_size                TEXT NOT NULL DEFAULT '',
    patient_weight              TEXT NOT NULL DEFAULT '',
    occupation                  TEXT NOT NULL DEFAULT '',
    additional_patient_history  TEXT NOT NULL DEFAULT '',
    admission_id                TEXT NOT NULL DEFAULT '',
    other_study_numbers         TEXT NOT NULL DEFAULT '',
    requested_procedure_description TEXT NOT NULL DEFAULT '',
    study_comments              TEXT NOT NULL DEFAULT '',
    timezone_offset_from_utc    TEXT NOT NULL DEFAULT '',
    character_set               TEXT NOT NULL DEFAULT ''
);
CREATE UNIQUE INDEX study_by_uid ON study (study_instance_uid);
CREATE INDEX study_by_patient ON study (patient);
CREATE INDEX study_by_date ON study (study_date DESC, study_time DESC, patient);
CREATE INDEX study_by_accession_number ON study (accession_number);
CREATE INDEX study_of_several_values ON study (study_date)
    WHERE instr(study_date || study_time || accession_number || study_id || patient_age || admission_id, '\');

-- Patients under whom a study was found besides study.patient: a conflict, and yet an answer to who asks for them.
CREATE TABLE study_patient (
    study                       INTEGER NOT NULL REFERENCES study (id),
    patient                     INTEGER NOT NULL REFERENCES patient (id),
    PRIMARY KEY (study, patient)
) WITHOUT ROWID;
CREATE INDEX study_patient_by_patient ON study_patient (patient);

-- Patients of whom two descriptions cannot be of one person: names that share no word, and birth dates that do not agree.
CREATE TABLE two_people (
    patient_id                  TEXT NOT NULL,
    issuer_of_patient_id        TEXT NOT NULL,
    one                         INTEGER NOT NULL REFERENCES patient (id),
    other                       INTEGER NOT NULL REFERENCES patient (id),
    PRIMARY KEY (patient_id, issuer_of_patient_id)
) WITHOUT ROWID;

CREATE TABLE study_series (
    id                          INTEGER PRIMARY KEY,
    study                       INTEGER NOT NULL REFERENCES study (id),
    series_instance_uid         TEXT NOT NULL,
    modality                    TEXT NOT NULL DEFAULT '',
    series_number               TEXT NOT NULL DEFAULT '',
    series_description          TEXT NOT NULL DEFAULT '',
    instance_count              INTEGER NOT NULL DEFAULT 0,
    series_date                 TEXT NOT NULL DEFAULT '',
    series_time                 TEXT NOT NULL DEFAULT '',
    body_part_examined          TEXT NOT NULL DEFAULT '',
    anatomic_region_sequence    TEXT NOT NULL DEFAULT '',
    laterality                  TEXT NOT NULL DEFAULT '',
    patient_position            TEXT NOT NULL DEFAULT '',
    protocol_name               TEXT NOT NULL DEFAULT '',
    station_name                TEXT NOT NULL DEFAULT '',
    institution_name            TEXT NOT NULL DEFAULT '',
    institution_address         TEXT NOT NULL DEFAULT '',
    institution_code_sequence   TEXT NOT NULL DEFAULT '',
    institutional_department_name TEXT NOT NULL DEFAULT '',
    manufacturer                TEXT NOT NULL DEFAULT '',
    manufacturer_model_name     TEXT NOT NULL DEFAULT '',
    device_serial_number        TEXT NOT NULL DEFAULT '',
    software_versions           TEXT NOT NULL DEFAULT '',
    performing_physician_name   TEXT NOT NULL DEFAULT '',
    operators_name              TEXT NOT NULL DEFAULT '',
    frame_of_reference_uid      TEXT NOT NULL DEFAULT '',
    performed_procedure_step_start_date TEXT NOT NULL DEFAULT '',
    performed_procedure_step_start_time TEXT NOT NULL DEFAULT '',
    performed_procedure_step_id TEXT NOT NULL DEFAULT '',
    performed_procedure_step_description TEXT NOT NULL DEFAULT '',
    request_attributes_sequence TEXT NOT NULL DEFAULT '',
    character_set               TEXT NOT NULL DEFAULT ''
);
-- A Series Instance UID under two studies is a conflict that is kept: each study has its own row.
CREATE UNIQUE INDEX series_by_uid ON study_series (series_instance_uid, study);
CREATE INDEX series_by_study ON study_series (study);
CREATE INDEX series_of_several_values ON study_series (modality)
    WHERE instr(modality || series_date || series_time || body_part_examined || laterality || patient_position
          || device_serial_number || performed_procedure_step_start_date ||
          performed_procedure_step_start_time || performed_procedure_step_id, '\');

-- Every directory and archive file in which a file was seen.
CREATE TABLE directory (
    id                          INTEGER PRIMARY KEY,
    -- 0: somebody's archive, read in place.
    -- 1: the node's own storage.
    -- 2: metadata only, no bytes kept (path is '').
    -- 3: an archive file (zip, tar, gzip), whose members stand in the place of files, or a DICOMDIR with what it lists.
    place                       INTEGER NOT NULL,
    -- Absolute; TEXT where it is UTF-8, otherwise BLOB.
    path                        NOT NULL
);
CREATE UNIQUE INDEX directory_by_path ON directory (path, place);

-- The instances of one series that lie in one directory and have SOP class and transfer syntax in common. Here stands
-- what they share, so that a row of instance need not.
CREATE TABLE instance_group (
    id                          INTEGER PRIMARY KEY,
    series                      INTEGER NOT NULL REFERENCES study_series (id),
    directory                   INTEGER NOT NULL REFERENCES directory (id),
    sop_class_uid               TEXT NOT NULL,
    available_transfer_syntax_uid TEXT NOT NULL,
    -- The patient that these objects name, where it is not study.patient (then it is in study_patient).
    patient                     INTEGER REFERENCES patient (id),
    -- What these objects say of their patient, study and series: NULL where that is what those rows say.
    patient_values              INTEGER REFERENCES asserted_values (id),
    study_values                INTEGER REFERENCES asserted_values (id),
    series_values               INTEGER REFERENCES asserted_values (id),
    instance_count              INTEGER NOT NULL DEFAULT 0,
    -- What the SOP Instance UIDs begin with; instance.uid_suffix goes on from there.
    uid_prefix                  TEXT NOT NULL,
    -- Most file names are file_prefix, then the SOP Instance UID (file_digits is NULL) or a number padded with zeros to
    -- file_digits digits, then file_suffix.
    file_prefix                 TEXT NOT NULL,
    file_suffix                 TEXT NOT NULL,
    file_digits                 INTEGER,
    -- Milliseconds since 1970 UTC, to which instance.mtime is relative.
    mtime_base                  INTEGER NOT NULL,
    -- Bytes, to which instance.size is relative.
    size_base                   INTEGER NOT NULL,
    -- The values that hold unless instance says otherwise.
    related_general_sop_class_uid TEXT NOT NULL DEFAULT '',
    specific_character_set      TEXT NOT NULL DEFAULT '',
    image_type                  TEXT NOT NULL DEFAULT '',
    instance_creation_date      TEXT NOT NULL DEFAULT '',
    instance_creation_time      TEXT NOT NULL DEFAULT '',
    acquisition_date            TEXT NOT NULL DEFAULT '',
    acquisition_time            TEXT NOT NULL DEFAULT '',
    acquisition_date_time       TEXT NOT NULL DEFAULT '',
    acquisition_number          TEXT NOT NULL DEFAULT '',
    content_date                TEXT NOT NULL DEFAULT '',
    content_time                TEXT NOT NULL DEFAULT '',
    image_laterality            TEXT NOT NULL DEFAULT '',
    view_position               TEXT NOT NULL DEFAULT '',
    number_of_frames            TEXT NOT NULL DEFAULT '',
    "rows"                      TEXT NOT NULL DEFAULT '',
    "columns"                   TEXT NOT NULL DEFAULT '',
    bits_allocated              TEXT NOT NULL DEFAULT '',
    photometric_interpretation  TEXT NOT NULL DEFAULT '',
    alternate_representation_sequence TEXT NOT NULL DEFAULT '',
    concept_name_code_sequence  TEXT NOT NULL DEFAULT '',
    completion_flag             TEXT NOT NULL DEFAULT '',
    verification_flag           TEXT NOT NULL DEFAULT '',
    content_template_sequence   TEXT NOT NULL DEFAULT '',
    container_identifier        TEXT NOT NULL DEFAULT '',
    specimen_description_sequence TEXT NOT NULL DEFAULT '',
    -- What was declared when its instances were read; they are read again when more is (docs/adr/0013).
    declared_set                TEXT NOT NULL DEFAULT '',
    -- JSON objects of declared attributes, NULL where there are none: of patient, study and series; and of the instances,
    -- which hold unless instance says otherwise.
    declared_above              TEXT,
    declared                    TEXT,
    -- How its instances came into the index; NULL of those that were there before schema version 2.
    arrival                     INTEGER REFERENCES arrival (id),
    -- When one of its instances came or changed last, milliseconds since 1970 UTC; NULL as for arrival.
    changed_ms                  INTEGER,
    -- The number of that change: higher in each later transaction, and never used again (docs/adr/0015).
    change                      INTEGER NOT NULL DEFAULT 1,
    -- The first number of the block of 64 that the change is of. The index of changes is written when a group enters a
    -- block, and not with each change.
    change_block                INTEGER NOT NULL DEFAULT 1
);
CREATE INDEX instance_group_by_change_block ON instance_group (change_block);
CREATE INDEX instance_group_by_arrival ON instance_group (arrival) WHERE arrival IS NOT NULL;
CREATE INDEX instance_group_by_series ON instance_group (series, directory);
CREATE INDEX instance_group_by_directory ON instance_group (directory);
CREATE INDEX instance_group_by_patient ON instance_group (patient) WHERE patient IS NOT NULL;
CREATE INDEX instance_group_by_patient_values ON instance_group (patient_values) WHERE patient_values IS NOT NULL;
CREATE INDEX instance_group_by_study_values ON instance_group (study_values) WHERE study_values IS NOT NULL;
CREATE INDEX instance_group_by_series_values ON instance_group (series_values) WHERE series_values IS NOT NULL;

-- Who sent instances, or which scan found them. One row covers a source until it pauses for ten minutes, for an hour at most,
-- and within one day UTC. So the time of an arrival is known to the hour, and its day exactly.
CREATE TABLE arrival (
    id                          INTEGER PRIMARY KEY,
    -- 'c-store' or 'scan'.
    kind                        TEXT NOT NULL,
    -- Of a C-STORE: who called, and from where.
    calling_ae_title            TEXT NOT NULL DEFAULT '',
    address                     TEXT NOT NULL DEFAULT '',
    scan                        INTEGER REFERENCES scan (id),
    -- When the first instance of it came, milliseconds since 1970 UTC.
    first_ms                    INTEGER NOT NULL
);
CREATE INDEX arrival_by_time ON arrival (first_ms);
CREATE INDEX arrival_by_sender ON arrival (calling_ae_title);

-- The least number that the next change may follow. It is written when instance groups go: their numbers are not used again.
CREATE TABLE change_floor (
    id                          INTEGER PRIMARY KEY CHECK (id = 0),
    change                      INTEGER NOT NULL
);
INSERT INTO change_floor (id, change) VALUES (0, 0);

-- What objects say of their patient, study or series where the row there has another value. It has one if others of its
-- objects are more complete. With these values, the rows can follow when objects are corrected or removed.
CREATE TABLE asserted_values (
    id                          INTEGER PRIMARY KEY,
    hash                        INTEGER NOT NULL,
    -- A JSON object: column to value, without those that are empty.
    text                        TEXT NOT NULL
);
CREATE INDEX asserted_values_by_hash ON asserted_values (hash);

-- One row for each SOP Instance, at its first location.
CREATE TABLE instance (
    instance_group              INTEGER NOT NULL REFERENCES instance_group (id),
    -- BLOB: hex digits 0-9 are digits, A is '.', F is padding, a leading B says that instance_group.uid_prefix does not apply.
    -- TEXT: the whole UID, where it has other characters.
    uid_suffix                  NOT NULL,
    -- INTEGER where the text is a plain number, otherwise TEXT.
    instance_number             NOT NULL,
    -- Bytes more than instance_group.size_base.
    size                        INTEGER NOT NULL,
    -- Milliseconds after instance_group.mtime_base.
    mtime                       INTEGER NOT NULL,
    -- NULL or INTEGER: what stands between prefix and suffix, see instance_group. Otherwise the name, BLOB where it is not UTF-8.
    file_name,
    -- NULL: as in instance_group. A time is INTEGER where it has the same form HHMMSS or HHMMSS.F as that of the instance group.
    -- The number is the difference of their digits, read as one number without the point. An empty BLOB means the same
    -- difference as that of acquisition_time.
    acquisition_number,
    acquisition_time,
    content_time,
    instance_creation_time,
    -- NULL, or a JSON object: column of instance_group to the value that this instance has instead.
    diff                        TEXT,
    -- The xxh3-128 of the data set as it was received, 16 bytes; NULL of what a scan found (docs/adr/0016).
    checksum                    BLOB,
    PRIMARY KEY (instance_group, uid_suffix)
) WITHOUT ROWID;

-- From SOP Instance UID to instance group: 32 bits of a hash, to be checked against the row. New rows go into the small table,
-- which the writer moves into the large one by ranges of the hash: an entry is in either.
CREATE TABLE uid_lookup (
    hash                        INTEGER NOT NULL,
    instance_group              INTEGER NOT NULL,
    PRIMARY KEY (hash, instance_group)
) WITHOUT ROWID;
CREATE TABLE uid_lookup_recent (
    hash                        INTEGER NOT NULL,
    instance_group              INTEGER NOT NULL,
    PRIMARY KEY (hash, instance_group)
) WITHOUT ROWID;

-- Look-ups that stand for more than one instance of an instance group, whose UIDs have the same hash: they stay when one of them goes.
CREATE TABLE uid_lookup_shared (
    hash                        INTEGER NOT NULL,
    instance_group              INTEGER NOT NULL,
    PRIMARY KEY (hash, instance_group)
) WITHOUT ROWID;

-- Further locations of an instance. One that was received without its object and lies on disk has one in the directory of
-- place 2, under its SOP Instance UID.
CREATE TABLE copy (
    directory                   INTEGER NOT NULL REFERENCES directory (id),
    file_name                   NOT NULL,
    instance_group              INTEGER NOT NULL,
    uid_suffix                  NOT NULL,
    size                        INTEGER NOT NULL,
    mtime_ms                    INTEGER NOT NULL,
    -- 1: the file differs from the one at the first location.
    differs                     INTEGER NOT NULL,
    -- What this file says, where that is not what the index says of the instance: a JSON object, column to value.
    record                      TEXT,
    -- As instance.checksum.
    checksum                    BLOB,
    PRIMARY KEY (directory, file_name)
) WITHOUT ROWID;
CREATE INDEX copy_by_instance ON copy (instance_group, uid_suffix);
CREATE INDEX copy_that_differs ON copy (directory, file_name) WHERE differs;

-- Locations whose file was gone when a scan looked: kept until it is back, found elsewhere, or pruned.
CREATE TABLE missing_file (
    directory                   INTEGER NOT NULL REFERENCES directory (id),
    file_name                   NOT NULL,
    PRIMARY KEY (directory, file_name)
) WITHOUT ROWID;

-- Files that a scan saw and did not index, so that they are counted and not opened again while unchanged.
CREATE TABLE unindexed_file (
    directory                   INTEGER NOT NULL REFERENCES directory (id),
    file_name                   NOT NULL,
    size                        INTEGER NOT NULL,
    mtime_ms                    INTEGER NOT NULL,
    -- 'failed', 'skipped', 'container' (an archive file, whose members have rows of their own), or 'unlisted' (a file that
    -- a DICOMDIR does not list).
    kind                        TEXT NOT NULL,
    reason                      TEXT NOT NULL,
    detail                      TEXT NOT NULL,
    PRIMARY KEY (directory, file_name)
) WITHOUT ROWID;

-- Faults of files that were indexed all the same.
CREATE TABLE file_fault (
    directory                   INTEGER NOT NULL REFERENCES directory (id),
    file_name                   NOT NULL,
    faults                      TEXT NOT NULL,
    PRIMARY KEY (directory, file_name)
) WITHOUT ROWID;

-- Contradictions in the archive that do not show in the rows above. They are UIDs that are not valid, and received objects
-- that were refused (or taken) in place of others. A study under two patients shows in study_patient, a series under two
-- studies in study_series, other content under the same SOP Instance UID in copy.differs.
CREATE TABLE conflict (
    kind                        TEXT NOT NULL,
    study_instance_uid          TEXT NOT NULL,
    series_instance_uid         TEXT NOT NULL,
    sop_instance_uid            TEXT NOT NULL,
    -- Where the later of the two was found.
    directory                   INTEGER NOT NULL REFERENCES directory (id),
    file_name                   NOT NULL,
    first_seen_ms               INTEGER NOT NULL,
    PRIMARY KEY (directory, file_name, kind, study_instance_uid, series_instance_uid, sop_instance_uid)
) WITHOUT ROWID;
CREATE INDEX conflict_by_instance ON conflict (sop_instance_uid) WHERE kind = 'instance-with-other-content';

-- Directories, seen by scans, at which another file system was mounted: where one is not, what is missing below it is
-- unreachable rather than gone.
CREATE TABLE mount_point (
    -- As directory.path.
    path                        NOT NULL PRIMARY KEY
) WITHOUT ROWID;

CREATE TABLE scan (
    id                          INTEGER PRIMARY KEY,
    started_ms                  INTEGER NOT NULL,
    -- NULL: still running, or broken off.
    finished_ms                 INTEGER,
    -- JSON array of the paths as given, made absolute.
    roots                       TEXT NOT NULL,
    -- The summary of the scan as printed by --json.
    summary                     TEXT,
    -- Transactions so far: by these a scan notices that another one is at work.
    transactions                INTEGER NOT NULL DEFAULT 0
);
