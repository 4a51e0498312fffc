-- One row: which layout the tables have.
CREATE TABLE IF NOT EXISTS leasehold_meta (
    id TINYINT NOT NULL PRIMARY KEY,
    layout INT NOT NULL
) ENGINE = InnoDB;

-- One row for each lock that is held, reserved, or was used of late. Times are microseconds since 1970 on the server's
-- clock.
CREATE TABLE IF NOT EXISTS leasehold_lock (
    name VARBINARY(400) NOT NULL PRIMARY KEY, -- namespace/kind/name, in the encoding of lockcore
    token BIGINT UNSIGNED NOT NULL,           -- of the last grant
    owner BINARY(16) NULL,                    -- the attempt that holds it, or that it is reserved for
    held TINYINT NOT NULL,                    -- 1: `owner` holds it, 0: `owner` waits and was told to take it
    queued TINYINT NOT NULL,                  -- 1: there may be rows for it in leasehold_waiter
    expires BIGINT NOT NULL,                  -- when the lease or the reservation ends; 0: free
    since BIGINT NOT NULL,                    -- when it was granted
    details VARBINARY(4096) NOT NULL          -- who it is, for people
) ENGINE = InnoDB;

-- One row for each waiter. A ticket is a clock reading, past those before it: it keeps its place in the queue when the
-- waiter was dropped and comes back.
CREATE TABLE IF NOT EXISTS leasehold_waiter (
    attempt BINARY(16) NOT NULL PRIMARY KEY,
    name VARBINARY(400) NOT NULL,
    ticket BIGINT UNSIGNED NOT NULL,
    deadline BIGINT NOT NULL,                 -- the end of its place without a sign of life
    wake VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NULL, -- its process's doorbell; NULL: it asks by itself
    called BIGINT NULL,                       -- when it was told last to look
    look BIGINT NOT NULL,                     -- and after how long it was told to do so, in microseconds
    KEY queue (name, ticket),
    KEY bell (wake, called)
) ENGINE = InnoDB;

INSERT IGNORE INTO leasehold_meta (id, layout) VALUES (1, 1);
