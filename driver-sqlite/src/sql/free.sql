-- The whole of a release that nobody waits for.
-- $1 now, $2 key, $3 attempt
UPDATE leasehold_lock SET owner = NULL
WHERE key = $2 AND owner = $3
  AND NOT EXISTS (SELECT 1 FROM leasehold_waiter WHERE key = $2)
RETURNING held = 1 AND expires > $1;
