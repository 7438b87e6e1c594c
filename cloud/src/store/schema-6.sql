-- A token may let in several devices, and be taken back. Each of its devices is a key, numbered from 1.
ALTER TABLE enrolment_tokens ADD COLUMN uses_max INTEGER NOT NULL DEFAULT 1;
ALTER TABLE enrolment_tokens ADD COLUMN revoked_at_s INTEGER;

CREATE TABLE token_uses (
    token     TEXT NOT NULL REFERENCES enrolment_tokens (id),
    key_hash  TEXT NOT NULL,
    number    INTEGER NOT NULL,
    used_at_s INTEGER NOT NULL,
    PRIMARY KEY (token, key_hash)
) STRICT, WITHOUT ROWID;
-- When they were used was not kept.
INSERT INTO token_uses
    SELECT id, used_by_key, 1, created_at_s FROM enrolment_tokens WHERE used_by_key IS NOT NULL;
ALTER TABLE enrolment_tokens DROP COLUMN used_by_key;

-- Which fleet CA has signed the certificate that was shown last; empty before the first connection.
ALTER TABLE devices ADD COLUMN ca_hash TEXT NOT NULL DEFAULT '';
ALTER TABLE nodes ADD COLUMN ca_hash TEXT NOT NULL DEFAULT '';
