-- Remove the oldest records, where nobody has removed any since they were read.
-- KEYS: stream, heads, floors.
-- ARGV: id of the oldest record, of the first to keep, how many these are, how many must be left,
--   then for each chain: name, floor, number.
local oldest = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)
if not oldest[1] or oldest[1][1] ~= ARGV[1] then return 0 end
-- Another process has removed some since the length was known.
if redis.call('XLEN', KEYS[1]) - tonumber(ARGV[3]) < tonumber(ARGV[4]) then return 0 end
local removed = redis.call('XTRIM', KEYS[1], 'MINID', ARGV[2])
for at = 5, #ARGV, 3 do
  redis.call('HSET', KEYS[3], ARGV[at], ARGV[at + 1])
  local head = redis.call('HGET', KEYS[2], ARGV[at])
  -- Nothing of the chain is left.
  if head and string.match(head, '^%d+') == ARGV[at + 2] then
    redis.call('HDEL', KEYS[2], ARGV[at])
  end
end
return removed
