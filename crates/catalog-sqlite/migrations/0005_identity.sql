-- Names of projects; users, what they have in projects and their tokens; policies.

ALTER TABLE projects ADD COLUMN name TEXT NOT NULL DEFAULT '';
ALTER TABLE projects ADD COLUMN enabled INTEGER NOT NULL DEFAULT 1;
-- Until somebody names a project its id is its name.
UPDATE projects SET name = id;
CREATE UNIQUE INDEX projects_by_name ON projects (name);

CREATE TABLE users (
    id                  TEXT    NOT NULL PRIMARY KEY,
    name                TEXT    NOT NULL UNIQUE,
    password            TEXT    NOT NULL,
    enabled             INTEGER NOT NULL,
    administers_service INTEGER NOT NULL,
    created_at          INTEGER NOT NULL
) STRICT;

CREATE TABLE policies (
    project_id TEXT    NOT NULL REFERENCES projects (id),
    name       TEXT    NOT NULL,
    -- Patterns with spaces between them.
    actions    TEXT    NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (project_id, name)
) STRICT;

-- A role is a built-in one or the name of a policy of the project.
CREATE TABLE grants (
    user_id    TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    project_id TEXT NOT NULL REFERENCES projects (id),
    role       TEXT NOT NULL,
    PRIMARY KEY (user_id, project_id)
) STRICT;
CREATE INDEX grants_by_role ON grants (project_id, role);

CREATE TABLE tokens (
    hash       BLOB    NOT NULL PRIMARY KEY,
    user_id    TEXT    NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    scope      TEXT    NOT NULL,
    project_id TEXT    REFERENCES projects (id),
    sign_in    TEXT    NOT NULL,
    -- The token that it was got with, and with which it ends.
    parent     BLOB    REFERENCES tokens (hash) ON DELETE CASCADE,
    issued_at  INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT;
CREATE INDEX tokens_by_end ON tokens (expires_at);
CREATE INDEX tokens_by_user ON tokens (user_id, project_id);
CREATE INDEX tokens_by_parent ON tokens (parent);

-- Whoever had a key before could do everything, and goes on so.
ALTER TABLE credentials ADD COLUMN role TEXT NOT NULL DEFAULT 'admin';
ALTER TABLE credentials ADD COLUMN administers_service INTEGER NOT NULL DEFAULT 0;
UPDATE credentials SET administers_service = 1;
ALTER TABLE credentials ADD COLUMN user_id TEXT REFERENCES users (id) ON DELETE CASCADE;
ALTER TABLE credentials ADD COLUMN description TEXT;
ALTER TABLE credentials ADD COLUMN enabled INTEGER NOT NULL DEFAULT 1;
ALTER TABLE credentials ADD COLUMN expires_at INTEGER;
CREATE INDEX credentials_oldest_first ON credentials (project_id, created_at);
CREATE INDEX credentials_by_user ON credentials (user_id);
