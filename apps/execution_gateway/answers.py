"""What many may ask for at once, each answered to all of them from one reading and one encoding.

It decides what is shared with whom: only requests for the same, under the same parameters.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from prometheus_client import CollectorRegistry, generate_latest

from apps.execution_gateway.bodies import CostMethod, adjustment_page_body, fills_body, pnl_body, positions_body
from apps.execution_gateway.database import BookUnavailableError
from apps.execution_gateway.fill_input import FillQuery
from apps.execution_gateway.health_report import GatewayState
from apps.execution_gateway.ledger import Ledger
from apps.execution_gateway.meters import GatewayMeters
from apps.execution_gateway.parity_report import ParityReporter, parity_body
from apps.execution_gateway.pnl_report import BookSource, PnlReporter, RealtimePnl
from libs.portfolio.positions import Position
from libs.service.shared_answers import SharedAnswers, SharedAnswersByKey

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class PnlAnswer:
    """A valued book and its encoded body."""

    pnl: RealtimePnl
    body: bytes


class Answers:
    """The shared answers of one gateway. `state` is how every part is, for health; all others are bodies."""

    def __init__(
        self,
        source: BookSource,
        ledger: Ledger,
        reporter: PnlReporter,
        parity: ParityReporter,
        look: Callable[[], Awaitable[GatewayState]],
        now: Callable[[], datetime],
    ) -> None:
        self._source = source
        self._ledger = ledger
        self._reporter = reporter
        self._parity = parity
        self._look = look
        self._now = now
        self.pnl = SharedAnswers(self._read_pnl, is_current=lambda: reporter.is_current)
        self.positions = SharedAnswersByKey(self._read_positions)
        self.parity = SharedAnswers(self._read_parity)
        self.fills = SharedAnswersByKey(self._read_fills)
        self.adjustments = SharedAnswersByKey(self._read_adjustments)
        self.state = SharedAnswers(self._read_state)
        self._all = (self.pnl, self.positions, self.parity, self.fills, self.adjustments, self.state)

    def metrics(self, registry: CollectorRegistry, meters: GatewayMeters) -> SharedAnswers[bytes]:
        """Return the answers to scrapes of `registry`, with the P&L as of the scrape."""

        async def read() -> Callable[[], bytes]:
            try:
                meters.pnl = await self._reporter.report_from_memory()
            except BookUnavailableError:
                meters.pnl = None
            return _always(generate_latest(registry))

        return SharedAnswers(read)

    @property
    def refused(self) -> int:
        """How many requests were turned away because too many were waiting."""
        return self._ledger.refused + sum(shared.refused for shared in self._all)

    async def finish(self) -> None:
        """Wait for what is under way, so that the database may be closed."""
        for shared in self._all:
            await shared.finish()

    async def _read_pnl(self) -> Callable[[], PnlAnswer]:
        await self._reporter.refresh()
        return self._value

    def _value(self) -> PnlAnswer:
        pnl = self._reporter.value()
        return PnlAnswer(pnl, pnl_body(pnl))

    async def _read_positions(self, method: CostMethod) -> Callable[[], bytes]:
        book = await self._source.book()
        held: Sequence[Position] = book.open_positions
        if method is CostMethod.ALPACA:
            theirs = await asyncio.to_thread(book.alpaca_positions, self._now())
            held = [theirs[position.symbol] for position in held]
        return _always(positions_body(held, method))

    async def _read_parity(self) -> Callable[[], bytes]:
        return _always(parity_body(await self._parity.report()))

    async def _read_fills(self, query: FillQuery) -> Callable[[], bytes]:
        return _always(fills_body(await self._ledger.list_fills(query.symbol, query.limit, query.after)))

    async def _read_adjustments(self, query: FillQuery) -> Callable[[], bytes]:
        page = await self._ledger.adjustments.page(query.limit, query.symbol, query.after)
        return _always(adjustment_page_body(page))

    async def _read_state(self) -> Callable[[], GatewayState]:
        return _always(await self._look())


def _always(body: Answer) -> Callable[[], Answer]:
    return lambda: body
