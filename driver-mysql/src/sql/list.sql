SELECT held.details, held.token, held.expires - :now, held.since, held.name,
       (SELECT COUNT(*) FROM leasehold_waiter AS waiter WHERE waiter.name = held.name AND waiter.deadline > :now)
FROM leasehold_lock AS held
WHERE held.name >= :first AND held.name < :last AND held.held = 1 AND held.owner IS NOT NULL AND held.expires > :now
ORDER BY held.name
