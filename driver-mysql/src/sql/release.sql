-- A release or an abandoned wait: frees what the attempt has, and reserves a free lock for the first live waiter. The two
-- behind it are to look when the reservation ends, one after the other.
START TRANSACTION;

-- The mutex of all that is done to the queue. Without a row there would be none.
INSERT INTO leasehold_lock (name, token, owner, held, queued, expires, since, details)
VALUES (:key, 0, NULL, 0, 0, 0, 0, '')
ON DUPLICATE KEY UPDATE token = token;

SELECT now, outcome, free, lapsed, one, two,
       IF(two IS NULL, NULL, (
           SELECT attempt FROM leasehold_waiter AS waiter
           WHERE waiter.name = :key AND attempt NOT IN (:me, one, two) AND NOT (attempt <=> lapsed) AND deadline > now
             AND (wake IS NULL OR IS_USED_LOCK(wake) IS NOT NULL)
           ORDER BY ticket, attempt LIMIT 1)),
       IF(free, COALESCE((SELECT ticket FROM leasehold_waiter WHERE attempt = one), 18446744073709551615), 0),
       EXISTS (SELECT 1 FROM leasehold_waiter AS waiter WHERE waiter.name = :key AND attempt <> :me)
INTO @lh_now, @lh_outcome, @lh_free, @lh_lapsed, @lh_1, @lh_2, @lh_3, @lh_until, @lh_left
FROM (
    SELECT first.*,
           IF(one IS NULL, NULL, (
               SELECT attempt FROM leasehold_waiter AS waiter
               WHERE waiter.name = :key AND attempt NOT IN (:me, one) AND NOT (attempt <=> lapsed) AND deadline > now
                 AND (wake IS NULL OR IS_USED_LOCK(wake) IS NOT NULL)
               ORDER BY ticket, attempt LIMIT 1)) AS two
    FROM (
        SELECT lease.*,
               IF(free = 0, NULL, (
                   SELECT attempt FROM leasehold_waiter AS waiter
                   WHERE waiter.name = :key AND attempt NOT IN (:me) AND NOT (attempt <=> lapsed) AND deadline > now
                     AND (wake IS NULL OR IS_USED_LOCK(wake) IS NOT NULL)
                   ORDER BY ticket, attempt LIMIT 1)) AS one
        FROM (
            SELECT :now AS now,
                   IF(COALESCE(owner = :me, 0), 1 + (held = 1 AND expires > :now), 0) AS outcome,
                   COALESCE(owner = :me, 0) OR expires <= :now AS free,
                   IF(held = 0 AND expires <= :now, owner, NULL) AS lapsed
            FROM leasehold_lock WHERE name = :key) AS lease) AS first) AS second;

-- Each row by its key alone, so that the queues of other locks are not touched.
DELETE FROM leasehold_waiter WHERE attempt = :me;

UPDATE leasehold_waiter SET deadline = 0 WHERE attempt = @lh_lapsed;

UPDATE leasehold_waiter SET called = @lh_now, look = 0 WHERE attempt = @lh_1;

UPDATE leasehold_waiter SET called = @lh_now, look = :window + :slack WHERE attempt = @lh_2;

UPDATE leasehold_waiter SET called = @lh_now, look = 2 * (:window + :slack) WHERE attempt = @lh_3;

UPDATE leasehold_lock
SET owner = IF(@lh_free, @lh_1, owner),
    held = IF(@lh_free, 0, held),
    expires = IF(@lh_free, IF(@lh_1 IS NULL, 0, @lh_now + :window), expires),
    queued = @lh_left
WHERE name = :key;

-- With those before the first live one who will not come back: theirs is a doorbell that is gone, or a call of long ago.
SELECT @lh_outcome,
       (SELECT IS_USED_LOCK(wake) FROM leasehold_waiter WHERE attempt = @lh_1 AND wake IS NOT NULL),
       (SELECT IS_USED_LOCK(wake) FROM leasehold_waiter WHERE attempt = @lh_2 AND wake IS NOT NULL),
       (SELECT IS_USED_LOCK(wake) FROM leasehold_waiter WHERE attempt = @lh_3 AND wake IS NOT NULL),
       (SELECT GROUP_CONCAT(HEX(attempt), '=', COALESCE(wake, ''))
        FROM leasehold_waiter
        WHERE name = :key AND ticket < @lh_until
          AND (wake IS NULL OR IS_USED_LOCK(wake) IS NULL OR COALESCE(called, 0) < @lh_now - 60000000));

COMMIT
