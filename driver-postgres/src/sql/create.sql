-- Leasehold, layout 1. Run it once, as the owner of the database or of the schema; the locks' users need
--   GRANT USAGE ON SCHEMA {schema} TO locks;
--   GRANT SELECT, INSERT, UPDATE, DELETE ON {schema}.lock, {schema}.waiter TO locks;
BEGIN;
-- One process makes them, the others wait for it.
SET LOCAL lock_timeout = 0;
SELECT pg_advisory_xact_lock(7810764963118474857);

{create_schema}
-- One row for each lock that is held, reserved, or was used of late. No index on what changes: updates stay in the page.
CREATE TABLE IF NOT EXISTS {schema}.lock (
    key text COLLATE "C" PRIMARY KEY,  -- namespace/kind/name, in the encoding of lockcore
    token bigint NOT NULL,             -- of the last grant
    owner text COLLATE "C",            -- the attempt that holds it, or that it is reserved for; NULL: free
    held boolean NOT NULL,             -- `owner` holds it; false: `owner` waits and was told to take it
    waits boolean NOT NULL,            -- there may be rows in `waiter`
    expires timestamptz NOT NULL,      -- when the lease or the reservation ends
    since timestamptz NOT NULL,        -- when it was granted
    wake bigint,                       -- the listener of the owner's process
    session integer,                   -- the server process that holds it, in the mode `session`
    details bytea NOT NULL             -- who it is, for people: UTF-8
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);

-- One row for each waiter. A ticket is a clock reading in us, past those before it: it keeps its place in the queue when
-- the waiter was dropped and comes back.
CREATE TABLE IF NOT EXISTS {schema}.waiter (
    key text COLLATE "C" NOT NULL,
    ticket bigint NOT NULL,
    attempt text COLLATE "C" NOT NULL,
    deadline timestamptz NOT NULL,     -- the end of its place without a sign of life
    wake bigint,                       -- the listener of its process; NULL: it asks by itself
    PRIMARY KEY (key, ticket, attempt)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);

-- Microseconds since 1970. Not called immutable, though it is: `extract` of a timestamptz is stable, and what promises more
-- than its body is not inlined, but planned with every call.
CREATE OR REPLACE FUNCTION {schema}.us(p_time timestamptz) RETURNS bigint
LANGUAGE sql STABLE PARALLEL SAFE
AS $$SELECT (extract(epoch FROM p_time) * 1000000)::bigint$$;

-- Below, a function turns `synchronous_commit` off where its transaction need not be on the disk before it is answered. A
-- server that crashes may undo a release, which leaves the lock to the end of its lease, or a place in the queue, which the
-- waiter takes again with its ticket: neither lets two have the lock. For the grant and the renewal of a lease it stays
-- on. In the mode `session` a crash ends every lock anyhow.

-- The lock's row, locked: from here on nobody else touches the lock or its queue, and each statement sees all that
-- was done before.
CREATE OR REPLACE FUNCTION {schema}.enter(p_key text) RETURNS {schema}.lock
LANGUAGE plpgsql
AS $$
DECLARE
    l {schema}.lock;
BEGIN
    LOOP
        SELECT * INTO l FROM {schema}.lock WHERE key = p_key FOR UPDATE;
        IF FOUND THEN
            RETURN l;
        END IF;
        INSERT INTO {schema}.lock (key, token, owner, held, waits, expires, since, details)
        VALUES (p_key, 0, NULL, false, true, '-infinity', '-infinity', '')
        ON CONFLICT DO NOTHING;
    END LOOP;
END
$$;

-- Is the process of this listener gone? A listener holds an advisory lock for as long as its connection lives.
CREATE OR REPLACE FUNCTION {schema}.is_gone(p_wake bigint) RETURNS boolean
LANGUAGE sql VOLATILE
AS $$SELECT p_wake IS NOT NULL AND pg_try_advisory_xact_lock_shared(p_wake)$$;

