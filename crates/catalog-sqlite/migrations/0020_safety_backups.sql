-- Backups that restores made of their targets are told apart from those that somebody asked for.

UPDATE backups SET started_by = 'safety'
WHERE id IN (SELECT safety_backup_id FROM restores WHERE safety_backup_id IS NOT NULL);

-- Restores are cancelled as backups are, until their target is touched.
ALTER TABLE restores ADD COLUMN cancelled_at INTEGER;
ALTER TABLE restores ADD COLUMN cancelled_by TEXT;
ALTER TABLE restores ADD COLUMN touched_at INTEGER;

UPDATE restores SET touched_at = coalesce(started_at, created_at)
WHERE completed_at IS NULL AND job_id IN (SELECT job_id FROM job_steps WHERE step = 'touched');
UPDATE restores SET touched_at = coalesce(started_at, created_at)
WHERE completed_at IS NOT NULL AND outcome_target <> 'untouched';

-- How many keys a backup holds, and which smaller one made the service hold it. Nothing is known of the keys of what
-- was stored before.
ALTER TABLE backups ADD COLUMN keys INTEGER;
ALTER TABLE backups ADD COLUMN held_for TEXT;

CREATE INDEX backups_held_for_shrunk ON backups (instance_id, held_for) WHERE held_for IS NOT NULL;
