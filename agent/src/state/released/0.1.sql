-- The state of a device as version 0.1 of the agent has left it. Never changed: devices have it.
CREATE TABLE active (
    model TEXT PRIMARY KEY,
    version INTEGER NOT NULL,
    bundle TEXT NOT NULL,
    previous_version INTEGER,
    previous_bundle TEXT
) STRICT;
CREATE TABLE attempts (
    bundle TEXT NOT NULL,
    conditions TEXT NOT NULL,
    provider TEXT NOT NULL,
    begun INTEGER NOT NULL,
    PRIMARY KEY (bundle, conditions, provider)
) STRICT;
CREATE TABLE budget (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    saved TEXT NOT NULL
) STRICT;
CREATE TABLE audits (
    bundle TEXT PRIMARY KEY,
    findings TEXT NOT NULL
) STRICT;
CREATE TABLE remembered (
    bundle TEXT PRIMARY KEY,
    conditions TEXT NOT NULL,
    choice TEXT NOT NULL,
    private_bytes INTEGER NOT NULL
) STRICT;
CREATE TABLE proven (
    bundle TEXT PRIMARY KEY,
    agent TEXT NOT NULL,
    runtime TEXT NOT NULL,
    proof TEXT NOT NULL
) STRICT;
CREATE TABLE quarantine (
    bundle TEXT PRIMARY KEY,
    model TEXT NOT NULL,
    version INTEGER NOT NULL,
    reason TEXT NOT NULL,
    agent TEXT NOT NULL,
    runtime TEXT NOT NULL,
    since_s INTEGER NOT NULL
) STRICT;
CREATE TABLE trials (
    bundle TEXT PRIMARY KEY,
    begun INTEGER NOT NULL
) STRICT;
PRAGMA user_version = 1;

INSERT INTO active VALUES ('fashion', 2, '3fc4ccfe745870e2c0d99f71f30ff0656c8dedd41cc1d7d3d376b0dbe685e2f3', 1, '7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed');
INSERT INTO attempts VALUES ('7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed', 'c', 'cuda', 1);
INSERT INTO budget VALUES (1, '{"calls":{"level":7.25,"lease":1.5},"bytes":{"level":0.0,"lease":1.5},"at_s":9}');
INSERT INTO proven VALUES ('3fc4ccfe745870e2c0d99f71f30ff0656c8dedd41cc1d7d3d376b0dbe685e2f3', '0.1.0', '1.31', '{}');
INSERT INTO quarantine VALUES ('7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed', 'fashion', 1, 'it crashed', '0.1.0', '1.31', 1700000000);
INSERT INTO trials VALUES ('7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed', 2);
