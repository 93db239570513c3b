-- Charges what was admitted without Redis, where the window still holds it.
--
-- Invariant: a batch is charged once, however often it is sent, and no bucket beyond its quota
-- (tests/ledger/test_late_charges.py).
--
-- KEYS: the batch, then buckets (as in take.lua).
-- ARGV: how long the batch is remembered, in ms; then for each bucket: its quota, the length of a
--       slot in ms, and for each slot, the newest first: units (4 bytes), their age in ms (8).
-- Answer: how many units were charged; 0 where the batch was charged before.

local call, unpack_ = redis.call, struct.unpack
local STATE = '>I8I4I4I4I4I4I4I4I4I4I4I4'
local clock = call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local values = call('MGET', unpack(KEYS, 2))
if not call('SET', KEYS[1], '1', 'NX', 'PX', ARGV[1]) then return 0 end

local total = 0
for n = 2, #KEYS do
  local quota, slot, text = tonumber(ARGV[3 * n - 4]), tonumber(ARGV[3 * n - 3]), ARGV[3 * n - 2]
  local value, newest = values[n - 1], (now - now % slot) / slot
  local counts, used = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, 0
  local ours = value and #value == 52 or not value and call('EXISTS', KEYS[n]) == 0
  if ours and value then
    local stored = {unpack_(STATE, value)}
    local late = newest - stored[1]
    if late < 0 then newest, late = stored[1], 0 end -- the clock stepped back
    for i = 1, 11 - late do
      counts[i + late] = stored[i + 1]
      used = used + stored[i + 1]
    end
  end
  local before = used
  for at = 1, ours and #text or 0, 12 do
    local units, age = unpack_('>I4I8', text, at)
    local behind = math.max(0, newest - math.floor((now - age) / slot))
    local more = math.min(units, quota - used)
    if behind <= 10 and more > 0 then
      counts[behind + 1] = counts[behind + 1] + more
      used = used + more
    end
  end
  if used > before then
    total = total + used - before
    local state = struct.pack(STATE, newest, unpack(counts))
    call('SET', KEYS[n], state, 'PX', string.format('%.0f', 12 * slot))
  end
end
return total
