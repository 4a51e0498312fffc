-- Takes those of the locks that nobody has or wants; gives the attempts that got theirs. What somebody else is at is
-- left to `acquire`.
WITH asked AS MATERIALIZED (
    SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bytea[], $5::bigint[])
        AS r (key, attempt, ttl, details, spare)
),
taken AS (
    UPDATE {schema}.lock AS l
    SET token = greatest(l.token + 1, {schema}.us(clock_timestamp())) + r.spare, owner = r.attempt, held = true,
        expires = clock_timestamp() + r.ttl * interval '1 microsecond', since = clock_timestamp(), wake = $6,
        session = NULL, details = r.details
    FROM (
        SELECT r.* FROM asked AS r JOIN {schema}.lock AS f ON f.key = r.key
        WHERE NOT f.waits AND f.session IS NULL AND (f.owner IS NULL OR f.expires <= clock_timestamp())
        FOR UPDATE OF f SKIP LOCKED) AS r
    WHERE l.key = r.key
    RETURNING l.owner, l.token
),
made AS (
    INSERT INTO {schema}.lock AS l (key, token, owner, held, waits, expires, since, wake, details)
    SELECT r.key, greatest(1, {schema}.us(clock_timestamp())) + r.spare, r.attempt, true, false,
           clock_timestamp() + r.ttl * interval '1 microsecond', clock_timestamp(), $6, r.details
    FROM asked AS r
    WHERE NOT EXISTS (SELECT FROM {schema}.lock AS f WHERE f.key = r.key)
      AND NOT EXISTS (SELECT FROM {schema}.waiter AS w WHERE w.key = r.key)
    ORDER BY r.key
    ON CONFLICT DO NOTHING
    RETURNING l.owner, l.token
)
SELECT * FROM taken UNION ALL SELECT * FROM made
