-- Leasehold, layout 1. The keys of every script but renew, all in one slot:
--   KEYS[1] lease    string  attempt|token|since_us|channel|details, or !attempt: reserved for a waiter that was woken
--   KEYS[2] fence    string  the last token, and a '+' unless it is sure that nobody waits
--   KEYS[3] waiters  hash    attempt -> deadline_us|ticket|channel
--   KEYS[4] queue    zset    attempt by ticket
-- This part is in all that may find the lock free, behind what does without it. At maxmemory they do all that frees memory.

local function micros()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

local function leave(id)
  redis.call('ZREM', KEYS[4], id)
  redis.call('HDEL', KEYS[3], id)
end

-- Sends the message unless the waiter is dead: no record, deadline passed, or no process that hears its channel.
local function tell(record, now, message)
  local deadline, channel = string.match(record or '', '^(%d+)|%d+|(.+)$')
  return deadline and tonumber(deadline) > now and redis.call('PUBLISH', channel, message) > 0
end

-- Offers the free lock to the queue: the first live waiter leaves it for a reservation and is woken; the two after it are
-- told to stand by for its end, the third in case that the second is as dead as the first and the server does not know it
-- yet. The dead are dropped, `me` is not. Who does not take its turn has to come again, with its ticket. `now` may be nil:
-- where nobody waits the clock is not asked.
-- Returns whose turn it is (me, when the caller comes first), nil when nobody waits, false when there is more to drop.
local function offer(now, window, me)
  for _ = 1, 64 do
    local ids = redis.call('ZRANGE', KEYS[4], 0, 2)
    local first = ids[1]
    if not first or first == me then return first end
    now = now or micros()
    local records = redis.call('HMGET', KEYS[3], unpack(ids))
    local dropped = false
    -- The last before the first: what a script writes last, the server sends first.
    for place = #ids, 2, -1 do
      local id = ids[place]
      if id ~= me and not tell(records[place], now, 's' .. id .. '|' .. window * (place - 1)) then
        leave(id)
        dropped = true
      end
    end
    if not dropped then
      local alive = tell(records[1], now, 'w' .. first)
      leave(first)
      if alive then
        -- A full server may refuse this: the waiter was woken all the same.
        redis.pcall('SET', KEYS[1], '!' .. first, 'PX', window)
        return first
      end
    end
  end
  return false
end
