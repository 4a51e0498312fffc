-- Blocks unless one of our waiters was called whom we have not told yet. One statement: whoever commits a call and then
-- kills this query either finds it blocked, or it has seen the call. 1 when the keeper is gone.
SELECT IF(EXISTS (SELECT 1 FROM leasehold_waiter
                  WHERE wake = :wake AND called > :now - :memory AND (attempt, called) NOT IN (:told)),
          0, GET_LOCK(CONCAT(:wake, '-k'), :nap))