-- Out of the queue: who gave no sign of life, or let a reservation pass. Under `enter`.
CREATE OR REPLACE FUNCTION {schema}.purge(l {schema}.lock, p_now timestamptz, p_keep text) RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    DELETE FROM {schema}.waiter AS w
    WHERE w.key = l.key AND w.attempt <> p_keep
      AND (w.deadline <= p_now OR (w.attempt = l.owner AND NOT l.held AND l.expires <= p_now));
END
$$;

-- Does a waiter whose process lives come before this ticket? Dead ones on the way there are dropped: they come back
-- with their tickets if their process is only connecting again. Under `enter`.
CREATE OR REPLACE FUNCTION {schema}.is_preceded(p_key text, p_attempt text, p_ticket bigint, p_wake bigint)
RETURNS boolean
LANGUAGE plpgsql
AS $$
DECLARE
    w {schema}.waiter;
    v_dead integer := 0;
BEGIN
    FOR w IN SELECT * FROM {schema}.waiter
        WHERE key = p_key AND attempt <> p_attempt AND ticket < p_ticket
        ORDER BY ticket, attempt
    LOOP
        IF w.wake = p_wake OR v_dead >= 64 OR NOT {schema}.is_gone(w.wake) THEN
            RETURN true;
        END IF;
        v_dead := v_dead + 1;
        DELETE FROM {schema}.waiter WHERE key = w.key AND ticket = w.ticket AND attempt = w.attempt;
    END LOOP;
    RETURN false;
END
$$;

-- Reserves a free lock for the head of its queue and tells it; the ones behind it stand by, for the case that it is
-- stopped. Who is gone or gave no sign of life is dropped on the way. `told` is what the caller's own process has to know,
-- which needs no NOTIFY. Under `enter`.
CREATE OR REPLACE FUNCTION {schema}.pass_on(p_key text, p_now timestamptz, p_window bigint, p_wake bigint)
RETURNS text[]
LANGUAGE plpgsql
AS $$
DECLARE
    w {schema}.waiter;
    v_dead integer := 0;
    v_place integer := 0;
    v_message text;
    v_told text[] := '{}';
BEGIN
    FOR w IN SELECT * FROM {schema}.waiter WHERE key = p_key ORDER BY ticket, attempt LOOP
        IF w.deadline <= p_now OR (w.wake IS DISTINCT FROM p_wake AND v_dead < 64 AND {schema}.is_gone(w.wake)) THEN
            v_dead := v_dead + 1;
            DELETE FROM {schema}.waiter WHERE key = w.key AND ticket = w.ticket AND attempt = w.attempt;
            CONTINUE;
        END IF;
        IF v_place = 0 THEN
            UPDATE {schema}.lock
            SET owner = w.attempt, held = false, waits = true, wake = w.wake, session = NULL, details = '',
                expires = p_now + p_window * interval '1 microsecond'
            WHERE key = p_key;
            v_message := 'w' || w.attempt;
        ELSE
            -- Past the end of the reservations before it.
            v_message := 's' || w.attempt || '|' || v_place * (p_window + 5000);
        END IF;
        IF w.wake = p_wake THEN
            v_told := v_told || v_message;
        ELSIF w.wake IS NOT NULL THEN
            PERFORM pg_notify('leasehold_' || w.wake, v_message);
        END IF;
        v_place := v_place + 1;
        EXIT WHEN v_place = 4;
    END LOOP;
    IF v_place = 0 THEN
        UPDATE {schema}.lock SET owner = NULL, waits = false WHERE key = p_key;
    END IF;
    RETURN v_told;
END
$$;

-- Attempt, place in the queue, sign of life and claim in one. `outcome`: granted, busy, or full.
CREATE OR REPLACE FUNCTION {schema}.acquire(
    p_key text, p_attempt text, p_ttl bigint, p_details bytea, p_wake bigint, p_window bigint,
    p_waits boolean, p_ticket bigint, p_life bigint, p_queue bigint, p_spare bigint,
    OUT outcome text, OUT token bigint, OUT left_us bigint, OUT held boolean, OUT details bytea,
    OUT since_us bigint, OUT ticket bigint, OUT ahead bigint, OUT told text[], OUT others boolean)
