-- An acquire that meets a holder or a queue: replay, sign of life, claim of a reservation, or a new place.
-- The row of the lock is the mutex of all that is done to its queue.
START TRANSACTION;

INSERT INTO leasehold_lock (name, token, owner, held, queued, expires, since, details)
VALUES (:key, 0, NULL, 0, 0, 0, 0, '')
ON DUPLICATE KEY UPDATE token = token;

-- A statement of its own: the clock is read when the row is ours. Whose reservation has passed is passed over until it
-- asks again. A process whose doorbell is gone is dead.
SELECT now, ours, granted, lapsed, others, first, ours = 0 AND granted = 0 AND :waits,
       CAST(COALESCE(ticket, GREATEST(now, 1 + COALESCE(
           (SELECT MAX(waiter.ticket) FROM leasehold_waiter AS waiter WHERE waiter.name = :key), 0))) AS UNSIGNED)
INTO @lh_now, @lh_ours, @lh_grant, @lh_lapsed, @lh_others, @lh_first, @lh_place, @lh_ticket
FROM (
    SELECT seen.*, ours = 0 AND (reserved = 1 OR free = 1 AND first IS NULL) AS granted
    FROM (
        SELECT lease.*,
               IF(free = 0, NULL, (
                   SELECT attempt FROM leasehold_waiter AS waiter
                   WHERE waiter.name = :key AND waiter.ticket < COALESCE(lease.ticket, 18446744073709551615)
                     AND attempt <> :me AND NOT (attempt <=> lease.lapsed) AND deadline > lease.now
                     AND (wake IS NULL OR IS_USED_LOCK(wake) IS NOT NULL)
                   ORDER BY waiter.ticket, attempt LIMIT 1)) AS first,
               EXISTS (
                   SELECT 1 FROM leasehold_waiter AS waiter
                   WHERE waiter.name = :key AND attempt <> :me) AS others
        FROM (
            SELECT :now AS now, expires <= :now AS free,
                   COALESCE(owner = :me AND held = 1 AND expires > :now, 0) AS ours,
                   COALESCE(owner = :me AND held = 0, 0) AS reserved,
                   IF(owner <> :me AND held = 0 AND expires <= :now, owner, NULL) AS lapsed,
                   COALESCE(:ticket, (SELECT waiter.ticket FROM leasehold_waiter AS waiter WHERE attempt = :me))
                       AS ticket
            FROM leasehold_lock WHERE name = :key) AS lease) AS seen) AS decided;

UPDATE leasehold_waiter SET deadline = 0 WHERE attempt = @lh_lapsed;

DELETE FROM leasehold_waiter WHERE attempt = IF(@lh_place, NULL, :me);

UPDATE leasehold_lock
SET token = IF(@lh_grant, GREATEST(token + 1, CAST(@lh_now AS UNSIGNED)) + :spare, token),
    owner = IF(@lh_grant, :me, owner),
    held = IF(@lh_grant, 1, held),
    expires = IF(@lh_grant, @lh_now + :ttl, expires),
    since = IF(@lh_grant, @lh_now, since),
    details = IF(@lh_grant, :details, details),
    queued = @lh_others OR @lh_place
WHERE name = :key;

-- A place that was prolonged a moment ago is left as it is, which saves the write. Who asks has forgotten when it was told
-- to look.
INSERT INTO leasehold_waiter (attempt, name, ticket, deadline, wake, called, look)
SELECT :me, :key, @lh_ticket, @lh_now + :life, :wake, NULL, 0 FROM DUAL WHERE @lh_place
ON DUPLICATE KEY UPDATE
    deadline = IF(deadline < @lh_now + :life - :life DIV 8, @lh_now + :life, deadline),
    wake = :wake, look = 0;

SELECT @lh_ours OR @lh_grant, token, expires - @lh_now, held, details, since,
       CAST(IF(@lh_place, @lh_ticket, NULL) AS UNSIGNED),
       (SELECT COUNT(*) FROM leasehold_waiter WHERE name = :key AND ticket < @lh_ticket),
       @lh_others,
       @lh_first IS NOT NULL
FROM leasehold_lock WHERE name = :key;

COMMIT
