"""The lease in Redis by which one instance at a time owns the feed, and the fence that keeps all others from writing.

Every operation is one request. When to ask, and what follows from an answer, is decided elsewhere.
"""

import os
import secrets
import socket
from typing import Any, Final, NamedTuple

from libs.redis_client.client import Argument, RedisClient, RedisUnavailableError
from libs.redis_client.scripts import Script

LEASE_KEY: Final = "feed:lease"
STANDBY_KEY: Final = "feed:standby"
"""The instance that looked at the lease last without holding it. For people; nothing is decided by it."""
LEASE_S: Final = 5.0
"""How long a lease lives after its last renewal."""

# Both scripts answer: who held the lease before, what is left of it in ms, and which server this is ("": not told).
_ANSWER: Final = """
local info = redis.pcall('INFO', 'server')
local server = type(info) == 'string' and string.match(info, 'run_id:(%x+)') or ''
return {holder or '', redis.call('PTTL', KEYS[1]), server}
"""

# An own lease is only given more time: a server that is out of memory still does that.
_CLAIM: Final = Script(
    "claim_lease",
    """
local holder = redis.call('GET', KEYS[1])
if not holder then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
elseif holder == ARGV[1] then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
"""
    + _ANSWER,
)

# It writes, so that a server which takes no writes is a fault for those who wait as it is for the one who leads:
# otherwise they would see a lease run out that its holder cannot renew.
_LOOK: Final = Script(
    "look_at_lease",
    """
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
local holder = redis.call('GET', KEYS[1])
"""
    + _ANSWER,
)

_RELEASE: Final = Script(
    "release_lease",
    """
if redis.call('GET', KEYS[1]) == ARGV[1] then
  return redis.call('DEL', KEYS[1])
end
return 0
""",
)

FENCE_LUA: Final = """
if ARGV[1] ~= '' then
  local holder = redis.call('GET', KEYS[1])
  if holder ~= ARGV[1] then
    return {0, holder or ''}
  end
end
"""
"""Begins a script that only the holder may run. Its KEYS[1] and ARGV[1] come from `fence_arguments`.

The script answers a list whose first element is 1; hand it to `check_fence`.
"""


class LeaseLostError(RedisUnavailableError):
    """A write was refused because the lease is not the writer's. `holder` is whose it is, None: nobody's."""

    def __init__(self, operation: str, holder: str | None) -> None:
        self.holder = holder
        owner = (
            "nobody holds the lease of the feed" if holder is None else f"another instance ({holder}) holds the feed"
        )
        super().__init__(operation, owner)


class LeaseAnswer(NamedTuple):
    """How the lease stands after a question. `holder` None: nobody holds it.

    `remaining_s` is None when nobody holds it, or when it never ends (somebody has set it by hand). `was_free`: nobody
    held it before this question. `server` is the run id of the server that answered; None when it would not say.
    """

    holder: str | None
    remaining_s: float | None
    was_free: bool
    server: str | None


class Lease:
    """One instance's view of the lease. Every method raises RedisUnavailableError and nothing else."""

    def __init__(self, client: RedisClient, instance: str, lease_s: float = LEASE_S) -> None:
        self._client = client
        self._lease_ms = round(lease_s * 1000)
        self._key, self._standby_key = client.named(LEASE_KEY), client.named(STANDBY_KEY)
        self.instance = instance

    async def claim(self) -> LeaseAnswer:
        """Take the lease if it is free, renew it if it is ours, leave it alone if it is another's."""
        answer = _read("claim_lease", await self._client.run_script(_CLAIM, [self._key], self._args))
        return answer._replace(holder=self.instance) if answer.was_free else answer

    async def look(self) -> LeaseAnswer:
        """Say who holds the lease; leave our name under STANDBY_KEY, which proves that the server takes writes."""
        return _read("look_at_lease", await self._client.run_script(_LOOK, [self._key, self._standby_key], self._args))

    async def release(self) -> bool:
        """Give the lease up; say whether it was ours."""
        return bool(await self._client.run_script(_RELEASE, [self._key], [self.instance]))

    @property
    def _args(self) -> list[Argument]:
        return [self.instance, self._lease_ms]


def new_instance() -> str:
    """Return a name for this process that no other has, before or after: `host:pid:random`."""
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"


def fence_arguments(client: RedisClient, instance: str | None) -> tuple[str, Argument]:
    """Return the first key and the first argument of a script that begins with FENCE_LUA. None: unfenced."""
    return client.named(LEASE_KEY), instance or ""


def check_fence(operation: str, reply: Any) -> Any:
    """Return the fenced script's second word, if it has one. Raises LeaseLostError when the fence has refused it."""
    match reply:
        case [1]:
            return None
        case [1, word]:
            return word
        case [0, bytes(holder)]:
            raise LeaseLostError(operation, _text(holder))
        case _:
            raise _odd(operation, reply)


def _read(operation: str, reply: Any) -> LeaseAnswer:
    match reply:
        case [bytes(holder), int(remaining_ms), bytes(server)]:
            return LeaseAnswer(
                holder=_text(holder),
                remaining_s=remaining_ms / 1000 if remaining_ms >= 0 else None,
                was_free=not holder,
                server=_text(server),
            )
        case _:
            raise _odd(operation, reply)


def _text(data: bytes) -> str | None:
    return data.decode(errors="replace") or None


def _odd(operation: str, reply: object) -> RedisUnavailableError:
    return RedisUnavailableError(operation, f"an answer that is none: {reply!r:.100}")
