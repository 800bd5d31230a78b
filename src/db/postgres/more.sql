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

-- Nodes that run, so that two of one AE title or storage directory hear of each other.
CREATE TABLE IF NOT EXISTS node (
    -- Host and storage directory, which one node at a time can have.
    id text PRIMARY KEY,
    ae_title text NOT NULL,
    host text NOT NULL,
    -- As the index keeps it. Empty if no objects are kept.
    storage bytea NOT NULL,
    seen timestamptz NOT NULL DEFAULT now()
);
