-- Records what a person decided about one request, and a step-up with it: once, and only while the
-- request is there. An approval is listed for its person, too, among those that end last.
--
-- KEYS: the request; the record of the approval; the approvals of the person, a hash of
--       `<millisecond of the end> <text>` by name; the step-up record, where one is to be written.
-- ARGV: the request's id; the record's value and its lifetime in ms; the approval's name and what
--       the list says of it, empty where nothing is listed; how many are listed at most; the
--       step-up's value and lifetime.

local call = redis.call
local held = call('GET', KEYS[1])
if not held or string.sub(held, 1, #ARGV[1] + 1) ~= ARGV[1] .. ' ' then return 0 end
-- First what might fail: then nothing is recorded.
if ARGV[5] ~= '' then
  local time = call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  call('HSET', KEYS[3], ARGV[4], string.format('%.0f %s', now + ARGV[3], ARGV[5]))
  local listed, ends, last = call('HGETALL', KEYS[3]), {}, now
  for at = 1, #listed, 2 do
    local over = tonumber(string.match(listed[at + 1], '^%d+')) or 0
    if over <= now then
      call('HDEL', KEYS[3], listed[at])
    else
      ends[#ends + 1] = {over, listed[at]}
      last = math.max(last, over)
    end
  end
  table.sort(ends, function(one, other) return one[1] < other[1] end)
  for at = 1, #ends - ARGV[6] do call('HDEL', KEYS[3], ends[at][2]) end
  call('PEXPIRE', KEYS[3], last - now)
end
call('DEL', KEYS[1])
if KEYS[4] then call('SET', KEYS[4], ARGV[7], 'PX', ARGV[8]) end
call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
return 1
