-- Tables that came after the first version. Each writer makes those that are missing.

-- What operators removed, until it is undone or nobody can undo it any more (docs/adr/0032).
CREATE TABLE IF NOT EXISTS removal (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    begun_ms bigint NOT NULL,
    takes_objects boolean NOT NULL,
    instances bigint NOT NULL DEFAULT 0,
    emptied_ms bigint
);

CREATE TABLE IF NOT EXISTS removed_instance (
    uid_key uuid PRIMARY KEY,
    sop_instance_uid text NOT NULL,
    removal bigint NOT NULL,
    -- The values by column, of an instance without an object.
    record text
);
CREATE INDEX IF NOT EXISTS removed_instance_by_removal ON removed_instance (removal, uid_key);

CREATE TABLE IF NOT EXISTS removed_file (
    directory bigint NOT NULL,
    name_key uuid NOT NULL,
    file_name bytea NOT NULL,
    uid_key uuid NOT NULL,
    sop_instance_uid text NOT NULL,
    removal bigint NOT NULL,
    size bigint NOT NULL,
    mtime_ms bigint NOT NULL,
    checksum bytea,
    differs boolean NOT NULL,
    -- 0: it stays where it is. 1: it is to go to the trash. 2: it is there.
    state smallint NOT NULL,
    PRIMARY KEY (directory, name_key)
);
CREATE INDEX IF NOT EXISTS removed_file_by_instance ON removed_file (uid_key);
CREATE INDEX IF NOT EXISTS removed_file_by_removal ON removed_file (removal, uid_key);
CREATE INDEX IF NOT EXISTS removed_file_for_trash ON removed_file (directory, name_key) WHERE state = 1;

-- Units of a shared scan (docs/adr/0049). A worker has a unit until its lease expires.
CREATE TABLE IF NOT EXISTS scan_unit (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    scan bigint NOT NULL,
    -- Empty: all of the scan, after all other units.
    path bytea NOT NULL,
    owner text,
    -- How often it was taken. A worker that comes back late has an earlier number.
    attempt integer NOT NULL DEFAULT 0,
    expires timestamptz NOT NULL DEFAULT '-infinity',
    is_done boolean NOT NULL DEFAULT false
);
CREATE INDEX IF NOT EXISTS scan_unit_open ON scan_unit (scan, id) WHERE NOT is_done;

-- What all workers of a shared scan have to know.
CREATE TABLE IF NOT EXISTS shared_scan (
    scan bigint PRIMARY KEY,
    -- The settings that decide what it finds: a JSON object of texts.
    rules text NOT NULL,
    -- When a worker asked last for a unit.
    asked timestamptz NOT NULL DEFAULT now(),
    -- Whether units were left out.
    is_partly boolean NOT NULL DEFAULT false
);

-- Nodes that run, so that two of one AE title hear of each other.
CREATE TABLE IF NOT EXISTS node (
    -- Host and storage directory, which one node at a time can have.
    id text PRIMARY KEY,
    ae_title text NOT NULL,
    host text NOT NULL,
    -- As the index keeps it. Empty if no objects are kept.
    storage bytea NOT NULL,
    seen timestamptz NOT NULL DEFAULT now()
);

-- Which storage directory has which path, so that no other one is taken for it (docs/adr/0048).
CREATE TABLE IF NOT EXISTS storage_directory (
    path_key uuid PRIMARY KEY,
    -- As the index keeps it.
    path bytea NOT NULL,
    -- What the directory has noted of itself.
    id text NOT NULL,
    host text NOT NULL,
    claimed timestamptz NOT NULL DEFAULT now()
);

-- Roots that lie in another root on some node, for nodes that do not name them (docs/adr/0055).
CREATE TABLE IF NOT EXISTS nested_root (
    -- As the index keeps paths below it.
    root bytea PRIMARY KEY,
    -- As the index would keep it without its name.
    path bytea NOT NULL
);

-- What happened, for programs that follow the index (docs/adr/0051).
CREATE TABLE IF NOT EXISTS event (
    -- The number of the change of its transaction, times 2^14, and its place among the events of that.
    id bigint PRIMARY KEY,
    at_ms bigint NOT NULL,
    kind text NOT NULL,
    study_key uuid NOT NULL,
    -- '' where it is not about one study.
    study_instance_uid text NOT NULL,
    -- The number of the change that it tells of, 0 where it tells of none.
    change bigint NOT NULL,
    -- A JSON object: docs/events.md names its keys.
    content text NOT NULL
);
-- A study is told once for each change.
CREATE INDEX IF NOT EXISTS event_of_study ON event (study_key, change) WHERE kind = 'study-complete';

-- Up to which change every study that was quiet has been told.
CREATE TABLE IF NOT EXISTS event_cursor (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    change bigint NOT NULL
);

CREATE TABLE IF NOT EXISTS event_receiver (
    name text PRIMARY KEY,
    -- Every event up to this number was delivered or is of no interest, or it stands in event_waiting.
    position bigint NOT NULL,
    -- The node that serves it, and until when no other one may.
    holder text,
    held_until timestamptz NOT NULL DEFAULT now()
);

