-- Checks: stored files that are read again from time to time.

ALTER TABLE backups ADD COLUMN checked_at INTEGER;
-- What is wrong with the files; NULL while nothing is known to be.
ALTER TABLE backups ADD COLUMN damage TEXT;
-- When somebody asked for a check; NULL again once it was done.
ALTER TABLE backups ADD COLUMN check_requested_at INTEGER;

-- Making a backup reads it back, which counts as its first check.
CREATE INDEX backups_by_check ON backups (coalesce(checked_at, completed_at))
    WHERE state = 'succeeded' AND removal_requested_at IS NULL;
CREATE INDEX backups_to_check ON backups (check_requested_at)
    WHERE check_requested_at IS NOT NULL AND state = 'succeeded' AND removal_requested_at IS NULL;
