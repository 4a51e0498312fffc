-- Frees those of many locks that nobody waits for. KEYS: lease and fence of each; ARGV: their attempts.
-- Returns 1 for each that was held and is free, 0 for what has to be freed by itself.
local found = redis.call('MGET', unpack(KEYS))
local answers, free = {}, {}
for i, id in ipairs(ARGV) do
  local lease, fence = found[2 * i - 1], found[2 * i]
  local quiet = fence and string.byte(fence, -1) ~= 43
  answers[i] = quiet and lease and string.sub(lease, 1, 33) == id .. '|' and 1 or 0
  if answers[i] == 1 then free[#free + 1] = KEYS[2 * i - 1] end
end
if #free > 0 then redis.call('DEL', unpack(free)) end
return answers
