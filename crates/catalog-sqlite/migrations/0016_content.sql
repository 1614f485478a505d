-- Whether the content of a backup was verified, and what a proof did not compare. Nothing of that is known of what
-- was stored before.

ALTER TABLE backups ADD COLUMN content TEXT NOT NULL DEFAULT 'unknown';
ALTER TABLE backups ADD COLUMN proof_uncompared INTEGER NOT NULL DEFAULT 0;

-- Whether a backup may be restored whose content is not verified.
ALTER TABLE restores ADD COLUMN unverified INTEGER NOT NULL DEFAULT 0;
-- Why the data was not compared, where it should have been.
ALTER TABLE restores ADD COLUMN outcome_unproven TEXT;
ALTER TABLE restores ADD COLUMN outcome_uncompared INTEGER NOT NULL DEFAULT 0;

-- Opaque backups are counted at every scrape, from this index alone.
CREATE INDEX backups_opaque ON backups (instance_id, state, removal_requested_at, content)
    WHERE state = 'succeeded' AND removal_requested_at IS NULL AND content = 'opaque';
