-- When the settings of an instance last changed; NULL before the first change.

ALTER TABLE instances ADD COLUMN changed_at INTEGER;
