-- Restores: what puts a backup's data into an instance.

CREATE TABLE restores (
    seq                    INTEGER PRIMARY KEY AUTOINCREMENT,
    id                     TEXT    NOT NULL UNIQUE,
    job_id                 TEXT    NOT NULL UNIQUE REFERENCES jobs (id),
    project_id             TEXT    NOT NULL REFERENCES projects (id),
    -- The target.
    instance_id            TEXT    NOT NULL REFERENCES instances (id),
    backup_id              TEXT    NOT NULL REFERENCES backups (id),
    -- What was asked for. NULL leaves it to the plan.
    way                    TEXT,
    wants_safety_backup    INTEGER NOT NULL,
    prove                  INTEGER,
    swap                   INTEGER,
    ttl                    TEXT    NOT NULL,
    key_pattern            TEXT,
    key_database           INTEGER,
    conflict               TEXT    NOT NULL,
    note                   TEXT,
    state                  TEXT    NOT NULL,
    progress               INTEGER NOT NULL,
    phase                  TEXT,
    failure_code           TEXT,
    failure_reason         TEXT,
    safety_backup_id       TEXT    REFERENCES backups (id),
    -- How it ended; outcome_target is there exactly when it did.
    outcome_way            TEXT,
    outcome_target         TEXT,
    outcome_unavailable_ms INTEGER,
    outcome_proven         INTEGER,
    outcome_keys           INTEGER,
    created_at             INTEGER NOT NULL,
    started_at             INTEGER,
    completed_at           INTEGER
) STRICT;

CREATE INDEX restores_newest_first ON restores (instance_id, created_at DESC, seq DESC);
CREATE INDEX restores_open ON restores (backup_id, safety_backup_id)
    WHERE state IN ('waiting', 'running');

-- A restore needs its target for itself just as a capture needs its source.
DROP INDEX jobs_one_capture;
CREATE UNIQUE INDEX jobs_one_exclusive ON jobs (instance_id)
    WHERE state IN ('queued', 'leased') AND kind IN ('capture', 'restore');
