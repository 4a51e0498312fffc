SELECT l.key, l.details, l.token, {schema}.us(l.since) AS since_us, NULL::bigint AS left_us,
       (SELECT count(*) FROM {schema}.session_locks(l.key) AS k WHERE NOT k.granted) AS waiters
FROM {schema}.lock AS l
WHERE l.key >= $1 AND l.key < $2 AND l.owner IS NOT NULL
  AND l.session = (SELECT k.pid FROM {schema}.session_locks(l.key) AS k WHERE k.granted)
ORDER BY l.key
