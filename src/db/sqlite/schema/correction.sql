-- Corrections of patient identifiers (docs/adr/0033). They hold in the order of their numbers.
CREATE TABLE IF NOT EXISTS correction (
    id                          INTEGER PRIMARY KEY,
    made_ms                     INTEGER NOT NULL,
    -- AE title of the node where it was made.
    system                      TEXT NOT NULL,
    -- What objects say that it corrects, and what it replaces: JSON objects, column to value.
    keys                        TEXT NOT NULL,
    new_values                  TEXT NOT NULL,
    -- When it was undone; NULL while it holds.
    undone_ms                   INTEGER
);
