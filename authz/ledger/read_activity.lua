-- Returns hashes, each as HGETALL does: one call for a day of counts.
--
-- KEYS: the hashes.

local found = {}
for place = 1, #KEYS do found[place] = redis.call('HGETALL', KEYS[place]) end
return found
