-- Answers many queries in one call. What stands above this, with `take` in it, is take.lua.
--
-- Law: each query is answered as if it had come alone, in the order in which they were asked: an
-- error in one charges nothing for it, and is nobody else's.
--
-- KEYS: those of all queries, one after the other.
-- ARGV: for every query how many keys it has, how many arguments, and these arguments.
-- Answer: that of `take` for every query; {0, "error", code} where it failed, with the code that
-- Redis' own error begins with.

local answers, count = {}, 0
local key, arg, last = 1, 1, #argv
while arg <= last do
  local after, args = key + argv[arg], argv[arg + 1]
  local done, answer = pcall(take, key, after - 1, arg + 2, arg + 1 + args)
  count = count + 1
  if not done then
    local told = type(answer) == 'table' and answer.err or tostring(answer)
    answer = {0, 'error', string.match(told, '^%-?(%u+)') or ''}
  end
  answers[count] = answer
  key, arg = after, arg + 2 + args
end
return answers
