-- What a download sent; and how many calls alike a record stands for, since not each that is refused
-- has its own.

ALTER TABLE audit ADD COLUMN bytes INTEGER;
ALTER TABLE audit ADD COLUMN times INTEGER NOT NULL DEFAULT 1;
