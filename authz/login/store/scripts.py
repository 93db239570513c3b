"""The scripts of the pages in Redis: what must not come apart is one of them.

Law: a script checks before it writes, and either all of it happens or nothing. All its keys are of
one deployment, so of one slot.
"""

from typing import Any, Final

from authz.ledger.login_records import Command
from authz.ledger.records import ScriptNotLoadedError
from authz.ledger.script import Script

# A code is `f<payload>\n<mark>` while it is fresh, `u<mark>` once it was used, and `x<mark>` once
# it was used twice.
TAKE_CODE: Final = Script("""\
local held = redis.call('GET', KEYS[1])
if not held then return false end
local kind = string.sub(held, 1, 1)
if kind == 'f' then
  local cut = string.find(held, '\\n', 1, true)
  if not cut then return false end
  redis.call('SET', KEYS[1], 'u' .. string.sub(held, cut + 1), 'EX', ARGV[1])
elseif kind == 'u' then
  redis.call('SET', KEYS[1], 'x' .. string.sub(held, 2), 'EX', ARGV[1])
end
return held
""")

# Whoever used the code a second time meanwhile has spoilt it: then no grant begins.
BEGIN: Final = Script("""\
if string.sub(redis.call('GET', KEYS[3]) or '', 1, 1) ~= 'u' then return 'replayed' end
if redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[3]) then return 'full' end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[4])
redis.call('SET', KEYS[2], ARGV[5], 'EX', ARGV[6])
return 'begun'
""")

# The grant as it was read is compared whole: one that was ended or renewed since stays as it is.
RENEW: Final = Script("""\
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
redis.call('EXPIRE', KEYS[1], ARGV[4])
redis.call('EXPIRE', KEYS[3], ARGV[5], 'LT')
redis.call('SET', KEYS[2], ARGV[6], 'EX', ARGV[7])
redis.call('SET', KEYS[4], ARGV[8], 'EX', ARGV[9])
redis.call('SET', KEYS[5], ARGV[12], 'EX', ARGV[11])
redis.call('SET', KEYS[6], ARGV[10], 'EX', ARGV[11])
return 1
""")

# Revoked even where the grant is gone, past its age for one: its last access token lives on. A
# revocation of everything that the grant has is there already where the operator made it. What
# Authelia is to be told goes from the record to where that waits, in the same step.
END: Final = Script("""\
local before = redis.call('HGET', KEYS[2], ARGV[2])
if not before or string.sub(before, 1, 2) ~= '*|' then
  redis.call('HSET', KEYS[2], ARGV[2], ARGV[3])
end
local held = redis.call('HGET', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('DEL', KEYS[4])
local good, grant = pcall(cjson.decode, held or '')
local upstream = good and type(grant) == 'table' and grant.upstream
if type(upstream) == 'string' and upstream ~= ''
    and redis.call('HLEN', KEYS[3]) < tonumber(ARGV[4]) then
  redis.call('HSET', KEYS[3], ARGV[1], upstream)
  redis.call('EXPIRE', KEYS[3], ARGV[5])
end
return held
""")

UNLOCK: Final = Script("""\
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 1
""")


async def run(
    command: Command, script: Script, keys: tuple[bytes, ...], *args: bytes | str | int
) -> Any:
    """Run a script and return its answer; it is sent again only where nothing ran.

    Raises:
        UnavailableError: where Redis gave no answer; it may have run.
    """
    call = ("EVALSHA", script.sha, len(keys), *keys, *args)
    try:
        return await command(*call)
    except ScriptNotLoadedError:
        pass
    await command("SCRIPT LOAD", script.source)
    return await command(*call)
