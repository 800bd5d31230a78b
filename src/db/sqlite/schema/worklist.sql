-- The modality worklist: one row for each scheduled procedure step, until it is removed.
CREATE TABLE IF NOT EXISTS worklist_item (
    id                          INTEGER PRIMARY KEY,
    study_instance_uid          TEXT NOT NULL,
    step_id                     TEXT NOT NULL,
    -- Values of the item as text, for searching. Several values are separated by backslashes.
    station_ae_title            TEXT NOT NULL DEFAULT '',
    start_date                  TEXT NOT NULL DEFAULT '',
    start_time                  TEXT NOT NULL DEFAULT '',
    modality                    TEXT NOT NULL DEFAULT '',
    performing_physician_name   TEXT NOT NULL DEFAULT '',
    patient_name                TEXT NOT NULL DEFAULT '',
    patient_id                  TEXT NOT NULL DEFAULT '',
    accession_number            TEXT NOT NULL DEFAULT '',
    -- The whole item in the DICOM JSON Model.
    item                        TEXT NOT NULL,
    -- Specific Character Set of what the item came from.
    character_set               TEXT NOT NULL DEFAULT '',
    -- What tells the order apart from all others, '' where it has no number.
    order_key                   TEXT NOT NULL DEFAULT '',
    -- 0: a file of the folder; 1: HL7; 2: the command line.
    source                      INTEGER NOT NULL,
    -- The file, or who sent the message.
    origin                      TEXT NOT NULL DEFAULT '',
    -- JSON arrays: keywords of the values that were made here, and warnings.
    generated                   TEXT NOT NULL DEFAULT '[]',
    warnings                    TEXT NOT NULL DEFAULT '[]',
    -- 0: scheduled; 1: started; 2: done; 3: discontinued; 4: cancelled.
    state                       INTEGER NOT NULL,
    received_ms                 INTEGER NOT NULL,
    changed_ms                  INTEGER NOT NULL,
    -- From then on no query finds it.
    expires_ms                  INTEGER NOT NULL,
    -- When its last message was made, as its sender says: YYYYMMDDHHMMSS.
    message_time                TEXT NOT NULL DEFAULT '',
    -- How many instances its study had when it came, or when that was last seen to change, and when that was. The time is 0
    -- if none have come since.
    instances                   INTEGER NOT NULL DEFAULT 0,
    instances_ms                INTEGER NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX IF NOT EXISTS worklist_item_by_step ON worklist_item (study_instance_uid, step_id);
CREATE INDEX IF NOT EXISTS worklist_item_by_start ON worklist_item (start_date, start_time) WHERE state <= 1;
CREATE INDEX IF NOT EXISTS worklist_item_by_modality
    ON worklist_item (modality, start_date, start_time, station_ae_title) WHERE state <= 1;
CREATE INDEX IF NOT EXISTS worklist_item_by_patient ON worklist_item (patient_id) WHERE state <= 1;
CREATE INDEX IF NOT EXISTS worklist_item_by_accession ON worklist_item (accession_number);
CREATE INDEX IF NOT EXISTS worklist_item_by_order ON worklist_item (order_key) WHERE order_key <> '';
CREATE INDEX IF NOT EXISTS worklist_item_by_origin ON worklist_item (source, origin);

-- Who asked last for an item, and when.
CREATE TABLE IF NOT EXISTS worklist_asked (
    item                        INTEGER PRIMARY KEY,
    ae_title                    TEXT NOT NULL,
    asked_ms                    INTEGER NOT NULL
);

-- What could not become an item: a file of the folder, or a message.
CREATE TABLE IF NOT EXISTS worklist_problem (
    id                          INTEGER PRIMARY KEY,
    source                      INTEGER NOT NULL,
    origin                      TEXT NOT NULL,
    reason                      TEXT NOT NULL,
    noted_ms                    INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS worklist_problem_by_origin ON worklist_problem (source, origin);

-- Modality Performed Procedure Steps.
CREATE TABLE IF NOT EXISTS performed_step (
    id                          INTEGER PRIMARY KEY,
    sop_instance_uid            TEXT NOT NULL UNIQUE,
    status                      TEXT NOT NULL,
    station_ae_title            TEXT NOT NULL DEFAULT '',
    -- All attributes in the DICOM JSON Model.
    attributes                  TEXT NOT NULL,
    sender                      TEXT NOT NULL DEFAULT '',
    created_ms                  INTEGER NOT NULL,
    changed_ms                  INTEGER NOT NULL
);
