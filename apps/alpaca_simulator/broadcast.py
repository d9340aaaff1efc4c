"""Who hears what: the living connections, what they want, and the delivery of points to them."""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from msgspec.structs import replace

from apps.alpaca_simulator.faults import Faults
from apps.alpaca_simulator.listings import UNIVERSE
from apps.alpaca_simulator.market import as_seen_on
from apps.alpaca_simulator.points import Channel, Feed, Point, Quote
from apps.alpaca_simulator.stream_connection import StreamConnection
from apps.alpaca_simulator.wire import Codec, encode_point
from libs.market_data.symbols import WILDCARD

MARKET_FEEDS: Final = frozenset({Feed.IEX, Feed.SIP, Feed.DELAYED_SIP})
TEST_FEED: Final = frozenset({Feed.TEST})
ALL_FEEDS: Final = frozenset(Feed)

_ROOM_POLL_S: Final = 0.001
_NS_PER_S: Final = 1_000_000_000

P = TypeVar("P", bound=Point)


@dataclass(frozen=True, slots=True)
class _Audience:
    """Connections that see the same bytes."""

    feed: Feed
    codec: Codec
    connections: Sequence[StreamConnection]


class Broadcaster:
    """The living connections. Delivery never waits: each connection has an outbox of its own."""

    def __init__(self, faults: Callable[[], Faults]) -> None:
        self.connections: list[StreamConnection] = []
        self.wanted: frozenset[str] = frozenset()
        """Symbols that somebody on a market feed wants on any channel; a wildcard stands for `universe`."""
        self.universe = UNIVERSE
        """What a wildcard stands for, beside the symbols that somebody named."""
        self.half_open_since_unix_s: float | None = None
        """Since when every authenticated connection of a market feed is half-open; None while one lives or none is."""
        self._faults = faults
        self._changed = asyncio.Event()
        self._audiences: dict[tuple[type[Point], str, frozenset[Feed]], Sequence[_Audience]] = {}

    def add(self, connection: StreamConnection) -> None:
        """Take in a new connection."""
        self.connections.append(connection)

    def remove(self, connection: StreamConnection) -> None:
        """Forget a connection that has ended."""
        self.connections.remove(connection)
        self.sessions_changed()

    def faults_changed(self, before: Faults, now: Faults) -> None:
        """Take over what the connections themselves must know of new faults."""
        if now.half_open and not before.half_open:
            for connection in self.connections:
                connection.freeze()
        if now.hold_data != before.hold_data:
            for connection in self.connections:
                connection.hold(now.hold_data)
        self.sessions_changed()

    def sessions_changed(self) -> None:
        """Work out anew who is there and what is wanted, and wake whoever waits for a change."""
        self._audiences.clear()
        self._note_half_open()
        named: set[str] = set()
        for connection in self._listening_on(MARKET_FEEDS):
            for channel in Channel:
                named |= connection.session.symbols(channel)
        self.wanted = frozenset(named - {WILDCARD} | (self.universe if WILDCARD in named else frozenset()))
        self._changed.set()

    async def wait_for_change(self) -> None:
        """Return after the next change of what anybody wants."""
        self._changed.clear()
        await self._changed.wait()

    async def wait_for_client(self) -> None:
        """Return as soon as anybody is authenticated, on any feed."""
        while not any(connection.session.is_authenticated for connection in self.connections):
            await self.wait_for_change()

    def wants(self, channel: Channel, symbol: str, feeds: frozenset[Feed]) -> bool:
        """Say whether anybody on these feeds wants this symbol on this channel."""
        return any(connection.session.wants(channel, symbol) for connection in self._listening_on(feeds))

    async def wait_for_room(self) -> None:
        """Return when some client could take more at once: one that is slow does not hold up the others.

        Polls: only a flood waits here, and only for TCP.
        """
        while not self._has_room():  # noqa: ASYNC110
            await asyncio.sleep(_ROOM_POLL_S)

    def deliver(self, points: Iterable[Point], feeds: frozenset[Feed], *, as_given: bool = False) -> int:
        """Queue each point for everybody on `feeds` who wants it, and return how many were queued.

        A market point is shown as its feed shows it (`as_seen_on`), unless it is to go out `as_given`.
        """
        if not self.connections or self._faults().mute:
            return 0
        count = 0
        for point in points:
            for audience in self._audiences_of(point, feeds):
                seen = point if as_given else self._late(as_seen_on(audience.feed, point))
                element = encode_point(seen, audience.codec), seen if isinstance(seen, Quote) else None
                for connection in audience.connections:
                    connection.put_point(element)
                count += len(audience.connections)
        return count

    def deliver_spoiled(self, quote: Quote, feeds: frozenset[Feed], spoil: Callable[[Quote, Codec], bytes]) -> None:
        """Queue a spoiled copy of a quote for everybody on `feeds` who wants the quote; it counts as nothing sent."""
        if self._faults().mute:
            return
        for audience in self._audiences_of(quote, feeds):
            element = spoil(self._late(as_seen_on(audience.feed, quote)), audience.codec), None
            for connection in audience.connections:
                connection.put_point(element)

    def _late(self, point: P) -> P:
        """Return a point as if it had been on its way for `late_s`."""
        late_s = self._faults().late_s
        return replace(point, time_ns=point.time_ns - round(late_s * _NS_PER_S)) if late_s else point

    def _audiences_of(self, point: Point, feeds: frozenset[Feed]) -> Sequence["_Audience"]:
        """Return who gets the point, remembered until a subscription changes."""
        place = type(point), point.symbol, feeds
        audiences = self._audiences.get(place)
        if audiences is None:
            by_view: dict[tuple[Feed, Codec], list[StreamConnection]] = {}
            is_dead = point.symbol in self._faults().dead_symbols
            for connection in () if is_dead else self._listening_on(feeds):
                if not connection.is_half_open and connection.session.wants(point.channel, point.symbol):
                    by_view.setdefault((connection.feed, connection.codec), []).append(connection)
            audiences = [_Audience(feed, codec, listeners) for (feed, codec), listeners in by_view.items()]
            self._audiences[place] = audiences
        return audiences

    def _has_room(self) -> bool:
        """Say whether a flood should go on; for those that are half-open alone it may, they take nothing."""
        alive = [connection for connection in self.connections if not connection.is_half_open]
        return not alive or any(connection.has_room for connection in alive)

    def _note_half_open(self) -> None:
        listening = [one for one in self._listening_on(MARKET_FEEDS) if one.session.is_authenticated]
        if not listening or not all(connection.is_half_open for connection in listening):
            self.half_open_since_unix_s = None
        elif self.half_open_since_unix_s is None:
            self.half_open_since_unix_s = time.time()

    def _listening_on(self, feeds: frozenset[Feed]) -> list[StreamConnection]:
        return [connection for connection in self.connections if connection.feed in feeds]
