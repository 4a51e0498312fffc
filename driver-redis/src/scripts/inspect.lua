-- Returns {ms left, live waiters, holder's record without the attempt, '' when nobody holds it}.
local lease = redis.call('GET', KEYS[1])
local holder = lease and string.match(lease, '^%x+|(.*)$') or ''
-- Who has the reservation stands in the queue no more, and waits until it takes its turn.
local waiters = lease and string.sub(lease, 1, 1) == '!' and 1 or 0
local now = micros()
for _, record in ipairs(redis.call('HVALS', KEYS[3])) do
  if tonumber(string.match(record, '^%d+') or 0) > now then waiters = waiters + 1 end
end
return {redis.call('PTTL', KEYS[1]), waiters, holder}
