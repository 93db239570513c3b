-- Answers one query of the ledger: revoked, session of another, step-up missing or too old, approval
-- declined or missing, over a limit; otherwise charges every limit, binds the session, and uses up
-- the approval of one call.
--
-- Invariant: everything is read and judged before anything is written, so an error never leaves
-- half a charge, and nothing is charged unless all passes. The clock is Redis' own, read once, and
-- the same for all queries of a call and for the expiry of keys.
--
-- The same as `take` of authz/core/limits.py, and `revoked`, `step_up_missing` and `not_approved` of
-- authz/ledger/records.py (tests/ledger/test_contract.py, test_script.py). A bucket is 52 bytes,
-- big endian: the newest slot (8), then the units of that slot and of the 10 before it (4 each).
--
-- The work per limit is kept small. Creating a string is expensive, since Redis' Lua hashes every
-- byte of it; so is a number passed to `call`, which formats it, and every field that struct reads
-- or writes. So a bucket is answered as it was found, where no slot has ended since, and four bytes
-- of it are written. Old slots are dropped by moving bytes, and summed only where there are any; no
-- table is built per limit.
--
-- KEYS: the revocations; the step-up record and the record of an approval, where they are needed;
--       the session, where the request names one; the buckets, each once; where there is a session,
--       the ring of its person.
-- ARGV: issued_at; method needed (-1: none); its greatest age in ms (-1: any); leeway in ms; the
--       greatest age of an approval in ms (0: it is used up, however old; -1: none is needed);
--       how many fields of the revocations may name the token, and these fields; then, where
--       there are buckets, one string with, for each: quota (4 bytes), units to charge (4), length
--       of a slot in ms (8), and behind them, where any limit is in shadow, a byte for each (1: it
--       is); then, where there is a session, its owner (16 bytes that name the
--       person, 16 that name the owner) and the lifetime of the binding in ms.
-- Answer: {now in ms, kind, ...}, where kind is
--   "revoked" (and the index of the field), "foreign", "missing", "old", "unapproved", "declined",
--   "corrupt",
--   "over" or "taken" (and every bucket as it stood at that moment, before any charge).

local call, find, sub = redis.call, string.find, string.sub
local rep, format, byte = string.rep, string.format, string.byte
local pack, unpack_ = struct.pack, struct.unpack
local keys, argv = KEYS, ARGV
local STATE = '>I8I4c40'
local NONE = rep('\0', 40)
local REST = 13 -- where the ten older slots begin
-- A bucket lives for 12 slots, one more than it counts, since Redis counts its lifetime from the
-- script's beginning, which may lie in the slot before.
local LIFETIME = '%.0f' -- as text: see above

local clock = call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

-- As in authz/core/ledger.py.
local MOST_SESSIONS = 4096
local PLACE = '>I2' -- of a session among them, behind its owner

-- Decoded charges by the string of ARGV: the same limits apply to query after query.
local known = {}

-- Returns the sum of the ten slots from byte `place` on.
local function sum(text, place)
  if find(text, NONE, place, true) == place then return 0 end
  local a, b, c, d, e, f, g, h, j, k = unpack_('>I4I4I4I4I4I4I4I4I4I4', text, place)
  return a + b + c + d + e + f + g + h + j + k
end

-- Binds a session to its owner, or renews the binding. `ring` is a hash with the newest sessions of
-- the person by their place, and `n`, the next place. The session that stood there is unbound,
-- unless it belongs to another person by now. A session that expired and was bound again stands in
-- two places; its binding names the newer place, and the older one unbinds nothing.
local function bind(session, bound, owner, lifetime, ring)
  if bound then
    call('PEXPIRE', session, lifetime)
    return
  end
  local place = (tonumber(call('HMGET', ring, 'n')[1] or 0) or 0) % MOST_SESSIONS
  local oldest = call('HMGET', ring, place)[1]
  if oldest then
    local key = sub(session, 1, -33) .. oldest
    local held = call('MGET', key)[1]
    local at = held and #held > #owner and unpack_(PLACE, held, #owner + 1) or place
    if held and sub(held, 1, 16) == sub(owner, 1, 16) and at == place then
      call('PEXPIRE', key, '0')
    end
  end
  call('HSET', ring, 'n', (place + 1) % MOST_SESSIONS, place, sub(session, -32))
  -- Never shorter than before: a server with a short session_lifetime would let the ring expire
  -- while sessions at another server are still bound.
  if call('PTTL', ring) < tonumber(lifetime) then call('PEXPIRE', ring, lifetime) end
  call('SET', session, owner .. pack(PLACE, place), 'PX', lifetime)
end

-- Returns what the record of an approval lacks: nothing, "declined" or "unapproved". `greatest` is as
-- in ARGV; approvals up to the second `ended` are void.
local function lacks(record, now, greatest, ended, leeway)
  local _, _, word, second = find(record or '', '^([ad]) (%d+)$')
  if not word or #second > 15 then return 'unapproved' end
  local age = now - second * 1000
  if tonumber(second) <= ended or age < -leeway then return 'unapproved' end
  if greatest > 0 and age > greatest then return 'unapproved' end
  return word == 'd' and 'declined' or nil
end

