-- Operators' keys: only the SHA-256 of the secret is kept.
CREATE TABLE api_keys (
    id           TEXT PRIMARY KEY,
    digest       BLOB NOT NULL,
    role         TEXT NOT NULL,
    name         TEXT NOT NULL,
    created_at_s INTEGER NOT NULL
) STRICT;

-- Ed25519 public keys whose signatures devices trust.
CREATE TABLE signers (
    key_id       TEXT PRIMARY KEY,
    public_key   BLOB NOT NULL,
    name         TEXT NOT NULL,
    created_at_s INTEGER NOT NULL
) STRICT;

CREATE TABLE enrolment_tokens (
    id           TEXT PRIMARY KEY,
    digest       BLOB NOT NULL,
    label        TEXT NOT NULL,
    created_at_s INTEGER NOT NULL,
    expires_at_s INTEGER NOT NULL,
    used_by_key  TEXT
) STRICT;

-- A device is its key; the id is what people call it by.
CREATE TABLE devices (
    id            TEXT PRIMARY KEY,
    key_hash      TEXT NOT NULL UNIQUE,
    label         TEXT NOT NULL,
    hostname      TEXT NOT NULL,
    agent_version TEXT NOT NULL,
    os            TEXT NOT NULL DEFAULT '',
    arch          TEXT NOT NULL DEFAULT '',
    enrolled_at_s INTEGER NOT NULL,
    last_seen_s   INTEGER,
    denied        INTEGER NOT NULL DEFAULT 0,
    reported      BLOB NOT NULL DEFAULT x''
) STRICT;

CREATE TABLE bundles (
    bundle          TEXT PRIMARY KEY,
    model           TEXT NOT NULL,
    version         INTEGER NOT NULL,
    variant         TEXT NOT NULL,
    signed_manifest BLOB NOT NULL,
    signer          TEXT NOT NULL REFERENCES signers (key_id),
    size_bytes      INTEGER NOT NULL,
    pushed_at_s     INTEGER NOT NULL,
    UNIQUE (model, variant, version)
) STRICT;

CREATE TABLE bundle_files (
    bundle     TEXT NOT NULL REFERENCES bundles (bundle),
    name       TEXT NOT NULL,
    sha256     TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,
    PRIMARY KEY (bundle, name)
) STRICT, WITHOUT ROWID;

-- device '' is the whole fleet.
CREATE TABLE assignments (
    model         TEXT NOT NULL,
    device        TEXT NOT NULL,
    version       INTEGER NOT NULL,
    assigned_at_s INTEGER NOT NULL,
    PRIMARY KEY (model, device)
) STRICT, WITHOUT ROWID;

-- Grows whenever any device's desired state may have changed.
CREATE TABLE desired_revision (
    id     INTEGER PRIMARY KEY CHECK (id = 1),
    number INTEGER NOT NULL
) STRICT;
INSERT INTO desired_revision VALUES (1, 1);

CREATE TABLE audit (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    at_s    INTEGER NOT NULL,
    actor   TEXT NOT NULL,
    action  TEXT NOT NULL,
    subject TEXT NOT NULL,
    detail  TEXT NOT NULL
) STRICT;
CREATE TRIGGER audit_is_not_rewritten BEFORE UPDATE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
CREATE TRIGGER audit_is_not_shortened BEFORE DELETE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
