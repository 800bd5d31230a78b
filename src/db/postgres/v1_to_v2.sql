-- What version 2 has besides: when and from whom instances came, and the numbers of changes.

-- Where instances came from, and when (docs/adr/0015).
CREATE TABLE arrival (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind text NOT NULL,
    calling_ae_title text NOT NULL,
    address text NOT NULL,
    scan bigint,
    first_ms bigint NOT NULL
);
CREATE INDEX arrival_by_time ON arrival (first_ms);

ALTER TABLE dcmdex_index
    -- Numbers of changes are those of transactions, plus this.
    ADD COLUMN change_base bigint NOT NULL DEFAULT 0,
    -- The server and its history, by which the numbers of transactions go on.
    ADD COLUMN history text;

-- The number of the change that the transaction is, and its time in milliseconds since 1970 UTC. It is
-- the time of the server, as clocks of nodes may differ.
CREATE VIEW change_number AS
    SELECT change_base + pg_current_xact_id()::text::bigint AS number,
        floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint AS now_ms
    FROM dcmdex_index;

ALTER TABLE shelf
    -- 0: not known.
    ADD COLUMN arrival bigint NOT NULL DEFAULT 0,
    -- The number of the last change of one of its instances, and its time.
    ADD COLUMN change bigint NOT NULL DEFAULT 1,
    ADD COLUMN changed_ms bigint NOT NULL DEFAULT 0,
    -- The number, rounded down. An index on each number would be written by each transaction.
    ADD COLUMN change_block bigint NOT NULL DEFAULT 0;
CREATE INDEX shelf_by_change ON shelf (change_block);
CREATE INDEX shelf_by_arrival ON shelf (arrival);
