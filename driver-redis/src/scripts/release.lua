-- The rest of release.
if not held then
  leave(id)
  if lease == '!' .. id then
    redis.call('DEL', KEYS[1])
  elseif lease then
    return {0, 0}
  end
end
local more = offer(nil, ARGV[2], '') == false
return {held and 1 or 0, more and 1 or 0}
