-- A release or an abandoned wait: frees what the attempt has, and reserves a free lock for the head of the queue.
-- $1 now, $2 key, $3 attempt, $4 claim window, $5 boot, $6 dead waiter
-- With the mark of another boot on the file, nothing but what the attempt has is touched.
BEGIN IMMEDIATE;

DELETE FROM leasehold_waiter
WHERE key = $2
  AND (attempt = $3 OR attempt = $6
       OR EXISTS (SELECT 1 FROM leasehold_meta WHERE boot = $5)
          AND (deadline <= $1
               OR attempt = (SELECT owner FROM leasehold_lock WHERE key = $2 AND held = 0 AND expires <= $1)));

UPDATE leasehold_lock SET owner = NULL
WHERE key = $2 AND (owner = $3 OR (held = 0 AND owner = $6))
RETURNING 'answer', held = 1 AND expires > $1;

INSERT INTO leasehold_lock (key, token, owner, held, expires, since, wake, details)
SELECT $2, 0, attempt, 0, $1 + $4, 0, wake, ''
FROM leasehold_waiter
WHERE key = $2 AND EXISTS (SELECT 1 FROM leasehold_meta WHERE boot = $5)
ORDER BY ticket, attempt LIMIT 1
ON CONFLICT (key) DO UPDATE
SET owner = excluded.owner, held = 0, expires = excluded.expires, wake = excluded.wake, details = ''
WHERE owner IS NULL OR expires <= $1;

SELECT 'head', attempt, wake
FROM leasehold_waiter
WHERE key = $2
  AND EXISTS (SELECT 1 FROM leasehold_lock
              WHERE key = $2 AND held = 0 AND owner IS NOT NULL AND expires = $1 + $4)
ORDER BY ticket, attempt LIMIT 4;

COMMIT;
