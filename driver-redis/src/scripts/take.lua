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

-- `mark` is '+' unless it is sure that nobody waits.
local function take(last, mark)
  local token, text = issue(last, ARGV[9])
  redis.call('SET', KEYS[1], record(id, text, ARGV[5], ARGV[8]), 'PX', ARGV[2])
  redis.call('SET', KEYS[2], text .. mark, 'PX', '86400000')
  return token
end

if not (lease or fence) and redis.call('ZCARD', KEYS[4]) == 0 then fence = '0' end
-- It is digits alone where it is sure that nobody waits.
local last = not lease and fence and tonumber(fence)
if last then return take(last, '') end
