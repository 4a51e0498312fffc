-- Takes those of many locks that nobody else has or wants. KEYS: lease, fence and queue of each.
-- ARGV: 1 channel; then for each its attempt, ttl in ms, details, and spare tokens
-- Returns the token of each, 0 for what has to be asked for by itself.
local tokens = {}
for i = 1, #KEYS / 3 do
  local lease, fence = KEYS[3 * i - 2], KEYS[3 * i - 1]
  local last = not redis.call('GET', lease)
    and (redis.call('GET', fence) or redis.call('ZCARD', KEYS[3 * i]) == 0 and '0')
  last = last and tonumber(last)
  tokens[i] = last
    and grant(lease, fence, last, '', ARGV[4 * i - 2], ARGV[4 * i - 1], ARGV[1], ARGV[4 * i], ARGV[4 * i + 1]) or 0
end
return tokens
