-- Backups that restores made of their targets are told apart from those that somebody asked for.

UPDATE backups SET started_by = 'safety'
WHERE id IN (SELECT safety_backup_id FROM restores WHERE safety_backup_id IS NOT NULL);
