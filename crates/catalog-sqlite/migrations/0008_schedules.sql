-- Schedules: which window of a policy comes next. Retention: until when backups are kept.

-- The window that is open or comes next; NULL where that is still to be found out.
ALTER TABLE backup_policies ADD COLUMN window_begin INTEGER;
ALTER TABLE backup_policies ADD COLUMN window_end INTEGER;
-- When there is something to decide, and when this was decided. Policies from before are due at once.
ALTER TABLE backup_policies ADD COLUMN next_at INTEGER NOT NULL DEFAULT 0;
ALTER TABLE backup_policies ADD COLUMN decided_at INTEGER NOT NULL DEFAULT 0;

CREATE INDEX policies_due ON backup_policies (next_at) WHERE is_automatic = 1;
CREATE INDEX policies_decided ON backup_policies (decided_at) WHERE is_automatic = 1;

-- When the window begins that the backup was made for.
ALTER TABLE backups ADD COLUMN window_begin INTEGER;
ALTER TABLE backups ADD COLUMN keep_until INTEGER;
ALTER TABLE backups ADD COLUMN held INTEGER NOT NULL DEFAULT 0;
-- Whether its removal was decided by retention, not by a person.
ALTER TABLE backups ADD COLUMN expiring INTEGER NOT NULL DEFAULT 0;

CREATE INDEX backups_by_window ON backups (instance_id, window_begin) WHERE window_begin IS NOT NULL;

-- When it is to be found out which backups of the instance have to go.
ALTER TABLE instances ADD COLUMN retain_at INTEGER;

CREATE INDEX instances_to_retain ON instances (retain_at) WHERE retain_at IS NOT NULL;
