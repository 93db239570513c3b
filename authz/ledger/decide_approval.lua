-- Records what a person decided about one request, and a step-up with it: once, and only while the
-- request is there. An approval is listed for its person, too, among the latest.
--
-- KEYS: the request; the record of the approval; the approvals of the person, a sorted set by the
--       millisecond of their end; the step-up record, where one is to be written.
-- ARGV: the request's id; the record's value and its lifetime in ms; the member of the list, empty
--       where nothing is listed; how many are listed at most; the step-up's value and lifetime.

local call = redis.call
local held = call('GET', KEYS[1])
if not held or string.sub(held, 1, #ARGV[1] + 1) ~= ARGV[1] .. ' ' then return 0 end
-- First what a user of Redis of an earlier release may not do: then nothing is recorded at all.
if ARGV[4] ~= '' then
  local time = call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now)
  call('ZADD', KEYS[3], now + ARGV[3], ARGV[4])
  call('ZREMRANGEBYRANK', KEYS[3], 0, -1 - ARGV[5])
  call('PEXPIRE', KEYS[3], call('ZRANGE', KEYS[3], -1, -1, 'WITHSCORES')[2] - now)
end
call('DEL', KEYS[1])
if KEYS[4] then call('SET', KEYS[4], ARGV[6], 'PX', ARGV[7]) end
call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
return 1
