-- Who reads the files of a backup, each until then at least. They go with its files.

CREATE TABLE readings (
    id TEXT PRIMARY KEY,
    backup_id TEXT NOT NULL REFERENCES backups (id),
    read_until INTEGER NOT NULL
) STRICT;
CREATE INDEX readings_of_backup ON readings (backup_id, read_until);

-- Readings have ended when this runs: the process that gave the files has.
ALTER TABLE backups DROP COLUMN read_until;