LANGUAGE plpgsql
AS $$
#variable_conflict use_column
DECLARE
    l {schema}.lock;
    v_now timestamptz;
    v_ttl interval := p_ttl * interval '1 microsecond';
    v_life interval := p_life * interval '1 microsecond';
    v_ticket bigint := p_ticket;
    v_last bigint;
    v_new boolean := false;
    v_token bigint;
    v_free boolean;
    v_quiet boolean := false;
    v_full boolean := false;
    v_told text[] := '{}';
BEGIN
    -- The whole of an acquire that meets nobody: one row, which decides by itself.
    UPDATE {schema}.lock AS f
    SET token = greatest(f.token + 1, {schema}.us(clock_timestamp())) + p_spare, owner = p_attempt, held = true,
        expires = clock_timestamp() + v_ttl, since = clock_timestamp(), wake = p_wake, session = NULL,
        details = p_details
    WHERE f.key = p_key AND NOT f.waits AND f.session IS NULL
      AND (f.owner IS NULL OR f.expires <= clock_timestamp())
    RETURNING f.token INTO v_token;
    IF FOUND THEN
        outcome := 'granted'; token := v_token; left_us := p_ttl; told := v_told; others := false;
        RETURN;
    END IF;

    IF p_ticket IS NOT NULL THEN
        -- Its turn: the lock is reserved for it.
        UPDATE {schema}.lock AS f
        SET token = greatest(f.token + 1, {schema}.us(clock_timestamp())) + p_spare, held = true,
            expires = clock_timestamp() + v_ttl, since = clock_timestamp(), wake = p_wake, details = p_details
        WHERE f.key = p_key AND f.owner = p_attempt AND NOT f.held AND f.session IS NULL
        RETURNING f.token INTO v_token;
        IF FOUND THEN
            DELETE FROM {schema}.waiter AS w WHERE w.key = p_key AND w.attempt = p_attempt;
            others := EXISTS (SELECT FROM {schema}.waiter AS w WHERE w.key = p_key);
            IF NOT others THEN
                UPDATE {schema}.lock SET waits = false WHERE key = p_key;
            END IF;
            outcome := 'granted'; token := v_token; left_us := p_ttl; told := v_told;
            RETURN;
        END IF;
    END IF;

    SELECT * INTO l FROM {schema}.lock WHERE key = p_key;
    IF FOUND THEN
        -- Somebody else has it for sure: nothing is written for a try, or for a sign of life that was given of late.
        v_now := clock_timestamp();
        IF l.session IS NULL AND l.owner <> p_attempt AND l.expires > v_now THEN
            IF p_waits THEN
                SELECT w.ticket INTO v_ticket FROM {schema}.waiter AS w
                WHERE w.key = p_key AND w.attempt = p_attempt AND w.ticket = coalesce(p_ticket, w.ticket)
                  AND w.deadline > v_now + v_life * 0.875 AND w.wake IS NOT DISTINCT FROM p_wake;
            END IF;
            v_quiet := NOT p_waits OR FOUND;
            IF NOT v_quiet THEN
                v_ticket := p_ticket;
            END IF;
        END IF;
    ELSIF NOT EXISTS (SELECT FROM {schema}.waiter WHERE key = p_key) THEN
        INSERT INTO {schema}.lock AS f (key, token, owner, held, waits, expires, since, wake, details)
        VALUES (p_key, greatest(1, {schema}.us(clock_timestamp())) + p_spare, p_attempt, true, false,
                clock_timestamp() + v_ttl, clock_timestamp(), p_wake, p_details)
        ON CONFLICT DO NOTHING
        RETURNING f.token INTO v_token;
        IF FOUND THEN
            outcome := 'granted'; token := v_token; left_us := p_ttl; told := v_told; others := false;
            RETURN;
        END IF;
    END IF;

    IF NOT v_quiet THEN
        l := {schema}.enter(p_key);
        v_now := clock_timestamp();
        IF l.session IS NOT NULL THEN
            RAISE EXCEPTION 'the lock % is used in the mode session', p_key USING ERRCODE = 'LH001';
        END IF;
        IF l.owner = p_attempt AND l.held AND l.expires > v_now THEN
            -- It was granted already, and the reply lost.
            outcome := 'granted'; token := l.token; told := v_told; others := l.waits;
            left_us := extract(epoch FROM l.expires - v_now) * 1000000;
            RETURN;
        END IF;
        PERFORM {schema}.purge(l, v_now, p_attempt);
        IF v_ticket IS NULL THEN
            SELECT min(w.ticket) FILTER (WHERE w.attempt = p_attempt), max(w.ticket), count(*)
            INTO v_ticket, v_last, ahead
            FROM {schema}.waiter AS w WHERE w.key = p_key;
            v_new := v_ticket IS NULL;
        END IF;
        v_free := l.owner IS NULL OR l.expires <= v_now;
        IF (l.owner = p_attempt AND NOT l.held) OR (v_free AND NOT {schema}.is_preceded(
            p_key, p_attempt, coalesce(v_ticket, 9223372036854775807), p_wake))
        THEN
            DELETE FROM {schema}.waiter AS w WHERE w.key = p_key AND w.attempt = p_attempt;
            UPDATE {schema}.lock AS f
            SET token = greatest(f.token + 1, {schema}.us(v_now)) + p_spare, owner = p_attempt, held = true,
                waits = EXISTS (SELECT FROM {schema}.waiter AS w WHERE w.key = p_key),
                expires = v_now + v_ttl, since = v_now, wake = p_wake, session = NULL, details = p_details
            WHERE f.key = p_key
            RETURNING f.token, f.waits INTO v_token, others;
            outcome := 'granted'; token := v_token; left_us := p_ttl; told := v_told;
            RETURN;
        END IF;
        IF p_waits THEN
            IF v_new THEN
                v_ticket := greatest({schema}.us(v_now), v_last + 1);
                v_full := ahead >= p_queue;
            END IF;
            IF NOT v_full THEN
                INSERT INTO {schema}.waiter AS w (key, ticket, attempt, deadline, wake)
                VALUES (p_key, v_ticket, p_attempt, v_now + v_life, p_wake)
                ON CONFLICT (key, ticket, attempt) DO UPDATE SET deadline = excluded.deadline, wake = excluded.wake;
                IF NOT l.waits THEN
                    UPDATE {schema}.lock SET waits = true WHERE key = p_key;
                END IF;
            END IF;
        END IF;
        IF v_free THEN
            v_told := {schema}.pass_on(p_key, v_now, p_window, p_wake);
            SELECT * INTO l FROM {schema}.lock WHERE key = p_key;
        END IF;
    END IF;

    PERFORM set_config('synchronous_commit', 'off', true);
    outcome := CASE WHEN v_full THEN 'full' ELSE 'busy' END;
    told := v_told;
    IF l.owner IS NOT NULL AND l.expires > v_now THEN
        held := l.held;
        left_us := extract(epoch FROM l.expires - v_now) * 1000000;
        IF l.held THEN
            token := l.token; details := l.details; since_us := {schema}.us(l.since);
        END IF;
    END IF;
    IF p_waits AND NOT v_full THEN
        ticket := v_ticket;
        IF NOT v_new OR v_free THEN
            SELECT count(*) INTO ahead FROM {schema}.waiter AS w
            WHERE w.key = p_key AND (w.ticket, w.attempt) < (v_ticket, p_attempt);
        END IF;
    ELSE
        ahead := NULL;
    END IF;
