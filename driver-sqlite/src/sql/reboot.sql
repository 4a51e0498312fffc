-- The first process after a reboot frees everything: who held or waited is gone, and the clock starts anew.
BEGIN IMMEDIATE;

UPDATE leasehold_lock SET owner = NULL
WHERE owner IS NOT NULL AND (SELECT boot FROM leasehold_meta) <> $1;

DELETE FROM leasehold_waiter
WHERE (SELECT boot FROM leasehold_meta) <> $1;

UPDATE leasehold_meta SET boot = $1 WHERE boot <> $1;

COMMIT;