-- Events that a receiver did not take, and those that wait behind one of the same study.
CREATE TABLE IF NOT EXISTS event_waiting (
    receiver text NOT NULL,
    event bigint NOT NULL,
    study_key uuid NOT NULL,
    attempts bigint NOT NULL,
    next_ms bigint NOT NULL,
    until_ms bigint NOT NULL,
    failure text NOT NULL,
    is_dead boolean NOT NULL,
    PRIMARY KEY (receiver, event)
);
CREATE INDEX IF NOT EXISTS event_waiting_by_study ON event_waiting (receiver, study_key, event) WHERE NOT is_dead;

-- The modality worklist: one row for each scheduled procedure step, until it is removed (docs/adr/0052).
-- Texts may be longer than a B-tree takes, so most of its indexes are of hashes.
CREATE TABLE IF NOT EXISTS worklist_item (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    study_key uuid NOT NULL,
    -- Of the Study Instance UID and the ID of the step.
    step_key uuid NOT NULL UNIQUE,
    study_instance_uid text COLLATE "C" NOT NULL,
    step_id text COLLATE "C" NOT NULL,
    station_ae_title text COLLATE "C" NOT NULL,
    start_date text COLLATE "C" NOT NULL,
    start_time text COLLATE "C" NOT NULL,
    modality text COLLATE "C" NOT NULL,
    performing_physician_name text COLLATE "C" NOT NULL,
    patient_name text COLLATE "C" NOT NULL,
    patient_id text COLLATE "C" NOT NULL,
    accession_number text COLLATE "C" NOT NULL,
    -- The whole item in the DICOM JSON Model.
    item text NOT NULL,
    character_set text NOT NULL,
    order_key text COLLATE "C" NOT NULL,
    -- 0: a file of the folder; 1: HL7; 2: the command line.
    source bigint NOT NULL,
    origin text COLLATE "C" NOT NULL,
    generated text NOT NULL,
    warnings text NOT NULL,
    -- 0: scheduled; 1: started; 2: done; 3: discontinued; 4: cancelled.
    state bigint NOT NULL,
    received_ms bigint NOT NULL,
    changed_ms bigint NOT NULL,
    expires_ms bigint NOT NULL,
    message_time text NOT NULL,
    -- How many instances its study had when it came, or when that was last seen to change, and when that was. The time is 0
    -- if none have come since.
    instances bigint NOT NULL DEFAULT 0,
    instances_ms bigint NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS worklist_item_by_study ON worklist_item (study_key);
CREATE INDEX IF NOT EXISTS worklist_item_by_patient ON worklist_item USING hash (patient_id) WHERE state <= 1;
CREATE INDEX IF NOT EXISTS worklist_item_by_accession ON worklist_item USING hash (accession_number);
CREATE INDEX IF NOT EXISTS worklist_item_by_order ON worklist_item USING hash (order_key) WHERE order_key <> '';
CREATE INDEX IF NOT EXISTS worklist_item_by_origin ON worklist_item USING hash (origin);
CREATE INDEX IF NOT EXISTS worklist_item_open ON worklist_item (left(start_date, 64)) WHERE state <= 1;

-- Who asked last for an item, and when.
CREATE TABLE IF NOT EXISTS worklist_asked (
    item bigint PRIMARY KEY,
    ae_title text NOT NULL,
    asked_ms bigint NOT NULL
);

-- What could not become an item: a file of the folder, or a message.
CREATE TABLE IF NOT EXISTS worklist_problem (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    source bigint NOT NULL,
    origin text NOT NULL,
    reason text NOT NULL,
    noted_ms bigint NOT NULL
);
CREATE INDEX IF NOT EXISTS worklist_problem_by_origin ON worklist_problem USING hash (origin);

-- Modality Performed Procedure Steps.
CREATE TABLE IF NOT EXISTS performed_step (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    uid_key uuid NOT NULL UNIQUE,
    sop_instance_uid text NOT NULL,
    status text NOT NULL,
    station_ae_title text NOT NULL,
    -- All attributes in the DICOM JSON Model.
    attributes text NOT NULL,
    sender text NOT NULL,
    created_ms bigint NOT NULL,
    changed_ms bigint NOT NULL
);

-- Corrections of patient identifiers (docs/adr/0033), those that were undone included.
CREATE TABLE IF NOT EXISTS correction (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    made_ms bigint NOT NULL,
    system text NOT NULL,
    -- JSON arrays of pairs of a column and a text.
    keys text NOT NULL,
    new_values text NOT NULL,
    undone_ms bigint
);

-- Studies in which a rule corrected something when their rows were written last, and maybe others.
CREATE TABLE IF NOT EXISTS corrected_study (
    study bigint PRIMARY KEY
);

-- The last change by which a patient, study or series lost something and stayed (docs/adr/0061).
CREATE TABLE IF NOT EXISTS loss (
    -- 'PATIENT', 'STUDY' or 'SERIES'.
    level text NOT NULL,
    -- 0 for a patient.
    study bigint NOT NULL,
    -- Of a patient study_patient.person_key, of a series shelf.series_key, of a study the same for all.
    key uuid NOT NULL,
    -- As shelf.change and shelf.changed_ms.
    change bigint NOT NULL,
    changed_ms bigint NOT NULL,
    PRIMARY KEY (study, key, level)
);
CREATE INDEX IF NOT EXISTS loss_by_change ON loss (level, change);

-- Directories at which scans found none of the files that the index has there, as if another disk were mounted
-- (docs/adr/0069).
CREATE TABLE IF NOT EXISTS exchanged_disk (
    path_key uuid PRIMARY KEY,
    path bytea NOT NULL
);
