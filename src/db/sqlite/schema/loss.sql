-- The last change by which a patient, study or series lost something and stayed. What is left of it does not show that
-- (docs/adr/0061).
CREATE TABLE IF NOT EXISTS loss (
    -- 'PATIENT', 'STUDY' or 'SERIES'.
    level                       TEXT NOT NULL,
    -- The row of patient, study or study_series. For a patient one of the rows with its Patient ID and identity.
    id                          INTEGER NOT NULL,
    -- As instance_group.change and instance_group.changed_ms.
    change                      INTEGER NOT NULL,
    changed_ms                  INTEGER NOT NULL,
    PRIMARY KEY (level, id)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS loss_by_change ON loss (level, change);
