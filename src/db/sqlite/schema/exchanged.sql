-- Directories at which scans found none of the files that the index has there, as if another disk were mounted. Their
-- missing files are kept (docs/adr/0069).
CREATE TABLE IF NOT EXISTS exchanged_disk (
    -- As directory.path.
    path                        NOT NULL PRIMARY KEY
) WITHOUT ROWID;
