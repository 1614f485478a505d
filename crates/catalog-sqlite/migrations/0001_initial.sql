-- Moments are microseconds since the Unix epoch. Rows are ordered by `seq` where moments tie.

CREATE TABLE projects (
    id         TEXT    NOT NULL PRIMARY KEY,
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE credentials (
    access_key TEXT    NOT NULL PRIMARY KEY,
    project_id TEXT    NOT NULL REFERENCES projects (id),
    secret     BLOB    NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE instances (
    seq                 INTEGER PRIMARY KEY AUTOINCREMENT,
    id                  TEXT    NOT NULL UNIQUE,
    project_id          TEXT    NOT NULL REFERENCES projects (id),
    name                TEXT    NOT NULL,
    host                TEXT    NOT NULL,
    port                INTEGER NOT NULL,
    username            TEXT,
    password            BLOB,
    tls                 INTEGER NOT NULL,
    tls_ca_pem          TEXT,
    tls_certificate_pem TEXT,
    tls_key_pem         BLOB,
    engine              TEXT    NOT NULL,
    server_version      TEXT    NOT NULL,
    role                TEXT    NOT NULL,
    replicas_online     INTEGER NOT NULL,
    used_memory_bytes   INTEGER NOT NULL,
    max_memory_bytes    INTEGER NOT NULL,
    system_memory_bytes INTEGER NOT NULL,
    keys                INTEGER NOT NULL,
    databases_used      INTEGER NOT NULL,
    observed_at         INTEGER NOT NULL,
    unreachable_because TEXT,
    failed_looks        INTEGER NOT NULL,
    created_at          INTEGER NOT NULL,
    removed_at          INTEGER
) STRICT;

CREATE UNIQUE INDEX instances_by_name ON instances (project_id, name) WHERE removed_at IS NULL;
CREATE INDEX instances_newest_first ON instances (project_id, created_at DESC, seq DESC) WHERE removed_at IS NULL;
CREATE INDEX instances_by_look ON instances (observed_at) WHERE removed_at IS NULL;

CREATE TABLE backups (
    seq                  INTEGER PRIMARY KEY AUTOINCREMENT,
    id                   TEXT    NOT NULL UNIQUE,
    project_id           TEXT    NOT NULL REFERENCES projects (id),
    instance_id          TEXT    NOT NULL REFERENCES instances (id),
    started_by           TEXT    NOT NULL,
    format               TEXT    NOT NULL,
    dialect              TEXT    NOT NULL,
    note                 TEXT,
    period               TEXT,
    state                TEXT    NOT NULL,
    progress             INTEGER NOT NULL,
    received_bytes       INTEGER NOT NULL,
    phase                TEXT,
    size_bytes           INTEGER NOT NULL,
    stored_attempt       INTEGER,
    failure_code         TEXT,
    failure_reason       TEXT,
    created_at           INTEGER NOT NULL,
    started_at           INTEGER,
    completed_at         INTEGER,
    removal_requested_at INTEGER,
    removed_at           INTEGER
) STRICT;

CREATE INDEX backups_newest_first ON backups (instance_id, created_at DESC, seq DESC);

CREATE TABLE jobs (
    seq         INTEGER PRIMARY KEY AUTOINCREMENT,
    id          TEXT    NOT NULL UNIQUE,
    kind        TEXT    NOT NULL,
    project_id  TEXT    NOT NULL REFERENCES projects (id),
    instance_id TEXT    NOT NULL REFERENCES instances (id),
    backup_id   TEXT    NOT NULL REFERENCES backups (id),
    state       TEXT    NOT NULL,
    attempt     INTEGER NOT NULL,
    failures    INTEGER NOT NULL,
    node_id     TEXT,
    -- Queued: when it may begin. Leased: when the lease runs out.
    due_at      INTEGER NOT NULL,
    last_error  TEXT
) STRICT;

CREATE INDEX jobs_due ON jobs (kind, due_at, seq) WHERE state IN ('queued', 'leased');
CREATE UNIQUE INDEX jobs_one_capture ON jobs (instance_id)
    WHERE state IN ('queued', 'leased') AND kind = 'capture';
CREATE UNIQUE INDEX jobs_one_removal ON jobs (backup_id)
    WHERE state IN ('queued', 'leased') AND kind = 'remove';

CREATE TABLE job_steps (
    job_id      TEXT    NOT NULL REFERENCES jobs (id),
    step        TEXT    NOT NULL,
    attempt     INTEGER NOT NULL,
    output      TEXT    NOT NULL,
    finished_at INTEGER NOT NULL,
    PRIMARY KEY (job_id, step)
) STRICT;
