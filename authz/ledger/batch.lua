-- Answers many queries in one call; appended to take.lua, which defines `take`.
--
-- Invariant: each query is answered as if it had come alone, in order; an error in one charges
-- nothing for it and does not affect the others (tests/ledger/test_batch.py).
--
-- KEYS: those of all queries, in order.
-- ARGV: for every query its number of keys, its number of arguments, and these arguments.
-- Answer: that of `take` for every query; {0, "error", code} where it failed, with the code of
--         Redis' error.

local answers, count = {}, 0
local key, arg, last = 1, 1, #argv
while arg <= last do
  local after, args = key + argv[arg], argv[arg + 1]
  local done, answer = pcall(take, key, after - 1, arg + 2, arg + 1 + args)
  count = count + 1
  if not done then
    local message = type(answer) == 'table' and answer.err or tostring(answer)
    answer = {0, 'error', string.match(message, '^%-?(%u+)') or ''}
  end
  answers[count] = answer
  key, arg = after, arg + 2 + args
end
return answers
