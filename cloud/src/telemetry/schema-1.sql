-- A body that is NULL was deleted: the row stays for a while, so that the segment is not taken again.
CREATE TABLE segments (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    device TEXT NOT NULL,
    segment INTEGER NOT NULL,
    class TEXT NOT NULL,
    tenant TEXT NOT NULL,
    key_id TEXT NOT NULL,
    created_unix_ms INTEGER NOT NULL,
    received_at_s INTEGER NOT NULL,
    frames INTEGER NOT NULL,
    records INTEGER NOT NULL,
    size_bytes INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    body BLOB,
    UNIQUE (device, segment)
) STRICT;
CREATE INDEX segments_received ON segments (received_at_s);
CREATE INDEX segments_tenant ON segments (tenant);
-- What has come of a segment whose stream broke off, one for each device.
CREATE TABLE partials (
    device TEXT PRIMARY KEY,
    segment INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    received_at_s INTEGER NOT NULL,
    body BLOB NOT NULL
) STRICT;
-- Sums of what devices count in the clear, by the hour in which it came.
CREATE TABLE counters (
    hour_s INTEGER NOT NULL,
    device TEXT NOT NULL,
    tenant TEXT NOT NULL,
    model TEXT NOT NULL,
    version INTEGER NOT NULL,
    placement TEXT NOT NULL,
    reason TEXT NOT NULL,
    requests INTEGER NOT NULL,
    failures INTEGER NOT NULL,
    PRIMARY KEY (hour_s, device, model, version, placement, reason)
) STRICT, WITHOUT ROWID;
-- What devices gave up, all in all.
CREATE TABLE dropped (
    device TEXT NOT NULL,
    tenant TEXT NOT NULL,
    class TEXT NOT NULL,
    reason TEXT NOT NULL,
    records INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    PRIMARY KEY (device, class, reason)
) STRICT, WITHOUT ROWID;
