-- Keeps what a person is asked to approve, until the person decides or it expires.
--
-- A request is `<id> <place> <sealed text>`: the id is drawn when it is first asked, and stays while
-- the client repeats the call, so that a page which is open already goes on. `place` is one of the
-- grant's; the request that stood there makes room.
--
-- KEYS: the request; the ring of its grant, a hash with the names of requests by their place, and
--       `n`, the next place.
-- ARGV: a new id; the sealed text; its lifetime in ms; how many requests a grant has at most; how
--       many characters of the first key name the request.

local call, match = redis.call, string.match
local REQUEST = '^([%w_-]+) (%d+) '

local held = call('GET', KEYS[1])
local id, place
if held then id, place = match(held, REQUEST) end
if not id then
  local name = string.sub(KEYS[1], -ARGV[5])
  id = ARGV[1]
  place = (tonumber(call('HGET', KEYS[2], 'n') or 0) or 0) % tonumber(ARGV[4])
  local oldest = call('HGET', KEYS[2], place)
  if oldest and oldest ~= name then
    local key = string.sub(KEYS[1], 1, -ARGV[5] - 1) .. oldest
    local _, at = match(call('GET', key) or '', REQUEST)
    if at and tonumber(at) == place then call('DEL', key) end
  end
  call('HSET', KEYS[2], 'n', (place + 1) % tonumber(ARGV[4]), place, name)
end
call('SET', KEYS[1], id .. ' ' .. place .. ' ' .. ARGV[2], 'PX', ARGV[3])
call('PEXPIRE', KEYS[2], ARGV[3])
return id
