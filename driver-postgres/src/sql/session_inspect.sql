SELECT l.details, l.token, l.owner, {schema}.us(l.since) AS since_us, NULL::bigint AS left_us,
       (SELECT count(*) FROM {schema}.session_locks($1) AS k WHERE NOT k.granted) AS waiters
FROM (SELECT 1) AS one
LEFT JOIN {schema}.lock AS l
  ON l.key = $1 AND l.owner IS NOT NULL
  AND l.session = (SELECT k.pid FROM {schema}.session_locks($1) AS k WHERE k.granted)
