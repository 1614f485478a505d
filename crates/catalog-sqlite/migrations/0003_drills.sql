-- Drills: what proves that a backup holds the same data as its source.

ALTER TABLE backups ADD COLUMN proven_at INTEGER;
ALTER TABLE backups ADD COLUMN proven_by TEXT;
-- Of the last drill; NULL again once a later one proves the backup.
ALTER TABLE backups ADD COLUMN drill_failed_at INTEGER;
ALTER TABLE backups ADD COLUMN drill_failure TEXT;

CREATE INDEX backups_restorable ON backups (instance_id, created_at DESC, seq DESC)
    WHERE state = 'succeeded' AND removal_requested_at IS NULL;
CREATE INDEX backups_proven ON backups (instance_id, created_at DESC, seq DESC)
    WHERE state = 'succeeded' AND removal_requested_at IS NULL AND proven_at IS NOT NULL;
-- The moment of the last drill: a proof takes an earlier failure away.
CREATE INDEX backups_drilled ON backups (instance_id, coalesce(drill_failed_at, proven_at) DESC)
    WHERE coalesce(drill_failed_at, proven_at) IS NOT NULL;

CREATE UNIQUE INDEX jobs_one_drill ON jobs (backup_id)
    WHERE state IN ('queued', 'leased') AND kind = 'drill';
CREATE INDEX jobs_drilling ON jobs (instance_id)
    WHERE state IN ('queued', 'leased') AND kind = 'drill';
