-- The whole of a release that nobody waits for. The last insert id is 2 for a lock that was held, 1 for one that was
-- over, 0 when there is more to do.
UPDATE leasehold_lock
SET expires = 0 * LAST_INSERT_ID(IF(held = 1 AND expires > :now, 2, 1)), owner = NULL
WHERE name = :key AND owner = :me AND queued = 0
