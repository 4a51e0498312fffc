-- The rest of acquire.
if lease and string.sub(lease, 1, 33) == id .. '|' then
  return {1, tonumber(string.match(lease, '^(%d+)', 34)), redis.call('PTTL', KEYS[1])}
end

local reserved = lease == '!' .. id
-- Is it sure that nobody waits? Without a fence it is not.
local quiet = fence and string.byte(fence, -1) ~= 43
local queued = false
if not lease then
  local first = offer(now, ARGV[6], id)
  if first == false then return {3} end
  queued = first == id
  if first and not queued then lease = '!' .. first end
end

if reserved or not lease then
  local waits = redis.call('ZCARD', KEYS[4]) > (queued and 1 or 0)
  local token = take(tonumber(string.match(fence or '', '^%d+') or 0), waits and '+' or '')
  if queued then leave(id) end
  if not waits then return token end
  return {1, token, tonumber(ARGV[2])}
end

local left = redis.call('PTTL', KEYS[1])
local holder = string.match(lease, '^%x+|(.*)$') or ''
if ARGV[3] == '' then return {0, -1, 0, left, holder} end

local record = redis.call('HGET', KEYS[3], id)
local ticket = record and string.match(record, '^%d+|(%d+)|')
local rank = ticket and redis.call('ZRANK', KEYS[4], id)
local refresh = true
if not rank then
  local size = redis.call('ZCARD', KEYS[4])
  if size >= tonumber(ARGV[7]) then
    -- Those who died in the middle of the queue hold its places: look through another part of it each time.
    local from = now % size
    local ids = redis.call('ZRANGE', KEYS[4], from, from + 63)
    for i, record in ipairs(redis.call('HMGET', KEYS[3], unpack(ids))) do
      local deadline = tonumber(string.match(record or '', '^%d+') or 0)
      if deadline <= now then
        leave(ids[i])
        size = size - 1
      end
    end
    if size >= tonumber(ARGV[7]) then return {2, size} end
  end
  -- Before it is true.
  if quiet then redis.call('SET', KEYS[2], fence .. '+', 'PX', 86400000) end
  if ARGV[3] == '0' and not ticket then
    -- As tokens: never behind the clock, so that a ticket from before a loss of data is still an early one.
    local last = size > 0 and tonumber(redis.call('ZRANGE', KEYS[4], -1, -1, 'WITHSCORES')[2]) or 0
    ticket = string.format('%.0f', now > last and now or last + 1)
    redis.call('ZADD', KEYS[4], ticket, id)
    rank = size
  else
    ticket = ARGV[3] ~= '0' and ARGV[3] or ticket
    redis.call('ZADD', KEYS[4], ticket, id)
    rank = redis.call('ZRANK', KEYS[4], id)
  end
  -- A newcomer in a queue that lives puts off its end one time in sixteen: it has a day.
  refresh = size == 0 or now % 16 == 0
end
redis.call('HSET', KEYS[3], id, table.concat({string.format('%.0f', now + ARGV[4]), ticket, ARGV[5]}, '|'))
if refresh then
  redis.call('PEXPIRE', KEYS[3], 90000000)
  redis.call('PEXPIRE', KEYS[4], 90000000)
end
-- Who has the reservation comes before the queue.
if holder == '' then rank = rank + 1 end
return {0, rank, tonumber(ticket), left, holder}
