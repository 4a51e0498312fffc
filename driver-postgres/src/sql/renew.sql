UPDATE {schema}.lock AS l
SET expires = clock_timestamp() + r.ttl * interval '1 microsecond', wake = $5
FROM (SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[]) AS u (key, owner, token, ttl)) AS r
WHERE l.key = r.key AND l.owner = r.owner AND l.held AND l.token = r.token AND l.session IS NULL
  AND l.expires > clock_timestamp()
RETURNING l.owner
