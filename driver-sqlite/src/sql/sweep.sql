-- Rows of locks that were not used for a day, in a window of the table that starts at random. A later grant starts
-- from the wall clock, which is past the token that goes with the row.
-- $1 now, $2 wall clock of a day ago, in us, $3 boot
DELETE FROM leasehold_lock
WHERE id IN (
    SELECT id FROM leasehold_lock
    WHERE id >= abs(random() % (SELECT coalesce(max(id), 1) FROM leasehold_lock))
    ORDER BY id LIMIT 256)
  AND (owner IS NULL OR expires <= $1)
  AND token < $2
  AND EXISTS (SELECT 1 FROM leasehold_meta WHERE boot = $3)
  AND NOT EXISTS (SELECT 1 FROM leasehold_waiter WHERE key = leasehold_lock.key);
