-- Who did what: calls that change something, recorded before they do.

CREATE TABLE audit (
    seq          INTEGER PRIMARY KEY AUTOINCREMENT,
    request_id   TEXT    NOT NULL UNIQUE,
    project_id   TEXT,
    access_key   TEXT,
    user_name    TEXT,
    address      TEXT,
    operation    TEXT    NOT NULL,
    resource     TEXT    NOT NULL,
    at           INTEGER NOT NULL,
    -- How it was answered; NULL until then.
    status       INTEGER,
    error        TEXT,
    answered_at  INTEGER
) STRICT;

CREATE INDEX audit_of_project ON audit (project_id, seq);
CREATE INDEX audit_by_time ON audit (at);
