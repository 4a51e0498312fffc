BEGIN IMMEDIATE;

-- One row: what the file is, by which clock its leases end, and the boot that this clock belongs to.
CREATE TABLE IF NOT EXISTS leasehold_meta (
    layout INTEGER NOT NULL,
    clock TEXT NOT NULL,
    boot TEXT NOT NULL
) STRICT;

-- One row for each lock that is held, reserved, or was used of late.
CREATE TABLE IF NOT EXISTS leasehold_lock (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL UNIQUE,  -- namespace/kind/name, in the encoding of lockcore
    token INTEGER NOT NULL,    -- of the last grant
    owner TEXT,                -- the attempt that holds it, or that it is reserved for; NULL: free
    held INTEGER NOT NULL,     -- 1: `owner` holds it, 0: `owner` waits and was told to take it
    expires INTEGER NOT NULL,  -- when the lease or the reservation ends, in ns of the clock
    since INTEGER NOT NULL,    -- wall clock of the grant, in us since 1970
    wake TEXT,                 -- the socket of the owner's process
    details TEXT NOT NULL      -- who it is, for people
) STRICT;

-- One row for each waiter. A ticket is a clock reading, past those before it: it keeps its place in the queue when the
-- waiter was dropped and comes back.
CREATE TABLE IF NOT EXISTS leasehold_waiter (
    key TEXT NOT NULL,
    ticket INTEGER NOT NULL,
    attempt TEXT NOT NULL,
    deadline INTEGER NOT NULL, -- the end of its place without a sign of life, in ns of the clock
    wake TEXT,                 -- the socket of its process; NULL: it asks by itself
    PRIMARY KEY (key, ticket, attempt)
) STRICT, WITHOUT ROWID;

INSERT INTO leasehold_meta (layout, clock, boot)
SELECT $1, $2, $3 WHERE NOT EXISTS (SELECT 1 FROM leasehold_meta);

COMMIT;
