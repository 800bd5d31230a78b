-- What operators removed, until it is undone or nobody can undo it any more (docs/adr/0032).
CREATE TABLE IF NOT EXISTS removal (
    id                          INTEGER PRIMARY KEY,
    begun_ms                    INTEGER NOT NULL,
    -- 1: its received objects go to the trash.
    takes_objects               INTEGER NOT NULL,
    instances                   INTEGER NOT NULL DEFAULT 0,
    -- When its objects in the trash were deleted for good; NULL until then.
    emptied_ms                  INTEGER
);

-- Instances that scans and `rebuild` do not bring back. When one is received again, its row goes.
CREATE TABLE IF NOT EXISTS removed_instance (
    sop_instance_uid            TEXT NOT NULL PRIMARY KEY,
    removal                     INTEGER NOT NULL REFERENCES removal (id),
    -- Of an instance without an object: a JSON object, column to value. Nothing else could bring it back.
    record                      TEXT
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS removed_instance_by_removal ON removed_instance (removal);

-- The files of removed instances.
CREATE TABLE IF NOT EXISTS removed_file (
    directory                   INTEGER NOT NULL REFERENCES directory (id),
    file_name                   NOT NULL,
    sop_instance_uid            TEXT NOT NULL,
    removal                     INTEGER NOT NULL REFERENCES removal (id),
    size                        INTEGER NOT NULL,
    mtime_ms                    INTEGER NOT NULL,
    -- As instance.checksum and copy.differs.
    checksum                    BLOB,
    differs                     INTEGER NOT NULL,
    -- 0: the file stays where it is; 1: it is to go to the trash; 2: it is there.
    state                       INTEGER NOT NULL,
    PRIMARY KEY (directory, file_name)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS removed_file_by_instance ON removed_file (sop_instance_uid);
CREATE INDEX IF NOT EXISTS removed_file_for_trash ON removed_file (directory, file_name) WHERE state = 1;
CREATE INDEX IF NOT EXISTS removed_file_by_removal ON removed_file (removal);
