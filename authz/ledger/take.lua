-- Answers one query of the ledger: revoked? step-up? over a limit? and only then charges.
--
-- Law: everything is read and judged before anything is written, so an error never leaves half a
-- charge, and nothing is charged unless all passes. The clock is Redis' own.
--
-- This is `take` of authz/core/limits.py, and `revoked` and `step_up_missing` of
-- authz/ledger/records.py; the contract tests hold them together. A bucket is 52 bytes, big
-- endian: the newest slot (8), then the units of that slot and of the 10 before it (4 each).
-- Old slots are forgotten by moving bytes, so that no table is built per limit.
--
-- KEYS: the revocations; the step-up record, where one is needed; the buckets, each once.
-- ARGV: issued_at; method needed (-1: none); its greatest age in ms (-1: any); leeway in ms;
--       how many fields of the revocations may name the token, and these fields; then for every
--       bucket quota (4 bytes), units to charge (4), length of a slot in ms (8), and, as text,
--       the bucket's lifetime in ms: 12 slots, one more than it counts, since Redis reckons it
--       from the script's beginning, which may lie in the slot before.
-- Answer: {now in ms, what, ...}, where what is
--   "revoked" (and the index of the field), "missing", "old", "corrupt",
--   "over" (and every bucket as it stands now) or "taken" (and every bucket after the charge).

local call, find, sub = redis.call, string.find, string.sub
local pack, unpack_ = struct.pack, struct.unpack
local keys, argv = KEYS, ARGV
local last = #keys - 1
local NONE = string.rep('\0', 40)

local clock = call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

local issued_at, fields = tonumber(argv[1]), tonumber(argv[5])
local ended = -1 -- log-ins up to this second count for no step-up: they went with the tokens
local revocations = call('HMGET', keys[1], unpack(argv, 6, 5 + fields))
for i = 1, fields do
  local value = revocations[i]
  if value then
    local _, _, moment = find(value, '^(%d+)|')
    if not moment then _, _, moment = find(value, '^(%d+)$') end
    if not moment or #moment > 15 or issued_at <= tonumber(moment) then
      return {now, 'revoked', i}
    end
    ended = math.max(ended, tonumber(moment))
  end
end

if last == 0 then return {now, 'taken'} end
local stored = call('MGET', unpack(keys, 2)) -- stored[i] is of keys[i + 1]

local first = 1 -- of the buckets, in `stored`
local method = tonumber(argv[2])
if method >= 0 then
  first = 2
  local record = stored[1]
  if not record then return {now, 'missing'} end
  local _, _, auth_time, proved = find(record, '^(%d+) ([0-7])$')
  if not auth_time or #auth_time > 15 or bit.band(proved, method) ~= method then
    return {now, 'missing'}
  end
  if tonumber(auth_time) <= ended then return {now, 'missing'} end
  local age, greatest = now - auth_time * 1000, tonumber(argv[3])
  if greatest >= 0 then
    if age < -argv[4] then return {now, 'missing'} end
    if age > greatest then return {now, 'old'} end
  end
end

-- MGET answers nil for what is no string; such a key is not an empty bucket.
local absent = {}
for i = first, last do
  if not stored[i] then absent[#absent + 1] = keys[i + 1] end
end
local alien = #absent > 0 and call('EXISTS', unpack(absent)) > 0

-- Of each bucket: its slot now, that slot's units, the older slots' bytes, what to charge, and
-- whether the stored slot is this one (0), an older one (1) or one ahead of the clock (-1).
local slots, newest, older, costs, moved = {}, {}, {}, {}, {}
local over = false
local arg = 6 + fields
for i = first, last do
  local value = stored[i]
  local quota, cost, slot = unpack_('>I4I4I8', argv[arg])
  local current = (now - now % slot) / slot
  local head, rest, used, move = 0, NONE, 0, 1
  if value then
    if #value ~= 52 then
      alien = true
      break
    end
    local at, a, b, c, d, e, f, g, h, j, k, l = unpack_('>I8I4I4I4I4I4I4I4I4I4I4I4', value)
    local late = current - at
    used = a + b + c + d + e + f + g + h + j + k + l
    if late == 0 then
      head, rest, move = a, sub(value, 13), 0
    elseif late < 0 then -- the clock stepped back: all of it counts as of now
      used = math.min(used, quota)
      head, move = used, -1
    elseif late < 11 then
      rest = sub(NONE, 1, 4 * late - 4) .. sub(value, 9, 52 - 4 * late)
      a, b, c, d, e, f, g, h, j, k = unpack_('>I4I4I4I4I4I4I4I4I4I4', rest)
      used = a + b + c + d + e + f + g + h + j + k
    else
      used = 0
    end
  end
  if used + cost > quota then over = true end
  slots[i], newest[i], older[i], costs[i], moved[i] = current, head, rest, cost, move
  arg = arg + 2
end

-- Here the writing begins.
arg = 7 + fields
if alien then
  -- No bucket of ours. Let it age like one, so that this ends without anybody's help.
  for i = first, last do
    if call('PTTL', keys[i + 1]) == -1 then call('PEXPIRE', keys[i + 1], argv[arg]) end
    arg = arg + 2
  end
  return {now, 'corrupt'}
end

local answer = {now, over and 'over' or 'taken'}
for i = first, last do
  local move = moved[i]
  local state = pack('>I8I4', slots[i], newest[i] + (over and 0 or costs[i])) .. older[i]
  if move == 0 and not over then
    call('SETRANGE', keys[i + 1], 0, state) -- half the work of SET, and keeps the lifetime
  elseif move < 0 or not over then
    call('SET', keys[i + 1], state, 'PX', argv[arg])
  end
  answer[#answer + 1] = state
  arg = arg + 2
end
return answer
