-- What operators say of devices, for queries over the fleet.
CREATE TABLE device_labels (
    device TEXT NOT NULL REFERENCES devices (id) ON DELETE CASCADE,
    key    TEXT NOT NULL,
    value  TEXT NOT NULL,
    PRIMARY KEY (device, key)
) STRICT, WITHOUT ROWID;

-- Labels of the devices that a token lets in: an object, as JSON.
ALTER TABLE enrolment_tokens ADD COLUMN labels TEXT NOT NULL DEFAULT '{}';

-- A device reads what is assigned to it, and nothing else.
CREATE INDEX assignments_by_device ON assignments (device);

-- Queries that have a name.
CREATE TABLE device_groups (
    name         TEXT PRIMARY KEY,
    query        TEXT NOT NULL,
    created_at_s INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- How versions reach the fleet in stages: what is kept of each, without its devices, as JSON.
CREATE TABLE rollouts (
    id           TEXT PRIMARY KEY,
    model        TEXT NOT NULL,
    version      INTEGER NOT NULL,
    phase        TEXT NOT NULL,
    is_over      INTEGER NOT NULL,
    state        BLOB NOT NULL,
    planned_by   TEXT NOT NULL,
    planned_at_s INTEGER NOT NULL,
    changed_at_s INTEGER NOT NULL
) STRICT;

-- The devices of each. Who is told runs that version, whatever is assigned.
CREATE TABLE rollout_devices (
    rollout TEXT NOT NULL REFERENCES rollouts (id),
    device  TEXT NOT NULL,
    model   TEXT NOT NULL,
    version INTEGER NOT NULL,
    is_told INTEGER NOT NULL,
    state   BLOB NOT NULL,
    PRIMARY KEY (rollout, device)
) STRICT, WITHOUT ROWID;
CREATE INDEX rollout_devices_told ON rollout_devices (device) WHERE is_told = 1;

-- What devices have counted for the models of running roll-outs, as JSON.
CREATE TABLE evidence (
    device TEXT NOT NULL,
    model  TEXT NOT NULL,
    ledger BLOB NOT NULL,
    PRIMARY KEY (device, model)
) STRICT, WITHOUT ROWID;
