-- $1 now, $2 to $3 the range of keys
SELECT lock.key, lock.details, lock.token, lock.expires, lock.since,
       (SELECT count(*) FROM leasehold_waiter AS waiter WHERE waiter.key = lock.key AND waiter.deadline > $1)
FROM leasehold_lock AS lock
WHERE lock.key >= $2 AND lock.key < $3 AND lock.held = 1 AND lock.owner IS NOT NULL AND lock.expires > $1
ORDER BY lock.key;
