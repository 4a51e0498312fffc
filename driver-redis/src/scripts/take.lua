-- The first part of acquire: what nobody else wants is taken with what is here.
-- ARGV: 1 attempt, 2 ttl in ms, 3 ticket ('' to try only, '0' when there is none yet), 4 waiter's ttl in us,
--       5 channel, 6 claim window in ms, 7 limit of the queue, 8 details,
--       9 spare tokens
-- Returns the token when nobody waits, or {1, token, ms left} when somebody may,
--         {0, rank or -1, ticket, ms left, holder's record without the attempt} when it is taken,
--         {2, queue} when it is full, or {3} when it has to be called again.
local id = ARGV[1]
local lease = redis.call('GET', KEYS[1])
local fence = redis.call('GET', KEYS[2])
local time = redis.call('TIME')
-- The time in us, as digits and as a number.
local since = time[1] .. string.sub('00000' .. time[2], -6)
local now = tonumber(since)

-- Writes the lease, and its token with `mark`. A day past its last use the token is forgotten: the clock alone keeps
-- tokens growing then.
local function grant(last, mark)
  local token, text = now, since
  if last >= now or ARGV[9] ~= '0' then
    token = math.max(now, last + 1) + ARGV[9]
    text = string.format('%.0f', token)
  end
  redis.call('SET', KEYS[1], id .. '|' .. text .. '|' .. since .. '|' .. ARGV[5] .. '|' .. ARGV[8], 'PX', ARGV[2])
  redis.call('SET', KEYS[2], text .. mark, 'PX', '86400000')
  return token
end

-- Without a mark, the fence is digits alone.
local last = not lease and fence and tonumber(fence)
if last then return grant(last, '') end
