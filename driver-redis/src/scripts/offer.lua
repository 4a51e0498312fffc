-- Leasehold, layout 1. The keys of every script but renew, all in one slot:
--   KEYS[1] lease    string  attempt|token|since_us|channel|details, or !attempt: reserved for a waiter that was woken
--   KEYS[2] fence    string  the last token
--   KEYS[3] waiters  hash    attempt -> deadline_us|ticket|channel; the deadline is 0 once its turn was offered
--   KEYS[4] queue    zset    attempt by ticket
-- This part precedes the scripts that may find the lock free. They work at maxmemory as far as memory is freed.

-- Offers the free lock to the queue: the first live waiter gets a reservation and is woken, the one after it is told
-- to stand by for the end of the reservation. The dead are dropped: no record, deadline passed, turn offered and not
-- taken, or no process that hears its channel. `me` is never dropped.
-- Returns whose turn it is (me, when the caller comes first), nil when nobody waits, false when there is more to drop.
local function offer(now, window, me)
  local first
  for _ = 1, 64 do
    local at = first and 1 or 0
    local id = redis.call('ZRANGE', KEYS[4], at, at)[1]
    if not id or id == me then return first or id end
    local record = redis.call('HGET', KEYS[3], id)
    local deadline, ticket, channel = string.match(record or '', '^(%d+)|(%d+)|(.+)$')
    local message = first and 's' .. id .. '|' .. window or 'w' .. id
    if deadline and tonumber(deadline) > now and redis.call('PUBLISH', channel, message) > 0 then
      if first then return first end
      first = id
      -- A full server may refuse these: the waiter was woken all the same.
      redis.pcall('SET', KEYS[1], '!' .. id, 'PX', window)
      redis.pcall('HSET', KEYS[3], id, '0|' .. ticket .. '|' .. channel)
    else
      redis.call('ZREM', KEYS[4], id)
      redis.call('HDEL', KEYS[3], id)
    end
  end
  return first or false
end

local function micros()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end
