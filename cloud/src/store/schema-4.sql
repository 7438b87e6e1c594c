-- Models that labs want timed on devices.
CREATE TABLE measurements (
    id           TEXT PRIMARY KEY,
    device       TEXT NOT NULL REFERENCES devices (id),
    -- measurement::SignedOrder as JSON.
    signed_order BLOB NOT NULL,
    ordered_at_s INTEGER NOT NULL,
    expires_at_s INTEGER NOT NULL,
    -- measurement::Report as JSON; absent until the device has said.
    report       BLOB
) STRICT;
CREATE INDEX measurements_by_device ON measurements (device);

-- The files of an order, until it is done.
CREATE TABLE measured_files (
    measurement TEXT NOT NULL REFERENCES measurements (id) ON DELETE CASCADE,
    sha256      TEXT NOT NULL,
    size_bytes  INTEGER NOT NULL,
    PRIMARY KEY (measurement, sha256)
) STRICT;
CREATE INDEX measured_files_by_hash ON measured_files (sha256);
