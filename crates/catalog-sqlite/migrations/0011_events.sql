-- What has happened, each written together with the fact. AUTOINCREMENT: no number is given again,
-- though the newest events may be forgotten.

CREATE TABLE events (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    at           INTEGER NOT NULL,
    project_id   TEXT    NOT NULL,
    instance_id  TEXT    NOT NULL REFERENCES instances (id),
    kind         TEXT    NOT NULL,
    backup_id    TEXT,
    restore_id   TEXT,
    detail       TEXT
) STRICT;

CREATE INDEX events_of_project ON events (project_id, id);
CREATE INDEX events_of_instance ON events (instance_id, id);
CREATE INDEX events_by_time ON events (at);
