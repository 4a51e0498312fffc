-- A row without a holder when somebody waits for a free lock.
SELECT held.details, held.token, held.expires - :now, held.since, HEX(held.owner),
       (SELECT COUNT(*) FROM leasehold_waiter WHERE name = :key AND deadline > :now)
FROM leasehold_meta
LEFT JOIN leasehold_lock AS held
  ON held.name = :key AND held.held = 1 AND held.owner IS NOT NULL AND held.expires > :now
WHERE leasehold_meta.id = 1
