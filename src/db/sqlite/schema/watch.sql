-- Directories that a node looks at again and again, each with what the last look found.
CREATE TABLE IF NOT EXISTS watch (
    -- The watched paths as a JSON array of texts.
    roots                       TEXT PRIMARY KEY,
    -- A JSON object: docs/json.md names its keys (`watch`).
    state                       TEXT NOT NULL
) WITHOUT ROWID;
