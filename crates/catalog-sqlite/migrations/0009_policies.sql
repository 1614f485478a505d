-- Policies by a pattern, in a time zone; what they keep beside a promised time; what reads files.

-- All three of a schedule are there, or none; then there is no plan of days and hours.
ALTER TABLE backup_policies ADD COLUMN pattern TEXT;
ALTER TABLE backup_policies ADD COLUMN zone TEXT;
ALTER TABLE backup_policies ADD COLUMN window_minutes INTEGER;
-- `skip` or `catch_up`; NULL leaves it to the service.
ALTER TABLE backup_policies ADD COLUMN missed TEXT;
-- How many of the newest stay, and the newest of how many periods.
ALTER TABLE backup_policies ADD COLUMN keep_count INTEGER NOT NULL DEFAULT 0;
ALTER TABLE backup_policies ADD COLUMN keep_daily INTEGER NOT NULL DEFAULT 0;
ALTER TABLE backup_policies ADD COLUMN keep_weekly INTEGER NOT NULL DEFAULT 0;
ALTER TABLE backup_policies ADD COLUMN keep_monthly INTEGER NOT NULL DEFAULT 0;
ALTER TABLE backup_policies ADD COLUMN keep_yearly INTEGER NOT NULL DEFAULT 0;
-- Where the days of the generations begin.
ALTER TABLE backup_policies ADD COLUMN keep_zone TEXT NOT NULL DEFAULT 'UTC';

-- Until when its files are being downloaded at least.
ALTER TABLE backups ADD COLUMN read_until INTEGER;
