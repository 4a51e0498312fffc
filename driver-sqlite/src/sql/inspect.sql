-- $1 now, $2 key; a row without a holder when somebody waits for a free lock.
SELECT lock.details, lock.token, lock.expires, lock.since, lock.owner, lock.wake,
       (SELECT count(*) FROM leasehold_waiter WHERE key = $2 AND deadline > $1)
FROM leasehold_meta
LEFT JOIN leasehold_lock AS lock
  ON lock.key = $2 AND lock.held = 1 AND lock.owner IS NOT NULL AND lock.expires > $1;
