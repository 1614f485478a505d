-- Memory that the data of a restore needs, by who asked for it; NULL where the estimate counts.
ALTER TABLE restores ADD COLUMN needed_bytes INTEGER;
