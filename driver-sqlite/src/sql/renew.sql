-- $1 now, $2 the leases, [[key, attempt, token, TTL], ..]
UPDATE leasehold_lock
SET expires = $1 + lease.ttl
FROM (SELECT value ->> 0 AS key, value ->> 1 AS attempt, value ->> 2 AS token, value ->> 3 AS ttl
      FROM json_each($2)) AS lease
WHERE leasehold_lock.key = lease.key
  AND leasehold_lock.owner = lease.attempt
  AND leasehold_lock.held = 1
  AND leasehold_lock.token = lease.token
  AND leasehold_lock.expires > $1
RETURNING owner;
