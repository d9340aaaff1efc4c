"""Alpaca's answers to subscription requests under a plan, without a socket: for tests of the session alone."""

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any

import msgpack

from libs.market_data.session import Session, SubscriptionRequest
from tests.support.quotes import NOON


def frame(*messages: object) -> bytes:
    return bytes(msgpack.packb(list(messages)))


class Server:
    """Answers requests as Alpaca does. `counted`: the channels whose symbols count towards the plan's limit.

    `refuses`: the error code that answers every subscription of a channel.
    """

    def __init__(
        self,
        limit: int | None = None,
        *,
        refuses: Mapping[str, int] = MappingProxyType({}),
        counted: Collection[str] = ("quotes",),
    ):
        self.limit = limit
        self.refuses = refuses
        self.counted = counted
        self.subscribed: dict[str, set[str]] = {"quotes": set(), "statuses": set(), "trades": set()}
        self.seen: list[dict[str, Any]] = []

    def answer(self, request: SubscriptionRequest) -> bytes:
        message = dict(request.message())
        self.seen.append(dict(message))
        action = message.pop("action")
        ((channel, symbols),) = message.items()
        if action == "subscribe" and channel in self.refuses:
            return frame({"T": "error", "code": self.refuses[channel], "msg": "no"})
        after = {name: set(held) for name, held in self.subscribed.items()}
        after[channel] = after[channel] | set(symbols) if action == "subscribe" else after[channel] - set(symbols)
        counted = sum(len(after[name]) for name in self.counted)
        if self.limit is not None and counted > self.limit and action == "subscribe":
            return frame({"T": "error", "code": 405, "msg": "symbol limit exceeded"})
        self.subscribed = after
        return frame({"T": "subscription", **{name: sorted(held) for name, held in after.items()}})


def converge(session: Session, wanted: list[str], server: Server) -> None:
    for _ in range(500):
        request = session.next_request(wanted)
        if request is None:
            return
        session.receive(server.answer(request), NOON)
    raise AssertionError("wanted and confirmed never met")
