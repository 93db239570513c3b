-- Write a value in place of the one that was read; not where another was written meanwhile. One that
-- has expired since is written anew.
-- KEYS: the value. ARGV: what was read, empty for none; the new value; its lifetime in seconds.
local held = redis.call('GET', KEYS[1])
if held and held ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
return 1
