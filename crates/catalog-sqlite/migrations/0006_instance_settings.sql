-- What the owner of an instance says about it.

ALTER TABLE instances ADD COLUMN description TEXT NOT NULL DEFAULT '';
-- Hours of the day, UTC.
ALTER TABLE instances ADD COLUMN maintain_begin INTEGER NOT NULL DEFAULT 2;
ALTER TABLE instances ADD COLUMN maintain_end INTEGER NOT NULL DEFAULT 6;

CREATE TABLE backup_policies (
    instance_id  TEXT    NOT NULL PRIMARY KEY REFERENCES instances (id),
    id           TEXT    NOT NULL UNIQUE,
    is_automatic INTEGER NOT NULL,
    save_days    INTEGER,
    -- Bits, Monday the lowest. All three of the plan are there, or none.
    plan_days    INTEGER,
    plan_begin   INTEGER,
    plan_end     INTEGER,
    created_at   INTEGER NOT NULL,
    updated_at   INTEGER NOT NULL
) STRICT;

CREATE TABLE instance_tags (
    instance_id TEXT NOT NULL REFERENCES instances (id),
    key         TEXT NOT NULL,
    value       TEXT NOT NULL,
    PRIMARY KEY (instance_id, key)
) STRICT;
