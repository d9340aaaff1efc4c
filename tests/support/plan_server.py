"""Alpaca's answers to subscription requests under a plan, without a socket: for tests of the session alone."""

from typing import Any

import msgpack

from libs.market_data.session import Session, SubscriptionRequest
from tests.support.quotes import NOON


def frame(*messages: object) -> bytes:
    return bytes(msgpack.packb(list(messages)))


class Server:
    """Answers requests as Alpaca does; `counts_statuses`: whether they count towards the plan's limit."""

    def __init__(self, limit: int | None = None, *, refuses_statuses: int | None = None, counts_statuses: bool = False):
        self.limit = limit
        self.refuses_statuses = refuses_statuses
        self.counts_statuses = counts_statuses
        self.subscribed: dict[str, set[str]] = {"quotes": set(), "statuses": set()}
        self.seen: list[dict[str, Any]] = []

    def answer(self, request: SubscriptionRequest) -> bytes:
        message = dict(request.message())
        self.seen.append(dict(message))
        action = message.pop("action")
        ((channel, symbols),) = message.items()
        if channel == "statuses" and action == "subscribe" and self.refuses_statuses:
            return frame({"T": "error", "code": self.refuses_statuses, "msg": "no"})
        after = {name: set(held) for name, held in self.subscribed.items()}
        after[channel] = after[channel] | set(symbols) if action == "subscribe" else after[channel] - set(symbols)
        counted = len(after["quotes"]) + (len(after["statuses"]) if self.counts_statuses else 0)
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
