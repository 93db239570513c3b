-- Return a person's latest records, newest first. KEYS: list, stream. ARGV: how many.
local found = {}
for _, id in ipairs(redis.call('LRANGE', KEYS[1], 0, tonumber(ARGV[1]) - 1)) do
  local entry = redis.call('XRANGE', KEYS[2], id, id)[1]
  if entry then found[#found + 1] = entry end
end
return found
