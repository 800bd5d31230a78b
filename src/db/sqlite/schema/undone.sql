-- The highest number of a removal that was undone. No later removal gets it again.
CREATE TABLE IF NOT EXISTS undone_removal (
    only_row                    INTEGER PRIMARY KEY CHECK (only_row = 0),
    last                        INTEGER NOT NULL
);
