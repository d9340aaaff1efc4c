"""What was seen of each wanted symbol: how many quotes, when the last came, and which could not mark a position."""

from collections import Counter
from collections.abc import Callable, ItemsView
from dataclasses import dataclass, field
from datetime import datetime

from libs.market_data.quotes import Unmarkable


@dataclass(slots=True)
class SymbolRecord:
    """What was seen of one symbol since it was first wanted. `rejected` counts by reason.

    `streamed_at` and `fetched_at` are when the last quote of each kind was known, by our clock; `streamed_time` and
    `snapshot_time` the venue's times of the last one that the stream brought, and of the last one fetched right after a
    confirmation. None before the first.
    """

    streamed: int = 0
    fetched: int = 0
    streamed_at: datetime | None = None
    fetched_at: datetime | None = None
    streamed_time: datetime | None = None
    snapshot_time: datetime | None = None
    rejected: Counter[str] = field(default_factory=Counter)

    @property
    def quotes(self) -> int:
        """Quotes seen, whichever way they came."""
        return self.streamed + self.fetched

    @property
    def last_quote_at(self) -> datetime | None:
        """When the last quote was known, whichever way it came."""
        return _later(self.streamed_at, self.fetched_at)

    @property
    def newest_time(self) -> datetime | None:
        """The venue's time of the newest quote that this connection can be asked to have brought; None for none."""
        return _later(self.streamed_time, self.snapshot_time)


class QuoteRecords:
    """One record per wanted symbol. `rejected` counts by reason over all symbols, for ever."""

    def __init__(self, is_wanted: Callable[[str], bool]) -> None:
        self._is_wanted = is_wanted
        self._records: dict[str, SymbolRecord] = {}
        self.rejected: Counter[str] = Counter()

    def of(self, symbol: str) -> SymbolRecord:
        """Return what was seen of `symbol`; an empty record when that is nothing."""
        return self._records.get(symbol) or SymbolRecord()

    def items(self) -> ItemsView[str, SymbolRecord]:
        """Return every symbol with its record."""
        return self._records.items()

    def begin(self, symbol: str) -> SymbolRecord | None:
        """Return the record to count into; None for a symbol that nobody wants."""
        record = self._records.get(symbol)
        if record is None and self._is_wanted(symbol):
            record = self._records[symbol] = SymbolRecord()
        return record

    def reject(self, record: SymbolRecord, why: Unmarkable) -> None:
        """Count a quote that may not mark."""
        record.rejected[why.value] += 1
        self.rejected[why.value] += 1

    def forget_unwanted(self) -> None:
        """Drop the records of symbols that nobody wants any more."""
        for symbol in [symbol for symbol in self._records if not self._is_wanted(symbol)]:
            del self._records[symbol]


def _later(one: datetime | None, other: datetime | None) -> datetime | None:
    if one is None or other is None:
        return one or other
    return max(one, other)
