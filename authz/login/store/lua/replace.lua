-- Write a value in place of the one that was read; not where another was written meanwhile.
-- KEYS: the value. ARGV: what was read, empty for none; the new value; its lifetime in seconds.
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
return 1
