-- A release or an abandoned wait: frees what the attempt has, and reserves a free lock for the first live waiter. The two
-- behind it are told to look when the reservation ends.
START TRANSACTION;

-- The mutex of all that is done to the queue. Without a row there would be none.
INSERT INTO leasehold_lock (name, token, owner, held, queued, expires, since, details)
VALUES (:key, 0, NULL, 0, 0, 0, 0, '')
ON DUPLICATE KEY UPDATE token = token;

SELECT :now,
       IF(COALESCE(owner = :me, 0), 1 + (held = 1 AND expires > :now), 0),
       COALESCE(owner = :me, 0) OR expires <= :now,
       IF(held = 0 AND expires <= :now, owner, NULL)
INTO @lh_now, @lh_outcome, @lh_free, @lh_lapsed
FROM leasehold_lock WHERE name = :key;

-- The first three, 32 digits each, and the ticket of the first.
SELECT GROUP_CONCAT(HEX(attempt) ORDER BY ticket, attempt SEPARATOR ''),
       COALESCE(MIN(ticket), 18446744073709551615)
INTO @lh_next, @lh_until
FROM (
    SELECT attempt, ticket
    FROM leasehold_waiter
    WHERE @lh_free AND name = :key AND attempt <> :me AND NOT (attempt <=> @lh_lapsed) AND deadline > @lh_now
      AND (wake IS NULL OR IS_USED_LOCK(wake) IS NOT NULL)
    ORDER BY ticket, attempt LIMIT 3) AS next;

-- Each row by its key alone, so that the queues of other locks are not touched.
DELETE FROM leasehold_waiter WHERE attempt = :me;

-- Who stands by and was told so looks by itself: it is not told again before that.
UPDATE leasehold_waiter FORCE INDEX (PRIMARY)
SET deadline = IF(attempt <=> @lh_lapsed, 0, deadline),
    called = IF(attempt <=> @lh_lapsed
                OR attempt <> UNHEX(SUBSTRING(@lh_next, 1, 32)) AND look > 0 AND called + look > @lh_now, called, @lh_now),
    look = IF(attempt = UNHEX(SUBSTRING(@lh_next, 1, 32)), 0, IF(called <=> @lh_now, :window + :slack, look))
WHERE attempt IN (@lh_lapsed, UNHEX(SUBSTRING(@lh_next, 1, 32)), UNHEX(SUBSTRING(@lh_next, 33, 32)),
                  UNHEX(SUBSTRING(@lh_next, 65, 32)));

UPDATE leasehold_lock
SET owner = IF(@lh_free, UNHEX(SUBSTRING(@lh_next, 1, 32)), owner),
    held = IF(@lh_free, 0, held),
    expires = IF(@lh_free, IF(@lh_next IS NULL, 0, @lh_now + :window), expires),
    queued = EXISTS (SELECT 1 FROM leasehold_waiter WHERE leasehold_waiter.name = :key)
WHERE name = :key;

-- The connections that ring for those who were called. Then those before the first live one who will not come back: theirs
-- is a doorbell that is gone, or a call of long ago.
SELECT @lh_outcome,
       (SELECT GROUP_CONCAT(IS_USED_LOCK(wake) ORDER BY ticket, attempt)
        FROM leasehold_waiter
        WHERE attempt IN (UNHEX(SUBSTRING(@lh_next, 1, 32)), UNHEX(SUBSTRING(@lh_next, 33, 32)),
                          UNHEX(SUBSTRING(@lh_next, 65, 32)))
          AND called = @lh_now AND wake IS NOT NULL),
       (SELECT GROUP_CONCAT(HEX(attempt), '=', COALESCE(wake, ''))
        FROM leasehold_waiter
        WHERE @lh_free AND name = :key AND ticket < @lh_until
          AND (wake IS NULL OR IS_USED_LOCK(wake) IS NULL OR COALESCE(called, 0) < @lh_now - 60000000));

COMMIT
