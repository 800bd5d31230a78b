-- What happened, for programs that follow the index (docs/events.md, docs/adr/0042). Only an index whose node records events
-- has rows here.
CREATE TABLE IF NOT EXISTS event (
    -- Higher for each later event. The last row always stays, so no number comes twice.
    id                          INTEGER PRIMARY KEY,
    at_ms                       INTEGER NOT NULL,
    -- 'study-complete', 'instance-stored', 'scan-finished', 'conflict', 'damaged' or 'index-restored'.
    kind                        TEXT NOT NULL,
    -- '' where it is not about one study.
    study_instance_uid          TEXT NOT NULL,
    -- The number of the change that it tells of (docs/adr/0015), 0 where it tells of none.
    change                      INTEGER NOT NULL,
    -- A JSON object: docs/events.md names its keys.
    content                     TEXT NOT NULL
);
-- A study is told once for each change.
CREATE INDEX IF NOT EXISTS event_of_study ON event (study_instance_uid, change) WHERE kind = 'study-complete';

-- Up to which change every study that was quiet has been told.
CREATE TABLE IF NOT EXISTS event_cursor (
    id                          INTEGER PRIMARY KEY CHECK (id = 0),
    change                      INTEGER NOT NULL
);

-- The receivers of the configuration.
CREATE TABLE IF NOT EXISTS event_receiver (
    name                        TEXT PRIMARY KEY,
    -- Every event up to this number was delivered or is of no interest, or it stands in event_waiting.
    position                    INTEGER NOT NULL
) WITHOUT ROWID;

-- Events that a receiver did not take, and those that wait behind one of the same study.
CREATE TABLE IF NOT EXISTS event_waiting (
    receiver                    TEXT NOT NULL,
    event                       INTEGER NOT NULL,
    study_instance_uid          TEXT NOT NULL,
    attempts                    INTEGER NOT NULL,
    -- When it is tried again, milliseconds since 1970 UTC.
    next_ms                     INTEGER NOT NULL,
    -- Until when it is tried.
    until_ms                    INTEGER NOT NULL,
    -- Why the last attempt failed, '' where there was none.
    failure                     TEXT NOT NULL,
    -- 1: nobody tries it any more, until an operator does.
    is_dead                     INTEGER NOT NULL,
    PRIMARY KEY (receiver, event)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS event_waiting_by_study ON event_waiting (receiver, is_dead, study_instance_uid, event);
