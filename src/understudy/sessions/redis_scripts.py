"""What Redis does in one go for a session: hold, keep, let go, extend, set aside; and what its errors mean.

Sent by sessions.redis_store. Each is one Lua script, which Redis runs whole or not at all (redis.io, "Scripting with Lua").
KEYS[1] is the session: a hash of `r` revision, `h` header, `b` body, `w` token and `n` number of the write. KEYS[2] is its lock,
whose value is the holder's token. Errors are returned, not raised, so that they keep their code on every version of Redis.

A token is STORE.NUMBER, the number growing with every hold of one store.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha1
from typing import Final

from understudy.sessions.store import Loss

# A command's name and its arguments.
Command = Sequence[bytes | str | int]

# An error's code is its first word. Redis before 7 puts the script's line before what `redis.pcall` returns.
_CODE: Final = re.compile(r"(?:@\S+ \d+: )?-?([A-Z]+)\b")
_OF_CODE: Final = {
    "BUSY": Loss.SLOW,  # another script runs too long
    "ERR": Loss.REFUSED,  # a command that it does not have, a database that it does not have
    "MISCONF": Loss.READ_ONLY,  # it cannot write to its disk
    "NOPERM": Loss.REFUSED,
    "NOREPLICAS": Loss.READ_ONLY,  # min-replicas-to-write
    "OOM": Loss.FULL,
    "READONLY": Loss.READ_ONLY,
    "WRONGTYPE": Loss.REFUSED,
}


def loss_of_reply(text: str) -> Loss:
    """Say what an error reply means, by its code."""
    found = _CODE.match(text)
    return _OF_CODE.get(found[1], Loss.UNAVAILABLE) if found else Loss.UNAVAILABLE


@dataclass(frozen=True, slots=True)
class Script:
    """One script and the digest by which Redis knows it."""

    text: str
    digest: str


def _script(text: str) -> Script:
    return Script(text, sha1(text.encode(), usedforsecurity=False).hexdigest())


# What HOLD answers first.
HELD: Final = 1
HELD_ELSEWHERE: Final = 0
NOT_WRITABLE: Final = 2

# ARGV: store, number, lease in ms, "1" where a lock may be taken over that an earlier hold of this store has left, whose release
# was lost, or the answer to it. A hold that arrives late takes over nothing newer than itself. Returns {HELD, "", r, h, b},
# {HELD_ELSEWHERE} or, where the lock cannot be written (out of memory, a replica), {NOT_WRITABLE, error, r, h, b}.
HOLD: Final = _script("""
local token = ARGV[1] .. '.' .. ARGV[2]
local holder = redis.pcall('GET', KEYS[2])
if type(holder) == 'table' then return holder end
if holder and holder ~= token then
  local number = string.sub(holder, 1, #ARGV[1] + 1) == ARGV[1] .. '.' and tonumber(string.sub(holder, #ARGV[1] + 2))
  if ARGV[4] ~= '1' or not number or number > tonumber(ARGV[2]) then return {0} end
end
local found = redis.pcall('HMGET', KEYS[1], 'r', 'h', 'b')
if found.err then return found end
local locked = redis.pcall('SET', KEYS[2], token, 'PX', ARGV[3])
if locked.err then return {2, locked.err, found[1], found[2], found[3]} end
return {1, '', found[1], found[2], found[3]}
""")

# ARGV: revision that must be there, revision, header, body, ttl in ms, token, number of this write, number of the first write of
# this revision whose outcome is not known, "1" where the lock is let go in the same breath. What this hold may have written
# itself, without learning of it, is written over, but never by an older write that arrives late. Returns 1, or {r, h, b} of what
# is there instead.
KEEP: Final = _script("""
local found = redis.pcall('HMGET', KEYS[1], 'r', 'w', 'n')
if found.err then return found end
if (found[1] or '0') ~= ARGV[1] then
  local number = found[1] == ARGV[2] and found[2] == ARGV[6] and tonumber(found[3])
  if not number or number < tonumber(ARGV[8]) or number > tonumber(ARGV[7]) then
    return redis.call('HMGET', KEYS[1], 'r', 'h', 'b')
  end
end
local written = redis.pcall('HSET', KEYS[1], 'r', ARGV[2], 'h', ARGV[3], 'b', ARGV[4], 'w', ARGV[6], 'n', ARGV[7])
if type(written) == 'table' then return written end
redis.call('PEXPIRE', KEYS[1], ARGV[5])
if ARGV[9] == '1' and redis.pcall('GET', KEYS[2]) == ARGV[6] then redis.call('DEL', KEYS[2]) end
return 1
""")

# KEYS[1] is the lock. ARGV: token. Returns 1, or 0 where somebody else has it, or nobody.
RELEASE: Final = _script("""
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
""")

# KEYS[1] is the lock. ARGV: token, lease in ms. Returns 1, or 0 where the lock is lost.
EXTEND: Final = _script("""
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return 0
""")

# KEYS[2] is where to. ARGV: ttl in ms. What was set aside before makes room. Returns 1, or 0 where there is nothing any more.
SET_ASIDE: Final = _script("""
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
local renamed = redis.pcall('RENAME', KEYS[1], KEYS[2])
if renamed.err then return renamed end
return redis.call('PEXPIRE', KEYS[2], ARGV[1])
""")
