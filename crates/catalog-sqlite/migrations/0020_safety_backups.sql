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