END
$$;

-- Frees what the attempt has (with `p_force`: what anybody holds), or takes it out of the queue, and lets the next one
-- go on.
CREATE OR REPLACE FUNCTION {schema}.release(
    p_key text, p_attempt text, p_window bigint, p_wake bigint, p_force boolean,
    OUT was_held boolean, OUT told text[])
LANGUAGE plpgsql
AS $$
#variable_conflict use_column
DECLARE
    l {schema}.lock;
    v_now timestamptz;
    v_attempt text := p_attempt;
    v_told text[] := '{}';
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    IF NOT p_force THEN
        -- The whole of a release that nobody waits for.
        UPDATE {schema}.lock AS f SET owner = NULL
        WHERE f.key = p_key AND f.owner = p_attempt AND NOT f.waits
        RETURNING f.held AND f.expires > clock_timestamp() INTO was_held;
        IF FOUND THEN
            told := v_told;
            RETURN;
        END IF;
    END IF;
    SELECT * INTO l FROM {schema}.lock WHERE key = p_key AND owner = p_attempt AND NOT p_force FOR UPDATE;
    IF NOT FOUND THEN
        SELECT * INTO l FROM {schema}.lock WHERE key = p_key;
        -- It has nothing. Where the row was deleted behind our back, the waiters are seen to.
        IF (CASE
            WHEN p_force THEN l.owner IS NULL OR NOT l.held OR l.expires <= clock_timestamp()
            WHEN FOUND THEN l.owner IS DISTINCT FROM p_attempt AND NOT (l.waits AND l.expires <= clock_timestamp())
                AND NOT EXISTS (SELECT FROM {schema}.waiter AS w WHERE w.key = p_key AND w.attempt = p_attempt)
            ELSE NOT EXISTS (SELECT FROM {schema}.waiter AS w WHERE w.key = p_key)
        END) THEN
            was_held := false; told := v_told;
            IF l.wake = p_wake AND l.owner IS NOT NULL AND NOT l.held AND l.expires > clock_timestamp() THEN
                -- A release whose reply was lost: that reply had told our own process.
                told := ARRAY['w' || l.owner];
            END IF;
            RETURN;
        END IF;
        l := {schema}.enter(p_key);
    END IF;
    v_now := clock_timestamp();
    IF p_force THEN
        v_attempt := CASE WHEN l.held AND l.expires > v_now THEN l.owner END;
    END IF;
    was_held := coalesce(l.owner = v_attempt AND l.held AND l.expires > v_now, false);
    IF p_force AND was_held THEN
        -- The holder's process looks at its lock.
        IF l.wake = p_wake THEN
            v_told := v_told || ('w' || v_attempt);
        ELSIF l.wake IS NOT NULL THEN
            PERFORM pg_notify('leasehold_' || l.wake, 'w' || v_attempt);
        END IF;
    END IF;
    IF NOT was_held THEN
        DELETE FROM {schema}.waiter AS w WHERE w.key = p_key AND w.attempt = v_attempt;
        PERFORM {schema}.purge(l, v_now, '');
    END IF;
    IF l.owner IS NULL OR l.expires <= v_now OR l.owner = v_attempt THEN
        v_told := v_told || {schema}.pass_on(p_key, v_now, p_window, p_wake);
    END IF;
    told := v_told;
