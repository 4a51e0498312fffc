-- Releases that nobody waits for, many at a time: what they find, and what is left of it because somebody waits after all.
SET @lh_now = :now;

SELECT owner, held = 1 AND expires > @lh_now FROM leasehold_lock WHERE name IN (:keys) AND queued = 0;

UPDATE leasehold_lock SET expires = 0, owner = NULL
WHERE name IN (:keys) AND owner IN (:attempts) AND queued = 0;

SELECT owner FROM leasehold_lock WHERE name IN (:keys) AND owner IN (:attempts)
