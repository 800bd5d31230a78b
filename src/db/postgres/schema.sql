-- The tables of an index in PostgreSQL. Texts are compared byte by byte, so the database may have any
-- collation. Columns of study and study_patient are cut after 256 characters: they lead to rows, and
-- the shelves have the values.

CREATE TABLE dcmdex_index (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    schema_version integer NOT NULL,
    index_id text
);

-- Each writer counts its transactions in a row of its own, so that none waits for another.
CREATE TABLE writer_slot (
    slot integer PRIMARY KEY,
    changes bigint NOT NULL
) WITH (fillfactor = 20);

CREATE TABLE directory (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    place smallint NOT NULL,
    path_key uuid NOT NULL,
    path bytea NOT NULL,
    UNIQUE (path_key, place)
);

CREATE TABLE study (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    uid_key uuid NOT NULL UNIQUE,
    study_instance_uid text COLLATE "C" NOT NULL,
    study_date text COLLATE "C" NOT NULL DEFAULT '',
    study_time text COLLATE "C" NOT NULL DEFAULT '',
    accession_number text COLLATE "C" NOT NULL DEFAULT '',
    -- Whether one of these texts, or a UID of a series, holds a backslash.
    is_separated boolean NOT NULL DEFAULT false,
    series_count bigint NOT NULL DEFAULT 0,
    instance_count bigint NOT NULL DEFAULT 0,
    offline_count bigint NOT NULL DEFAULT 0,
    revision bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 70);
CREATE INDEX study_by_date ON study (study_date DESC, study_time DESC);
CREATE INDEX study_by_accession_number ON study (accession_number);
CREATE INDEX study_separated ON study (id) WHERE is_separated;

-- The patients that the objects of a study name, the one it is kept under first.
CREATE TABLE study_patient (
    study bigint NOT NULL,
    position smallint NOT NULL,
    -- Of the whole Patient ID and of what replaces a missing one.
    person_key uuid NOT NULL,
    patient_id text COLLATE "C" NOT NULL,
    identity text COLLATE "C" NOT NULL,
    issuer text COLLATE "C" NOT NULL,
    -- The component groups in normal form, each after a line feed.
    name text COLLATE "C" NOT NULL,
    is_separated boolean NOT NULL,
    PRIMARY KEY (study, position)
);
CREATE INDEX study_patient_by_id ON study_patient (patient_id, identity, person_key);
CREATE INDEX study_patient_by_person ON study_patient (person_key);
CREATE INDEX study_patient_separated ON study_patient (study) WHERE is_separated;

CREATE TABLE shelf (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    study bigint NOT NULL,
    shelf_key uuid NOT NULL,
    series_key uuid NOT NULL,
    directory bigint NOT NULL,
    size_base bigint NOT NULL,
    mtime_base bigint NOT NULL,
    instance_count bigint NOT NULL,
    offline_count bigint NOT NULL,
    uid_prefix text NOT NULL,
    declared text NOT NULL,
    sop_class_uid text NOT NULL,
    transfer_syntax_uid text NOT NULL,
    -- The values by column as a JSON object. It is no `json`, because that lists no U+0000.
    said text NOT NULL,
    UNIQUE (study, shelf_key)
) WITH (fillfactor = 80);
CREATE INDEX shelf_by_series ON shelf (series_key);
CREATE INDEX shelf_by_directory ON shelf (directory);

CREATE TABLE instance (
    shelf bigint NOT NULL,
    uid_key uuid NOT NULL,
    -- 1: cannot be retrieved. 2: its first file was gone when a scan looked. 4: its UID holds a backslash.
    flags smallint NOT NULL,
    body bytea NOT NULL
);
CREATE UNIQUE INDEX instance_by_uid ON instance (uid_key);
CREATE INDEX instance_by_shelf ON instance (shelf);
CREATE INDEX instance_separated ON instance (shelf) WHERE flags & 4 <> 0;

-- Further files of instances.
CREATE TABLE copy (
    uid_key uuid NOT NULL,
    position smallint NOT NULL,
    directory bigint NOT NULL,
    file_name bytea NOT NULL,
    size bigint NOT NULL,
    mtime_ms bigint NOT NULL,
    checksum bytea,
    differs boolean NOT NULL,
    declared text NOT NULL,
    -- The values by column. NULL: those of the first file.
    record text,
    PRIMARY KEY (uid_key, position)
);
CREATE INDEX copy_by_directory ON copy (directory);

-- What is known of files besides: files that are not indexed, that are gone, or that have faults.
CREATE TABLE file_mark (
    file_key uuid NOT NULL,
    mark text NOT NULL,
    directory_key uuid NOT NULL,
    is_archive boolean NOT NULL,
    directory bytea NOT NULL,
    file_name bytea NOT NULL,
    size bigint NOT NULL,
    mtime_ms bigint NOT NULL,
    kind text NOT NULL,
    reason text NOT NULL,
    detail text NOT NULL,
    PRIMARY KEY (file_key, mark)
);
CREATE INDEX file_mark_by_directory ON file_mark (directory_key);
CREATE INDEX file_mark_by_kind ON file_mark (mark, kind, reason);

CREATE TABLE conflict (
    kind text NOT NULL,
    uid_key uuid NOT NULL,
    file_key uuid NOT NULL,
    place smallint NOT NULL,
    directory bytea NOT NULL,
    file_name bytea NOT NULL,
    study_instance_uid text NOT NULL,
    series_instance_uid text NOT NULL,
    sop_instance_uid text NOT NULL,
    PRIMARY KEY (uid_key, file_key, kind)
);
CREATE INDEX conflict_by_file ON conflict (file_key);

CREATE TABLE scan (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    started_ms bigint NOT NULL,
    finished_ms bigint,
    roots text NOT NULL,
    summary text
);

CREATE TABLE watch (
    roots_key uuid PRIMARY KEY,
    roots text NOT NULL,
    state text NOT NULL
);

CREATE TABLE mount_point (
    path_key uuid PRIMARY KEY,
    path bytea NOT NULL
);
