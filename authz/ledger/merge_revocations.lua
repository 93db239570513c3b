-- Writes revocations that a data set lost. Nothing is written where the data set changed since it
-- was read; the next reading tells. A revocation that another reader merged and somebody changed
-- since is left as it is. (An older release notes an empty value.) The commands are those that
-- taking charges needs, so that no further ACL rights are asked: no GET, HGET or DEL.
--
-- KEYS: the revocations; the generation; the reader's mark; the hash of what was merged.
-- ARGV: the generation as read; the generation to write; the reader's mark; lifetime in ms of the
--       mark and of the hash; for every revocation its field, its value as read and the new value.
-- Answer: 0 where the data set changed, else 1 and the number of revocations written.

if (redis.call('MGET', KEYS[2])[1] or '') ~= ARGV[1] then return 0 end
for i = 5, #ARGV, 3 do
  if (redis.call('HMGET', KEYS[1], ARGV[i])[1] or '') ~= ARGV[i + 1] then return 0 end
end
if ARGV[2] ~= ARGV[1] then
  redis.call('SET', KEYS[2], ARGV[2])
  redis.call('PEXPIRE', KEYS[4], '0')
end
local merged = 1
for i = 5, #ARGV, 3 do
  local note = redis.call('HMGET', KEYS[4], ARGV[i])[1]
  if not note or note == '' or note == ARGV[i + 1] then
    redis.call('HSET', KEYS[4], ARGV[i], ARGV[i + 2])
    if ARGV[i + 1] ~= ARGV[i + 2] then
      redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 2])
      merged = merged + 1
    end
  end
end
redis.call('PEXPIRE', KEYS[4], ARGV[4])
redis.call('SET', KEYS[3], ARGV[3], 'PX', ARGV[4])
return merged
