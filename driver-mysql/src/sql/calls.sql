-- Whom of ours to wake, and when.
SELECT HEX(attempt), called, look FROM leasehold_waiter WHERE wake = :wake AND called > :now - :memory
