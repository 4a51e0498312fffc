-- Frees those of many locks that nobody waits for. KEYS: lease and fence of each; ARGV: their attempts.
-- Returns 1 for each that was held and is free, 0 for what has to be freed by itself.
local answers = {}
for i, id in ipairs(ARGV) do
  local lease = redis.call('GET', KEYS[2 * i - 1])
  local fence = lease and string.sub(lease, 1, 33) == id .. '|' and redis.call('GET', KEYS[2 * i])
  local quiet = fence and string.byte(fence, -1) ~= 43
  answers[i] = quiet and redis.call('DEL', KEYS[2 * i - 1]) or 0
end
return answers
