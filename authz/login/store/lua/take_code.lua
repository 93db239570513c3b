-- A code is `f<payload>\n<mark>` while it is fresh, `u<mark>` once it was used, and `x<mark>` once
-- it was used twice.
local held = redis.call('GET', KEYS[1])
if not held then return false end
local kind = string.sub(held, 1, 1)
if kind == 'f' then
  local cut = string.find(held, '\n', 1, true)
  if not cut then return false end
  redis.call('SET', KEYS[1], 'u' .. string.sub(held, cut + 1), 'EX', ARGV[1])
elseif kind == 'u' then
  redis.call('SET', KEYS[1], 'x' .. string.sub(held, 2), 'EX', ARGV[1])
end
return held
