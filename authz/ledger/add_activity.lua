-- Adds what one program counted since it last said so, and replaces what it says of itself.
--
-- Only commands that take.lua needs, too, so that every user of Redis that authz has may run it.
--
-- KEYS: the counts of the minute; those of the ten minutes; what programs say of themselves.
-- ARGV: the lifetimes of the three in ms; the program's field and text; then names and counts.

local call = redis.call
call('HSET', KEYS[3], ARGV[4], ARGV[5])
call('PEXPIRE', KEYS[3], ARGV[3])
if #ARGV < 7 then return 1 end
for place = 1, 2 do
  for at = 6, #ARGV, 2 do
    local held = tonumber(call('HMGET', KEYS[place], ARGV[at])[1] or 0) or 0
    call('HSET', KEYS[place], ARGV[at], string.format('%.0f', held + ARGV[at + 1]))
  end
  call('PEXPIRE', KEYS[place], ARGV[place])
end
return 1
