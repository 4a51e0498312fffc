-- An acquire that meets a holder or a queue: replay, sign of life, claim of a reservation, or a new place.
-- $1 now, $2 key, $3 attempt, $4 TTL, $5 wall clock in us, $6 details, $7 boot, $8 socket,
-- $9 spare tokens, $10 waits, $11 ticket it had, $12 life of its place, $13 claim window, $14 dead waiter
-- Nothing is touched when the file has the mark of another boot: its times are not those of our clock.
BEGIN IMMEDIATE;

-- Out of the queue: who gave no sign of life, is known to be dead, or let a reservation pass.
DELETE FROM leasehold_waiter
WHERE key = $2 AND attempt <> $3
  AND (deadline <= $1 OR attempt = $14
       OR attempt = (SELECT owner FROM leasehold_lock WHERE key = $2 AND held = 0 AND expires <= $1))
  AND EXISTS (SELECT 1 FROM leasehold_meta WHERE boot = $7);

UPDATE leasehold_lock SET owner = NULL
WHERE key = $2 AND held = 0 AND owner = $14;

-- The grant: the lock is reserved for this attempt, or it is free and nobody comes first.
INSERT INTO leasehold_lock (key, token, owner, held, expires, since, wake, details)
SELECT $2, max(1, $5) + $9, $3, 1, $1 + $4, $5, $8, $6
FROM leasehold_meta
WHERE boot = $7
  AND (EXISTS (SELECT 1 FROM leasehold_lock WHERE key = $2 AND held = 0 AND owner = $3)
       OR NOT EXISTS (
           SELECT 1 FROM leasehold_waiter
           WHERE key = $2 AND attempt <> $3
             AND ticket < coalesce(
                 $11, (SELECT min(ticket) FROM leasehold_waiter WHERE key = $2 AND attempt = $3),
                 9223372036854775807)))
ON CONFLICT (key) DO UPDATE
SET token = max(token + 1 + $9, excluded.token), owner = excluded.owner, held = 1, expires = excluded.expires,
    since = excluded.since, wake = excluded.wake, details = excluded.details
WHERE owner IS NULL OR expires <= $1 OR (held = 0 AND owner = $3);

DELETE FROM leasehold_waiter
WHERE key = $2 AND attempt = $3
  AND EXISTS (SELECT 1 FROM leasehold_lock WHERE key = $2 AND owner = $3 AND held = 1 AND expires > $1);

-- No grant: a place in the queue, the last one if it had none. One that was prolonged a moment ago is left as it is,
-- which saves the write.
INSERT INTO leasehold_waiter (key, ticket, attempt, deadline, wake)
SELECT $2,
       coalesce($11, (SELECT min(ticket) FROM leasehold_waiter WHERE key = $2 AND attempt = $3),
                max($1, 1 + coalesce((SELECT max(ticket) FROM leasehold_waiter WHERE key = $2), 0))),
       $3, $1 + $12, $8
FROM leasehold_meta
WHERE $10 AND boot = $7
  AND NOT EXISTS (SELECT 1 FROM leasehold_lock WHERE key = $2 AND owner = $3 AND held = 1 AND expires > $1)
ON CONFLICT (key, ticket, attempt) DO UPDATE
SET deadline = excluded.deadline, wake = excluded.wake
WHERE deadline < excluded.deadline - $12 / 8 OR wake IS NOT excluded.wake;

-- A free lock with a queue goes to its head, even when a try came by.
INSERT INTO leasehold_lock (key, token, owner, held, expires, since, wake, details)
SELECT $2, 0, attempt, 0, $1 + $13, 0, wake, ''
FROM leasehold_waiter
WHERE key = $2 AND EXISTS (SELECT 1 FROM leasehold_meta WHERE boot = $7)
ORDER BY ticket, attempt LIMIT 1
ON CONFLICT (key) DO UPDATE
SET owner = excluded.owner, held = 0, expires = excluded.expires, wake = excluded.wake, details = ''
WHERE owner IS NULL OR expires <= $1;

SELECT 'answer', meta.boot = $7, lock.owner = $3 AND lock.held = 1,
       lock.token, lock.expires, lock.held, lock.details, lock.since,
       place.ticket,
       (SELECT count(*) FROM leasehold_waiter AS other
        WHERE other.key = $2 AND (other.ticket, other.attempt) < (place.ticket, $3)),
       EXISTS (SELECT 1 FROM leasehold_waiter WHERE key = $2 AND attempt <> $3)
FROM leasehold_meta AS meta
LEFT JOIN leasehold_lock AS lock ON lock.key = $2 AND lock.owner IS NOT NULL AND lock.expires > $1
LEFT JOIN (SELECT min(ticket) AS ticket FROM leasehold_waiter WHERE key = $2 AND attempt = $3) AS place;

-- Whom to tell, when the reservation is of this very moment.
SELECT 'head', attempt, wake
FROM leasehold_waiter
WHERE key = $2
  AND EXISTS (SELECT 1 FROM leasehold_lock
              WHERE key = $2 AND held = 0 AND owner IS NOT NULL AND expires = $1 + $13)
ORDER BY ticket, attempt LIMIT 4;

COMMIT;
