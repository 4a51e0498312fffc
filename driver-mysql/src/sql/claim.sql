-- The claim of a turn that this waiter was told of, which is the most that is asked under contention. Nothing is matched
-- when it was not told, or is passed over. Others may wait: `queued` stays.
START TRANSACTION;

UPDATE leasehold_lock
SET token = LAST_INSERT_ID(GREATEST(token + 1, CAST(:now AS UNSIGNED))), held = 1, expires = :now + :ttl, since = :now,
    details = :details
WHERE name = :key AND owner = :me AND held = 0;

DELETE FROM leasehold_waiter WHERE attempt = IF(ROW_COUNT() > 0, :me, NULL);

COMMIT