END
$$;

-- Looks at `p_rows` locks from `p_from` on: rows that were not used for a day go, a later grant starts from the clock,
-- which is past the token that goes with the row; and so do waiters that died with the whole of their queue. Gives
-- where to go on, NULL at the end.
CREATE OR REPLACE FUNCTION {schema}.sweep(p_from text, p_rows integer) RETURNS text
LANGUAGE plpgsql
AS $$
DECLARE
    l {schema}.lock;
    v_last text;
    v_count integer := 0;
BEGIN
    FOR l IN SELECT * FROM {schema}.lock WHERE key > p_from ORDER BY key LIMIT p_rows LOOP
        v_count := v_count + 1;
        v_last := l.key;
        IF (l.owner IS NULL OR l.expires <= clock_timestamp())
            AND l.token < {schema}.us(clock_timestamp()) - 86400000000
            AND (l.session IS NULL OR l.owner IS NULL OR NOT EXISTS (
                SELECT FROM {schema}.session_locks(l.key) AS k WHERE k.granted AND k.pid = l.session))
        THEN
            IF l.waits THEN
                l := {schema}.enter(l.key);
                PERFORM {schema}.purge(l, clock_timestamp(), '');
                UPDATE {schema}.lock AS f
                SET waits = EXISTS (SELECT FROM {schema}.waiter AS w WHERE w.key = l.key)
                WHERE f.key = l.key;
            END IF;
            DELETE FROM {schema}.lock AS f
            WHERE f.key = l.key AND NOT f.waits AND (f.owner IS NULL OR f.expires <= clock_timestamp())
              AND f.token < {schema}.us(clock_timestamp()) - 86400000000;
        END IF;
    END LOOP;
    RETURN CASE WHEN v_count = p_rows THEN v_last END;
