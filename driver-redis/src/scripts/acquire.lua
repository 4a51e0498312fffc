-- Takes the lock, or stands in the queue, or gives a sign of life, or claims the turn.
-- ARGV: 1 attempt, 2 ttl in ms, 3 ticket ('' to try only, '0' when there is none yet), 4 waiter's ttl in us,
--       5 channel, 6 claim window in ms, 7 limit of the queue, 8 details,
--       9 spare tokens
-- Returns {1, token, ttl, does anybody wait}, {0, rank or -1, ticket, ms left, holder's record without the attempt},
--         {2, queue} when it is full, or {3} when it has to be called again.
local id = ARGV[1]
local lease = redis.call('GET', KEYS[1])
local fence = redis.call('GET', KEYS[2])
local reserved = lease == '!' .. id
if lease and string.sub(lease, 1, 33) == id .. '|' then
  return {1, tonumber(string.match(lease, '^(%d+)', 34)), redis.call('PTTL', KEYS[1]), 1}
end

local now, since = micros()
local quiet = is_quiet(fence)
local queued = false
if not lease and not quiet then
  local first = offer(now, ARGV[6], id)
  if first == false then return {3} end
  queued = first == id
  if first and not queued then lease = '!' .. first end
end

if reserved or not lease then
  local token, text = now, since
  local last = tonumber(string.match(fence or '', '^%d+') or 0)
  local spare = tonumber(ARGV[9])
  if last >= token or spare > 0 then
    token = math.max(token, last + 1) + spare
    text = string.format('%.0f', token)
  end
  redis.call('SET', KEYS[1], table.concat({id, text, since, ARGV[5], ARGV[8]}, '|'), 'PX', ARGV[2])
  if queued then leave(id) end
  local waits = not quiet and redis.call('ZCARD', KEYS[4]) > 0
  if waits then text = text .. '+' end
  -- A day past its last use the token is forgotten: the clock alone keeps tokens growing then.
  redis.call('SET', KEYS[2], text, 'PX', 86400000)
  return {1, token, tonumber(ARGV[2]), waits and 1 or 0}
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
