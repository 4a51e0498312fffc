-- Who holds it, for a try that was refused. It locks nothing.
SELECT COALESCE(owner = :me, 0), token, expires - :now, held, details, since
FROM leasehold_lock WHERE name = :key
