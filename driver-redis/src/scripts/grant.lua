-- In all that grants.
local time = redis.call('TIME')
-- The time in us, as digits and as a number.
local since = time[1] .. string.sub('00000' .. time[2], -6)
local now = tonumber(since)

-- The token after `last` with `spare` ones before it, as a number and as digits. A day past its last use it is forgotten: the
-- clock alone keeps tokens growing then.
local function issue(last, spare)
  if last < now and spare == '0' then return now, since end
  local token = math.max(now, last + 1) + spare
  return token, string.format('%.0f', token)
end

local function record(id, token, channel, details)
  return id .. '|' .. token .. '|' .. since .. '|' .. channel .. '|' .. details
end
