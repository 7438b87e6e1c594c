-- A key belongs to a tenant, may ask some models, ends, and can be revoked.
ALTER TABLE api_keys ADD COLUMN tenant TEXT NOT NULL DEFAULT 'default';
ALTER TABLE api_keys ADD COLUMN models TEXT NOT NULL DEFAULT '*';
ALTER TABLE api_keys ADD COLUMN expires_at_s INTEGER;
ALTER TABLE api_keys ADD COLUMN revoked_at_s INTEGER;
ALTER TABLE api_keys ADD COLUMN last_used_s INTEGER;

ALTER TABLE enrolment_tokens ADD COLUMN tenant TEXT NOT NULL DEFAULT 'default';
ALTER TABLE devices ADD COLUMN tenant TEXT NOT NULL DEFAULT 'default';

-- What the keys and devices of a tenant may ask: patterns, separated by spaces.
CREATE TABLE tenants (
    name         TEXT PRIMARY KEY,
    models       TEXT NOT NULL,
    created_at_s INTEGER NOT NULL
) STRICT;
INSERT INTO tenants VALUES ('default', '*', 0);

-- Which versions of a model answer side by side; the newest alone where there is no row.
CREATE TABLE version_policies (
    model  TEXT PRIMARY KEY,
    policy TEXT NOT NULL
) STRICT;

-- What was asked, by hour. caller is 'key ID' or 'device ID'; model '' is none that is known.
CREATE TABLE usage (
    hour_s     INTEGER NOT NULL,
    tenant     TEXT NOT NULL,
    caller     TEXT NOT NULL,
    model      TEXT NOT NULL,
    requests   INTEGER NOT NULL,
    refused    INTEGER NOT NULL,
    compute_us INTEGER NOT NULL,
    bytes_in   INTEGER NOT NULL,
    bytes_out  INTEGER NOT NULL,
    PRIMARY KEY (hour_s, tenant, caller, model)
) STRICT, WITHOUT ROWID;