END
$$;

-- The mode `session`: a lock is an advisory lock of a connection, by this number. Numbers of two names can be the same:
-- then they block each other.
CREATE OR REPLACE FUNCTION {schema}.session_number(p_key text) RETURNS bigint
LANGUAGE sql IMMUTABLE
AS $$SELECT hashtextextended('{schema} ' || p_key, 0)$$;

-- Who has the lock of this number in this database, and who waits for it.
CREATE OR REPLACE FUNCTION {schema}.session_locks(p_key text, OUT pid integer, OUT granted boolean)
RETURNS SETOF record
LANGUAGE sql
AS $$
    SELECT k.pid, k.granted FROM pg_locks AS k
    WHERE k.locktype = 'advisory' AND k.objsubid = 1
      AND k.database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND k.classid::bigint = (({schema}.session_number(p_key) >> 32) & 4294967295)
      AND k.objid::bigint = ({schema}.session_number(p_key) & 4294967295)
$$;

-- Takes the lock, or with `p_has` makes a lock of what the connection waited for. `outcome`: granted, busy, or later: free,
-- but its last holder may not know yet that the server was restarted under it.
CREATE OR REPLACE FUNCTION {schema}.session_acquire(
    p_key text, p_attempt text, p_ttl bigint, p_details bytea, p_wake bigint, p_has boolean, p_spare bigint,
    OUT outcome text, OUT token bigint, OUT left_us bigint, OUT details bytea, OUT since_us bigint,
    OUT number bigint, OUT pid integer, OUT others boolean)
LANGUAGE plpgsql
AS $$
#variable_conflict use_column
DECLARE
    l {schema}.lock;
    v_number bigint := {schema}.session_number(p_key);
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    number := v_number; pid := pg_backend_pid();
    IF NOT p_has AND NOT pg_try_advisory_lock(v_number) THEN
        outcome := 'busy';
        SELECT * INTO l FROM {schema}.lock WHERE key = p_key;
        IF l.session IS NOT NULL AND l.owner IS NOT NULL THEN
            token := l.token; details := l.details; since_us := {schema}.us(l.since);
        END IF;
        RETURN;
    END IF;
    LOOP
        -- `expires` is `since` and the TTL here.
        UPDATE {schema}.lock AS f
        SET token = greatest(f.token + 1, {schema}.us(clock_timestamp())) + p_spare, owner = p_attempt, held = true,
            expires = clock_timestamp() + p_ttl * interval '1 microsecond', since = clock_timestamp(),
            wake = p_wake, session = pg_backend_pid(), details = p_details
        WHERE f.key = p_key
          AND (f.owner IS NULL OR f.since >= pg_postmaster_start_time() OR f.session IS NULL
            OR pg_postmaster_start_time() + (f.expires - f.since) <= clock_timestamp())
          AND (f.session IS NOT NULL OR (NOT f.waits AND (f.owner IS NULL OR f.expires <= clock_timestamp())))
        RETURNING f.token INTO token;
        EXIT WHEN FOUND;
        INSERT INTO {schema}.lock (key, token, held, waits, expires, since, session, details)
        VALUES (p_key, 0, false, false, '-infinity', '-infinity', pg_backend_pid(), '')
        ON CONFLICT DO NOTHING;
        CONTINUE WHEN FOUND;
        SELECT * INTO l FROM {schema}.lock WHERE key = p_key;
        IF l.session IS NULL AND (l.waits OR (l.owner IS NOT NULL AND l.expires > clock_timestamp())) THEN
            RAISE EXCEPTION 'the lock % is used in the mode lease', p_key USING ERRCODE = 'LH001';
        END IF;
        IF l.session IS NOT NULL AND l.owner IS NOT NULL AND l.since < pg_postmaster_start_time() THEN
            left_us := extract(epoch FROM pg_postmaster_start_time() + (l.expires - l.since) - clock_timestamp()) * 1000000;
            IF left_us > 0 THEN
                outcome := 'later';
                PERFORM pg_advisory_unlock(v_number), set_config('idle_session_timeout', '0', false);
                RETURN;
            END IF;
        END IF;
    END LOOP;
    PERFORM set_config('idle_session_timeout', ((p_ttl + 999) / 1000)::text, false);
    -- Only who could make something of the tokens wants to know.
    others := p_spare > 0 AND EXISTS (SELECT FROM {schema}.session_locks(p_key) AS k WHERE NOT k.granted);
    outcome := 'granted';
