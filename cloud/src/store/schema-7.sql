-- For whom devices seal their telemetry: an operator's signed statements, the newest of which holds.
CREATE TABLE analytics_keys (
    serial INTEGER PRIMARY KEY,
    statement BLOB NOT NULL,
    created_at_s INTEGER NOT NULL
) STRICT;
