-- Reads all revocations, and leaves the reader's mark where the data set is the one it read last.
-- A replica, or a Redis without memory, is read all the same: then the earlier mark stays valid.
--
-- KEYS: the revocations; the data set's generation; the reader's mark.
-- ARGV: the new mark; its lifetime in ms; the generation of a data set that has none; the marks
--       that the reader accepts.
-- Answer: {generation, mark as found, 1 if the new mark was written else 0, HGETALL}.

local stored = redis.call('MGET', KEYS[2], KEYS[3])
local mark, written = stored[2] or '', 0
for i = 4, #ARGV do
  if mark == ARGV[i] then
    if not stored[1] then redis.pcall('SET', KEYS[2], ARGV[3], 'NX') end
    if not redis.pcall('SET', KEYS[3], ARGV[1], 'PX', ARGV[2]).err then written = 1 end
    break
  end
end
return {stored[1] or '', mark, written, redis.call('HGETALL', KEYS[1])}
