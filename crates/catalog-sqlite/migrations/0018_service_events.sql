-- Events of the whole service concern no instance. SQLite can drop the constraint only with the
-- table; the numbers of events go on where they were.

CREATE TABLE events_of_all (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    at           INTEGER NOT NULL,
    project_id   TEXT    NOT NULL,
    instance_id  TEXT    REFERENCES instances (id),
    kind         TEXT    NOT NULL,
    backup_id    TEXT,
    restore_id   TEXT,
    detail       TEXT
) STRICT;

INSERT INTO events_of_all SELECT * FROM events;
DELETE FROM sqlite_sequence WHERE name = 'events_of_all';
INSERT INTO sqlite_sequence (name, seq)
    SELECT 'events_of_all', seq FROM sqlite_sequence WHERE name = 'events';
DROP TABLE events;
ALTER TABLE events_of_all RENAME TO events;

CREATE INDEX events_of_project ON events (project_id, id);
CREATE INDEX events_of_instance ON events (instance_id, id);
CREATE INDEX events_by_time ON events (at);