END
$$;

-- Waits until the server process stands in the server's queue for the lock, or has it; a tenth of a second at most. What
-- a process waits for is told at once; who has which lock is a look at all of them, which was most of the time under contention.
CREATE OR REPLACE FUNCTION {schema}.session_queued(p_key text, p_pid integer) RETURNS boolean
LANGUAGE plpgsql
AS $$
BEGIN
    FOR v_try IN 1..100 LOOP
        IF EXISTS (SELECT FROM pg_stat_get_activity(p_pid) AS a WHERE a.wait_event_type = 'Lock') OR (
            v_try % 8 = 4 AND EXISTS (SELECT FROM {schema}.session_locks(p_key) AS k WHERE k.pid = p_pid))
        THEN
            RETURN true;
        END IF;
        PERFORM pg_sleep(0.001);
    END LOOP;
    RETURN false;
END
$$;

-- Frees the lock; the server gives it to the next one in its own queue, at once and before the row says so. It was held if
-- the row says so, or if somebody has had it since.
CREATE OR REPLACE FUNCTION {schema}.session_release(p_key text, p_attempt text, p_token bigint) RETURNS boolean
LANGUAGE plpgsql
AS $$
DECLARE
    v_held boolean := pg_advisory_unlock({schema}.session_number(p_key));
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true), set_config('idle_session_timeout', '0', false);
    UPDATE {schema}.lock SET owner = NULL WHERE key = p_key AND owner = p_attempt AND session = pg_backend_pid();
    RETURN v_held AND (FOUND OR EXISTS (SELECT FROM {schema}.lock WHERE key = p_key AND token > p_token));
END
$$;

-- Takes the lock from its holder, as far as the table goes: gives the connection that is to be ended, once this is
-- committed, so that its process finds out why.
CREATE OR REPLACE FUNCTION {schema}.session_revoke(p_key text) RETURNS integer
LANGUAGE plpgsql
AS $$
DECLARE
    l {schema}.lock;
    v_pid integer;
BEGIN
    SELECT k.pid INTO v_pid FROM {schema}.session_locks(p_key) AS k WHERE k.granted;
    SELECT * INTO l FROM {schema}.lock WHERE key = p_key AND session = v_pid AND owner IS NOT NULL FOR UPDATE;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    UPDATE {schema}.lock SET owner = NULL WHERE key = p_key;
    IF l.wake IS NOT NULL THEN
        PERFORM pg_notify('leasehold_' || l.wake, 'w' || l.owner);
    END IF;
    RETURN v_pid;
END
$$;

COMMENT ON TABLE {schema}.lock IS 'leasehold 1';
COMMIT;
