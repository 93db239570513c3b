-- Revoked even where the grant is gone, past its age for one: its last access token lives on. A
-- revocation of everything that the grant has is there already where the operator made it. What
-- Authelia is to be told goes from the record to where that waits, in the same step.
local before = redis.call('HGET', KEYS[2], ARGV[2])
if not before or string.sub(before, 1, 2) ~= '*|' then
  redis.call('HSET', KEYS[2], ARGV[2], ARGV[3])
end
local held = redis.call('HGET', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('DEL', KEYS[4])
local good, grant = pcall(cjson.decode, held or '')
local upstream = good and type(grant) == 'table' and grant.upstream
if type(upstream) == 'string' and upstream ~= ''
    and redis.call('HLEN', KEYS[3]) < tonumber(ARGV[4]) then
  redis.call('HSET', KEYS[3], ARGV[1], upstream)
  redis.call('EXPIRE', KEYS[3], ARGV[5])
end
return held
