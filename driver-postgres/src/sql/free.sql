-- Frees those of the locks that nobody waits for; gives whether each was held to here. The rest is left to `release`.
UPDATE {schema}.lock AS l SET owner = NULL
FROM (
    SELECT r.* FROM unnest($1::text[], $2::text[]) AS r (key, attempt)
    JOIN {schema}.lock AS f ON f.key = r.key
    WHERE f.owner = r.attempt AND NOT f.waits
    FOR UPDATE OF f SKIP LOCKED) AS r,
    (SELECT set_config('synchronous_commit', 'off', true)) AS off
WHERE l.key = r.key
RETURNING r.attempt AS owner, l.held AND l.expires > clock_timestamp() AS was_held
