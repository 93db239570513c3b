-- Whoever used the code a second time meanwhile has spoilt it: then no grant begins.
if string.sub(redis.call('GET', KEYS[3]) or '', 1, 1) ~= 'u' then return 'replayed' end
if redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[3]) then return 'full' end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[4])
redis.call('SET', KEYS[2], ARGV[5], 'EX', ARGV[6])
return 'begun'
