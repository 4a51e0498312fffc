-- Frees what the attempt holds, or takes it out of the queue, and offers a free lock to the next one.
-- ARGV: 1 attempt, 2 claim window in ms
-- Returns {1 when it held the lock else 0, 1 when it has to be called again else 0}.
local id = ARGV[1]
local lease = redis.call('GET', KEYS[1])
local held = lease and string.sub(lease, 1, 33) == id .. '|'
if held then
  -- First, so that a full server frees it, and counts what follows as part of a write that it let begin.
  redis.call('DEL', KEYS[1])
  if is_quiet(redis.call('GET', KEYS[2])) then return {1, 0} end
else
  leave(id)
  if lease == '!' .. id then
    redis.call('DEL', KEYS[1])
  elseif lease then
    return {0, 0}
  end
end
local more = offer(nil, ARGV[2], '') == false
return {held and 1 or 0, more and 1 or 0}
