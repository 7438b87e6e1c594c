-- Builds of the agent, each version for several kinds of machines, and which version devices should run.
CREATE TABLE releases (
    id          TEXT PRIMARY KEY,
    version     TEXT NOT NULL,
    target      TEXT NOT NULL,
    signed      BLOB NOT NULL,
    sha256      TEXT NOT NULL,
    size_bytes  INTEGER NOT NULL,
    pushed_at_s INTEGER NOT NULL,
    UNIQUE (version, target)
) STRICT, WITHOUT ROWID;

-- An empty device stands for all; the row that names the device counts first.
CREATE TABLE release_assignments (
    device        TEXT PRIMARY KEY,
    version       TEXT NOT NULL,
    assigned_at_s INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
