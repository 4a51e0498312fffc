-- A place in the queue of a lock that another has, or is about to take: a new one, or a sign of life. The row of the lock is
-- the mutex of its queue. There is no row when the lock may be had.
START TRANSACTION;

UPDATE leasehold_lock SET queued = 1 WHERE name = :key AND owner <> :me AND expires > :now;

INSERT INTO leasehold_waiter (attempt, name, ticket, deadline, wake, called, look)
SELECT :me, :key,
       CAST(COALESCE(:ticket, GREATEST(:now, 1 + COALESCE(
           (SELECT MAX(waiter.ticket) FROM leasehold_waiter AS waiter WHERE waiter.name = :key), 0))) AS UNSIGNED),
       :now + :life, :wake, NULL, 0
FROM DUAL WHERE ROW_COUNT() > 0
ON DUPLICATE KEY UPDATE
    deadline = IF(deadline < :now + :life - :life DIV 8, :now + :life, deadline),
    wake = :wake, look = 0;

SELECT 0, token, expires - :now, held, details, since, place.ticket,
       (SELECT COUNT(*) FROM leasehold_waiter AS ahead WHERE ahead.name = :key AND ahead.ticket < place.ticket),
       1, 0
FROM leasehold_lock JOIN leasehold_waiter AS place ON place.attempt = :me
WHERE leasehold_lock.name = :key AND owner <> :me AND expires > :now;

COMMIT
