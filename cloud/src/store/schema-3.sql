-- Inference nodes. A node is its key; the id is what people and certificates call it by.
CREATE TABLE nodes (
    id          TEXT PRIMARY KEY,
    key_hash    TEXT NOT NULL UNIQUE,
    label       TEXT NOT NULL,
    hostname    TEXT NOT NULL,
    names       TEXT NOT NULL,
    version     TEXT NOT NULL,
    address     TEXT NOT NULL DEFAULT '',
    joined_at_s INTEGER NOT NULL,
    last_seen_s INTEGER,
    removed     INTEGER NOT NULL DEFAULT 0,
    -- The newest batch of usage that was taken from it.
    usage_batch INTEGER NOT NULL DEFAULT 0
) STRICT;

-- names: host names and addresses that its certificate may bear, separated by spaces.
CREATE TABLE node_tokens (
    id           TEXT PRIMARY KEY,
    digest       BLOB NOT NULL,
    label        TEXT NOT NULL,
    names        TEXT NOT NULL,
    created_at_s INTEGER NOT NULL,
    expires_at_s INTEGER NOT NULL,
    used_by_key  TEXT
) STRICT;

-- On an inference node: how far it knows what the control node knows. There, keys, tenants, devices,
-- assignments, bundles, policies and signers are copies.
CREATE TABLE replica (
    id             INTEGER PRIMARY KEY CHECK (id = 1),
    epoch          BLOB NOT NULL,
    cursor         INTEGER NOT NULL,
    -- When the control node was heard last, Unix seconds; 0 for never.
    contact_s      INTEGER NOT NULL,
    -- Until when the uses of keys were put into batches.
    keys_noted_s   INTEGER NOT NULL,
    last_batch     INTEGER NOT NULL
) STRICT;
INSERT INTO replica VALUES (1, x'', 0, 0, 0, 0);

-- On an inference node: the batch of usage that the control node has not taken yet. At most one.
CREATE TABLE usage_batch (
    batch INTEGER PRIMARY KEY,
    -- A NodeUsage message.
    body  BLOB NOT NULL
) STRICT;
