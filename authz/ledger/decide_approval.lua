-- Records what a person decided about one request, and a step-up with it: once, and only while the
-- request is there.
--
-- KEYS: the request; the record of the approval; the step-up record, where one is to be written.
-- ARGV: the request's id; the record's value and its lifetime in ms; those of the step-up.

local held = redis.call('GET', KEYS[1])
if not held or string.sub(held, 1, #ARGV[1] + 1) ~= ARGV[1] .. ' ' then return 0 end
redis.call('DEL', KEYS[1])
if KEYS[3] then redis.call('SET', KEYS[3], ARGV[4], 'PX', ARGV[5]) end
redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
return 1
