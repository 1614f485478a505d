-- no-transaction
-- What a step leaves for the next ones names keys of the data. It is sealed from now on, and removed when its job
-- has ended. What open jobs left before stays as it was until then; what ended ones left goes now. VACUUM writes
-- the file anew, without what had been removed from it, and works outside of a transaction alone. A migration that
-- was broken off in between can be done again.

BEGIN IMMEDIATE;

CREATE TABLE sealed_steps (
    job_id      TEXT    NOT NULL REFERENCES jobs (id),
    step        TEXT    NOT NULL,
    attempt     INTEGER NOT NULL,
    output      BLOB    NOT NULL,
    finished_at INTEGER NOT NULL,
    PRIMARY KEY (job_id, step)
) STRICT;

INSERT INTO sealed_steps
SELECT job_id, step, attempt, CAST(output AS BLOB), finished_at FROM job_steps
WHERE job_id IN (SELECT id FROM jobs WHERE state IN ('queued', 'leased'))
ORDER BY job_steps.rowid;

DROP TABLE job_steps;

ALTER TABLE sealed_steps RENAME TO job_steps;

COMMIT;

VACUUM;
