-- The whole of an acquire that meets nobody.
-- $1 now, $2 key, $3 attempt, $4 TTL, $5 wall clock in us, $6 details, $7 boot, $8 socket, $9 spare tokens
INSERT INTO leasehold_lock (key, token, owner, held, expires, since, wake, details)
SELECT $2, max(1, $5) + $9, $3, 1, $1 + $4, $5, $8, $6
FROM leasehold_meta
WHERE boot = $7 AND NOT EXISTS (SELECT 1 FROM leasehold_waiter WHERE key = $2)
ON CONFLICT (key) DO UPDATE
SET token = max(token + 1 + $9, excluded.token), owner = excluded.owner, held = 1, expires = excluded.expires,
    since = excluded.since, wake = excluded.wake, details = excluded.details
WHERE owner IS NULL OR expires <= $1
RETURNING token;
