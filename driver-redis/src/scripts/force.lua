-- Frees the lock whoever holds it, tells the holder, and offers the lock to the next one. A reservation stays.
-- ARGV: 1 claim window in ms
-- Returns {1 when somebody held it else 0, 1 when it has to be called again else 0}.
local lease = redis.call('GET', KEYS[1])
if lease and string.sub(lease, 1, 1) == '!' then return {0, 0} end
if lease then
  redis.call('DEL', KEYS[1])
  local id, channel = string.match(lease, '^(%x+)|%d+|%d+|([^|]+)|')
  if id then redis.call('PUBLISH', channel, 'w' .. id) end
end
local more = offer(nil, ARGV[1], '') == false
return {lease and 1 or 0, more and 1 or 0}
