-- Append records of one chain, each at most once: a call whose reply was lost is sent again.
-- KEYS: stream, heads, floors, then the lists of people's records.
-- ARGV: chain, number of the first record, the chain's new head, the bound of a list, its lifetime
--   in seconds, then for each record: text, MAC, and which KEYS lists it (0: none).
-- Returns the length of the stream, or -1 and the last number here, where records are missing.
local stream, heads, floors = KEYS[1], KEYS[2], KEYS[3]
local chain, first = ARGV[1], tonumber(ARGV[2])
local head = redis.call('HGET', heads, chain) or redis.call('HGET', floors, chain)
local written = -1
if head then written = tonumber(string.match(head, '^%d+')) or -1 end
if written + 1 < first then return {-1, written} end
local last = first + (#ARGV - 5) / 3 - 1
for n = first, last do
  if n > written then
    local at = 6 + (n - first) * 3
    local id = redis.call('XADD', stream, '*', 'r', ARGV[at], 'm', ARGV[at + 1])
    local list = tonumber(ARGV[at + 2])
    if list > 0 then
      -- A list of another type costs the list, never a record.
      redis.pcall('LPUSH', KEYS[list], id)
      redis.pcall('LTRIM', KEYS[list], 0, ARGV[4])
      redis.pcall('EXPIRE', KEYS[list], ARGV[5])
    end
  end
end
if last > written then redis.call('HSET', heads, chain, ARGV[3]) end
return {redis.call('XLEN', stream), last}
