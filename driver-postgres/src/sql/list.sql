SELECT l.key, l.details, l.token, {schema}.us(l.since) AS since_us,
       (extract(epoch FROM l.expires - clock_timestamp()) * 1000000)::bigint AS left_us,
       (SELECT count(*) FROM {schema}.waiter AS w WHERE w.key = l.key AND w.deadline > clock_timestamp()) AS waiters
FROM {schema}.lock AS l
WHERE l.key >= $1 AND l.key < $2 AND l.held AND l.owner IS NOT NULL AND l.session IS NULL
  AND l.expires > clock_timestamp()
ORDER BY l.key
