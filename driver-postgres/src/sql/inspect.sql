SELECT l.details, l.token, l.owner, {schema}.us(l.since) AS since_us,
       (extract(epoch FROM l.expires - clock_timestamp()) * 1000000)::bigint AS left_us,
       (SELECT count(*) FROM {schema}.waiter AS w WHERE w.key = $1 AND w.deadline > clock_timestamp()) AS waiters
FROM (SELECT 1) AS one
LEFT JOIN {schema}.lock AS l
  ON l.key = $1 AND l.held AND l.owner IS NOT NULL AND l.session IS NULL AND l.expires > clock_timestamp()
