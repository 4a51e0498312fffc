-- In all that grants.
local time = redis.call('TIME')
-- The time in us, as digits and as a number.
local since = time[1] .. string.sub('00000' .. time[2], -6)
local now = tonumber(since)

-- Writes a lease, and its token with `mark`. A day past its last use the token is forgotten: the clock alone keeps tokens
-- growing then.
local function grant(lease, fence, last, mark, id, ttl, channel, details, spare)
  local token, text = now, since
  if last >= now or spare ~= '0' then
    token = math.max(now, last + 1) + spare
    text = string.format('%.0f', token)
  end
  redis.call('SET', lease, id .. '|' .. text .. '|' .. since .. '|' .. channel .. '|' .. details, 'PX', ttl)
  redis.call('SET', fence, text .. mark, 'PX', '86400000')
  return token
end
