-- Takes those of many locks that nobody else has or wants. KEYS: lease, fence and queue of each.
-- ARGV: 1 channel; then for each its attempt, ttl in ms, details, and spare tokens
-- Returns the token of each, 0 for what has to be asked for by itself.
local names, tokens = {}, {}
for i = 1, #KEYS / 3 do names[i] = KEYS[3 * i - 1] end
local fences = redis.call('MGET', unpack(names))
for i = 1, #names do
  local fence = fences[i] or redis.call('ZCARD', KEYS[3 * i]) == 0 and '0'
  -- Digits alone: nobody waits. Whether somebody has it, and be it since the last round of this loop, the server says.
  local last = fence and tonumber(fence)
  tokens[i] = 0
  if last then
    local token, text = issue(last, ARGV[4 * i + 1])
    local lease = record(ARGV[4 * i - 2], text, ARGV[1], ARGV[4 * i])
    if redis.call('SET', KEYS[3 * i - 2], lease, 'PX', ARGV[4 * i - 1], 'NX') then
      redis.call('SET', names[i], text, 'PX', '86400000')
      tokens[i] = token
    end
  end
end
return tokens
