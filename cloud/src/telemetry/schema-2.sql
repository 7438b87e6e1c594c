-- Sums over the fleet, as others may see them: what was shown, and what waits until enough devices have added to it.
-- The group without a name is that of all which found no place.
CREATE TABLE crowds (
    model TEXT NOT NULL,
    version INTEGER NOT NULL,
    placement TEXT NOT NULL,
    requests INTEGER NOT NULL,
    failures INTEGER NOT NULL,
    pending_requests INTEGER NOT NULL,
    pending_failures INTEGER NOT NULL,
    touched_at_s INTEGER NOT NULL,
    was_shown INTEGER NOT NULL,
    PRIMARY KEY (model, version, placement)
) STRICT, WITHOUT ROWID;
-- Who has added to what waits.
CREATE TABLE crowd_members (
    model TEXT NOT NULL,
    version INTEGER NOT NULL,
    placement TEXT NOT NULL,
    device TEXT NOT NULL,
    tenant TEXT NOT NULL,
    PRIMARY KEY (model, version, placement, device)
) STRICT, WITHOUT ROWID;
