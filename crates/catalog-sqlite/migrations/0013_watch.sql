-- Open jobs are counted at every scrape, from this index alone. `seq` in the middle keeps claims from it, which
-- want those that are due in their order.

CREATE INDEX jobs_open ON jobs (kind, seq, state, due_at) WHERE state IN ('queued', 'leased');
