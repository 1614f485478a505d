-- Cancelling: who wanted a backup to end before it was done.

ALTER TABLE backups ADD COLUMN cancelled_at INTEGER;
ALTER TABLE backups ADD COLUMN cancelled_by TEXT;

-- Captures that found their host at its limit wait beside the queue, so that a claim never goes through
-- them; the end of a capture of that host puts the oldest back.
ALTER TABLE jobs ADD COLUMN waits_for_host TEXT;

CREATE INDEX jobs_claimable ON jobs (kind, due_at, seq)
    WHERE state IN ('queued', 'leased') AND waits_for_host IS NULL;
CREATE INDEX jobs_waiting_for_host ON jobs (waits_for_host, due_at, seq)
    WHERE state = 'queued' AND waits_for_host IS NOT NULL;
CREATE INDEX jobs_capturing ON jobs (instance_id) WHERE state = 'leased' AND kind = 'capture';
