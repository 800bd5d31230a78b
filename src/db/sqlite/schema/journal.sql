-- What the index has taken of the arrival journal of its node (docs/adr/0039). It has a row once a node with a journal has
-- stored something.
CREATE TABLE IF NOT EXISTS arrival_journal (
    id                          INTEGER PRIMARY KEY CHECK (id = 0),
    -- The number of the journal, 16 random bytes.
    journal                     BLOB NOT NULL,
    -- Every entry up to this number was decided on: its object is in the index, or it was refused.
    decided                     INTEGER NOT NULL
);