-- Answers the query with the keys from `first` to `last` and the arguments from `arg` to `stop`.
local function take(first, last, arg, stop)
  local issued_at, fields = tonumber(argv[arg]), tonumber(argv[arg + 5])
  local ended = -1 -- step-ups of log-ins up to this second are void, like the tokens of that time
  local revocations = call('HMGET', keys[first], unpack(argv, arg + 6, arg + 5 + fields))
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

  if first == last then return {now, 'taken'} end
  local owner, lifetime, ring
  if stop - arg - 5 - fields > 1 then -- beside the charges, which are one argument
    owner, lifetime, ring, last = argv[stop - 1], argv[stop], keys[last], last - 1
  end
  local stored = call('MGET', unpack(keys, first + 1, last)) -- stored[i] is of keys[first + i]
  local count = last - first

  local bucket = 1 -- the first of them, in `stored`
  local method, approval = tonumber(argv[arg + 1]), tonumber(argv[arg + 4])
  local session, bound, approved
  if method >= 0 then bucket = 2 end
  if approval >= 0 then approved, bucket = bucket, bucket + 1 end
  if owner then
    session, bound = keys[first + bucket], stored[bucket]
    bucket = bucket + 1
    if bound and find(bound, owner, 1, true) ~= 1 then return {now, 'foreign'} end
  end
  if method >= 0 then
    local record = stored[1]
    if not record then return {now, 'missing'} end
    local _, _, auth_time, proved = find(record, '^(%d+) ([0-7])$')
    if not auth_time or #auth_time > 15 or bit.band(proved, method) ~= method then
      return {now, 'missing'}
    end
    if tonumber(auth_time) <= ended then return {now, 'missing'} end
    local age, greatest = now - auth_time * 1000, tonumber(argv[arg + 2])
    if greatest >= 0 then
      if age < -argv[arg + 3] then return {now, 'missing'} end
      if age > greatest then return {now, 'old'} end
    end
  end
  local used -- the approval that this call uses up
  if approved then
    local lack = lacks(stored[approved], now, approval, ended, argv[arg + 3])
    if lack then return {now, lack} end
    used = approval == 0 and keys[first + approved]
  end
  if bucket > count then -- without limits
    if used then call('PEXPIRE', used, '0') end
    if owner then bind(session, bound, owner, lifetime, ring) end
    return {now, 'taken'}
  end

  local text = argv[arg + 6 + fields]
  local charges = known[text] -- quota, cost, slot of the first, and so on
  if not charges then
    charges = {unpack_('>' .. rep('I4I4I8', count - bucket + 1), text)}
    known[text] = charges
  end

  -- keys[n + base] is of answer[n].
  local base, final = first + bucket - 3, count - bucket + 3
  local place = bucket - 3 -- and stored[n + place]
  local shadow = 16 * final - 34 -- and the byte of `text` at n + shadow is 1 of a limit in shadow

  -- answer[n]: the bucket as it stands now. stored[n + place] becomes the units of its newest slot
  -- after the charge. Where the stored newest slot is not the current one, rests[n]: its older
  -- slots; ahead[n]: whether it was ahead of the clock.
  local answer, rests, ahead = {now, 'taken', unpack(stored, bucket, count)}, {}, {}
  local over, alien, absent = false, false, nil
  local at = 1
  for n = 3, final do
    local value = answer[n]
    local quota, cost, slot = charges[at], charges[at + 1], charges[at + 2]
    local current = (now - now % slot) / slot
    local stamp, head, older
    if value and #value == 52 then
      stamp, head = unpack_('>I8I4', value)
    elseif byte(text, n + shadow) == 1 then
      value = nil -- it refuses nothing, so that what is no bucket of ours is written over
    elseif value then
      alien = true
      break
    else -- MGET also answers nil for a key of another type; that is not an empty bucket
      absent = absent or {}
      absent[#absent + 1] = keys[n + base]
    end
    if stamp == current then
      older = sum(value, REST)
    else
      local late, rest = value and current - stamp or 11, NONE
      if late < 0 then -- the clock stepped back: all of it counts as of now
        head, ahead[n] = math.min(head + sum(value, REST), quota), true
      elseif late < 11 then
        head, rest = 0, rep('\0', 4 * late - 4) .. sub(value, 9, 52 - 4 * late)
      else
        head = 0
      end
      older, rests[n] = sum(rest, 1), rest
      answer[n] = pack(STATE, current, head, rest)
    end
    head = head + cost
    if head + older > quota then
      if byte(text, n + shadow) == 1 then head = head - cost else over = true end
    end
    stored[n + place] = head
    at = at + 3
  end
  alien = alien or absent and call('EXISTS', unpack(absent)) > 0

  -- Here the writing begins.
  if alien then
    -- No bucket of ours: let it expire like one, so that the fault ends by itself.
    for n = 3, final do
      local key = keys[n + base]
      if call('PTTL', key) == -1 then
        call('PEXPIRE', key, format(LIFETIME, 12 * charges[3 * n - 6]))
      end
    end
    return {now, 'corrupt'}
  end

  if over then -- nothing is charged
    answer[2] = 'over'
    for n in pairs(ahead) do
      call('SET', keys[n + base], answer[n], 'PX', format(LIFETIME, 12 * charges[3 * n - 6]))
    end
    return answer
  end
  if used then call('PEXPIRE', used, '0') end
  if owner then bind(session, bound, owner, lifetime, ring) end
  for n = 3, final do
    local rest = rests[n]
    if rest then
      local state = sub(answer[n], 1, 8) .. pack('>I4', stored[n + place]) .. rest
      call('SET', keys[n + base], state, 'PX', format(LIFETIME, 12 * charges[3 * n - 6]))
    else -- half the work of SET, and keeps the lifetime
      call('SETRANGE', keys[n + base], '8', pack('>I4', stored[n + place]))
    end
  end
  return answer
end
