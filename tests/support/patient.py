"""A stack under faults, seen from where its users stand: the P&L, the health of both services, the venue's count."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from apps.alpaca_simulator.faults import NO_FAULTS, Faults
from apps.alpaca_simulator.simulator import Simulator
from tests.support.stack import Service, Stack
from tests.support.waiting import eventually

HELD = ("AAPL", "MSFT", "KO")
_TICK = Decimal("0.01")


@dataclass
class Patient:
    """Two services, a venue that quotes only what a test emits, and three positions."""

    stack: Stack
    cents: int = 15_000
    dials_seen: int = 0
    bids: dict[str, Decimal] = field(default_factory=dict)

    @property
    def venue(self) -> Simulator:
        return self.stack.simulator

    @property
    def service(self) -> Service:
        return self.stack.market_data

    async def admit(self) -> None:
        for symbol in HELD:
            await self.stack.fill(symbol, 10, 100)
        for symbol in HELD:
            await self.stack.until_confirmed(symbol)

    def quote(self, *symbols: str) -> dict[str, Decimal]:
        """Have the venue send a quote never seen before of each symbol (all that are held, if none is named)."""
        for symbol in symbols or HELD:
            self.cents += 1
            bid = _TICK * self.cents
            self.venue.emit(symbol, float(bid), float(bid + 2 * _TICK))
            self.bids[symbol] = bid
        return self.bids

    async def rows(self) -> dict[str, Any]:
        return {row["symbol"]: row for row in (await self.stack.pnl())["positions"]}

    async def sources(self) -> dict[str, str]:
        return {symbol: row["price_source"] for symbol, row in (await self.rows()).items()}

    async def shows_the_last_quotes(self, within_s: float = 3.0) -> None:
        """Return once every row shows, live, exactly what the venue sent last."""

        async def is_so() -> bool:
            rows = await self.rows()
            shown = {symbol: (rows[symbol]["bid"], rows[symbol]["price_source"]) for symbol in self.bids}
            wanted = {symbol: (bid, "real-time") for symbol, bid in self.bids.items()}
            assert shown == wanted, f"{shown} instead of {wanted}"
            return True

        await eventually(is_so, within_s, every_s=0.1)

    async def until_source(self, source: str, *symbols: str, within_s: float) -> None:
        async def is_so() -> bool:
            sources = await self.sources()
            return {sources[symbol] for symbol in symbols or HELD} == {source}

        await eventually(is_so, within_s, every_s=0.1)

    async def health(self) -> Any:
        return await self.service.health()

    async def until_reason(self, code: str, within_s: float = 5.0) -> Any:
        """Return the service's health once it gives this reason."""

        async def is_told() -> Any:
            health = await self.health()
            codes = [reason["code"] for reason in health["reasons"]]
            assert code in codes, f"{codes}, link {health['link']['state']}"
            return health

        return await eventually(is_told, within_s, every_s=0.1)

    async def until_state(self, *states: str, within_s: float = 5.0) -> None:
        async def is_so() -> bool:
            state = (await self.health())["link"]["state"]
            assert state in states, str(state)
            return True

        await eventually(is_so, within_s, every_s=0.05)

    async def reconnects(self) -> int:
        return int((await self.health())["link"]["reconnects"])

    async def until_reconnected(self, before: int, within_s: float = 30.0) -> None:
        """Return once the link streams on a later connection than the one counted `before`.

        Breaks that follow each other are answered ever later: each is a failure until a connection has lasted; and the
        dial budget may ask for a wait of ten seconds.
        """

        async def is_so() -> bool:
            link = (await self.health())["link"]
            return bool(link["reconnects"] > before and link["state"] == "streaming")

        await eventually(is_so, within_s, every_s=0.05)

    async def start_afresh(self) -> None:
        """Have the service dial anew, its failures forgotten, and wait until all is well on that connection.

        Without the wait for it, what the venue sends next may go to the connection that is about to be dropped.
        """
        before = await self.reconnects()
        await self.service.http.post("/api/v1/market-data/reconnect")
        await self.until_reconnected(before)
        await self.recovers()

    async def recovers(self, within_s: float = 30.0) -> float:
        """Turn all faults off; return the seconds until all is healthy, and the newest quotes are shown live.

        The venue has then counted no storm of dials.
        """
        self.venue.faults = NO_FAULTS
        began_s = time.monotonic()

        async def is_well() -> bool:
            health = await self.health()
            assert health["status"] == "healthy", str(health["reasons"])
            return True

        await eventually(is_well, within_s, every_s=0.1)
        took_s = time.monotonic() - began_s
        self.quote()
        await self.shows_the_last_quotes()
        assert (await self.stack.gateway.health())["status"] == "healthy"
        self.check_dials()
        return took_s

    @property
    def new_dials(self) -> int:
        """How many connections were asked for since the last look."""
        before, self.dials_seen = self.dials_seen, len(self.venue.dials)
        return self.dials_seen - before

    def check_dials(self) -> None:
        """Check that in all the time so far there were never more than 5 dials in 10 s, nor 20 in a minute."""
        dials = list(self.venue.dials)
        for most, window_s in ((5, 10.0), (20, 60.0)):
            for first, beyond in zip(dials, dials[most:], strict=False):
                assert beyond - first > window_s, f"{most + 1} dials within {beyond - first:.1f} s"

    @asynccontextmanager
    async def suffering(self, **switches: Any) -> AsyncIterator[None]:
        """Have the venue misbehave until the block ends."""
        self.venue.faults = Faults(**switches)
        try:
            yield
        finally:
            self.venue.faults = NO_FAULTS
