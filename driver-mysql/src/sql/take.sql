-- The whole of an acquire that meets nobody. The token comes back as the last insert id; 0 is a refusal.
-- Columns are set from left to right, and `expires`, by which all of them are decided, comes last.
INSERT INTO leasehold_lock (name, token, owner, held, queued, expires, since, details)
VALUES (:key, LAST_INSERT_ID(:now + :spare), :me, 1, 0, :now + :ttl, :now, :details)
ON DUPLICATE KEY UPDATE
    token = IF(queued = 0 AND expires <= :now,
               LAST_INSERT_ID(GREATEST(token + 1, CAST(:now AS UNSIGNED)) + :spare), token + 0 * LAST_INSERT_ID(0)),
    owner = IF(queued = 0 AND expires <= :now, :me, owner),
    held = IF(queued = 0 AND expires <= :now, 1, held),
    since = IF(queued = 0 AND expires <= :now, :now, since),
    details = IF(queued = 0 AND expires <= :now, :details, details),
    expires = IF(queued = 0 AND expires <= :now, :now + :ttl, expires)
