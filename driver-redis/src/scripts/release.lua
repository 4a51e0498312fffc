-- Frees what the attempt holds, or takes it out of the queue, and offers a free lock to the next one.
-- ARGV: 1 attempt, 2 claim window in ms
-- Returns {1 when it held the lock else 0, 1 when it has to be called again else 0}.
local id = ARGV[1]
local lease = redis.call('GETRANGE', KEYS[1], 0, 32)
local held = lease == id .. '|'
if held then
  -- First, so that a full server frees it, and counts what follows as part of a write that it let begin.
  redis.call('DEL', KEYS[1])
else
  leave(id)
  if lease == '!' .. id then
    redis.call('DEL', KEYS[1])
  elseif lease ~= '' then
    return {0, 0}
  end
end
local more = offer(micros(), ARGV[2], '') == false
return {held and 1 or 0, more and 1 or 0}
