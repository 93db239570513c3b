-- Writes a revocation where the field still has the value that was read (compare and set).
--
-- KEYS: the revocations. ARGV: the field; its value as read, empty for none; the new value.
-- Answer: 1 where it was written, 0 where the field changed.

if (redis.call('HMGET', KEYS[1], ARGV[1])[1] or '') ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return 1
