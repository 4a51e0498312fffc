-- Renews leases. KEYS: their lease keys; ARGV: attempt and ttl in ms for each. GETRANGE, PEXPIRE: both work at maxmemory.
-- Returns a 1 for each that is renewed and a 0 for each that is gone, as the digits of one string: quickly read.
local answers = {}
for i, key in ipairs(KEYS) do
  local ours = redis.call('GETRANGE', key, 0, 32) == ARGV[2 * i - 1] .. '|'
  answers[i] = ours and redis.call('PEXPIRE', key, ARGV[2 * i]) or 0
end
return table.concat(answers)
