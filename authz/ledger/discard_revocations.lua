-- Removes revocations that still have the value that was read (compare and delete).
--
-- KEYS: the revocations. ARGV: for every revocation its field and its value as read.
-- Answer: how many were removed.

local removed = 0
for i = 1, #ARGV, 2 do
  if redis.call('HMGET', KEYS[1], ARGV[i])[1] == ARGV[i + 1] then
    removed = removed + redis.call('HDEL', KEYS[1], ARGV[i])
  end
end
return removed
