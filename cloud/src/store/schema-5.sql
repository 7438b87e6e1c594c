-- The repository of models: every file of metadata, as it is served.
CREATE TABLE repository_files (
    name       TEXT PRIMARY KEY,
    role       TEXT NOT NULL,
    version    INTEGER NOT NULL,
    bytes      BLOB NOT NULL,
    taken_at_s INTEGER NOT NULL
) STRICT;
CREATE INDEX repository_files_by_role ON repository_files (role, version);

-- An operator's word for the first root (tuf::introduction::Introduction as JSON).
CREATE TABLE repository_introduction (
    one  INTEGER PRIMARY KEY CHECK (one = 1),
    said BLOB NOT NULL
) STRICT;

-- The director's last list for each device.
CREATE TABLE directed (
    device  TEXT PRIMARY KEY REFERENCES devices (id),
    version INTEGER NOT NULL,
    bytes   BLOB NOT NULL
) STRICT;
