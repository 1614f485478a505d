-- Which store the backups are in, whatever path or URL leads to it: one row at the most.

CREATE TABLE store (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    id       TEXT    NOT NULL
) STRICT;
