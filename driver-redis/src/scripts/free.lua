-- The first part of release: what is held and nobody waits for is freed with what is here.
-- ARGV: 1 attempt, 2 claim window in ms
-- Returns 1 when it held the lock and is done, else {1 when it held the lock else 0, 1 when it has to be called again else 0}.
local id = ARGV[1]
local lease = redis.call('GET', KEYS[1])
local held = lease and string.sub(lease, 1, 33) == id .. '|'
if held then
  -- First, so that a full server frees it, and counts what follows as part of a write that it let begin.
  redis.call('DEL', KEYS[1])
  local fence = redis.call('GET', KEYS[2])
  if fence and string.byte(fence, -1) ~= 43 then return 1 end
end
