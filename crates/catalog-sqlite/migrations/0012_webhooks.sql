-- URLs that are told of events. The events themselves are what is still to be told: `after_event` is
-- the last that a webhook was told of, or that it is told nothing about.

CREATE TABLE webhooks (
    seq            INTEGER PRIMARY KEY AUTOINCREMENT,
    id             TEXT    NOT NULL UNIQUE,
    project_id     TEXT    NOT NULL REFERENCES projects (id),
    url            TEXT    NOT NULL,
    -- Words with a comma before, between and behind them.
    kinds          TEXT    NOT NULL,
    secret         BLOB    NOT NULL,
    enabled        INTEGER NOT NULL,
    created_at     INTEGER NOT NULL,
    after_event    INTEGER NOT NULL,
    next_at        INTEGER NOT NULL DEFAULT 0,
    failures       INTEGER NOT NULL DEFAULT 0,
    given_up       INTEGER NOT NULL DEFAULT 0,
    last_error     TEXT,
    last_error_at  INTEGER,
    delivered_at   INTEGER,
    -- Who sends now, until when; each lease has a higher number.
    attempt        INTEGER NOT NULL DEFAULT 0,
    lease_until    INTEGER NOT NULL DEFAULT 0,
    lease_node     TEXT
) STRICT;

CREATE INDEX webhooks_of_project ON webhooks (project_id, seq);
CREATE INDEX webhooks_due ON webhooks (next_at) WHERE enabled = 1;
