-- Acquires that meet nobody, many at a time; the owners and tokens of those that did. What somebody else has or waits for
-- stays as it is. One clock for all: `since` tells which of the rows were written here.
SET @lh_now = :now;

INSERT INTO leasehold_lock (name, token, owner, held, queued, expires, since, details)
VALUES :rows
ON DUPLICATE KEY UPDATE
    token = IF(queued = 0 AND expires <= @lh_now,
               GREATEST(token + 1, CAST(@lh_now AS UNSIGNED)) + VALUES(token) - @lh_now, token),
    owner = IF(queued = 0 AND expires <= @lh_now, VALUES(owner), owner),
    held = IF(queued = 0 AND expires <= @lh_now, 1, held),
    since = IF(queued = 0 AND expires <= @lh_now, @lh_now, since),
    details = IF(queued = 0 AND expires <= @lh_now, VALUES(details), details),
    expires = IF(queued = 0 AND expires <= @lh_now, VALUES(expires), expires);

SELECT owner, token FROM leasehold_lock WHERE name IN (:keys) AND held = 1 AND since = @lh_now
