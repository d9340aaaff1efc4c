"""What was seen of each wanted symbol: how many quotes, when the last came, and which could not mark a position."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from libs.market_data.quotes import Unmarkable


@dataclass(slots=True)
class SymbolRecord:
    """What was seen of one symbol since it was first wanted. `rejected` counts by reason."""

    quotes: int = 0
    last_quote_at: datetime | None = None
    rejected: Counter[str] = field(default_factory=Counter)


class QuoteRecords:
    """One record per wanted symbol. `rejected` counts by reason over all symbols, for ever."""

    def __init__(self, is_wanted: Callable[[str], bool]) -> None:
        self._is_wanted = is_wanted
        self._records: dict[str, SymbolRecord] = {}
        self.rejected: Counter[str] = Counter()

    def of(self, symbol: str) -> SymbolRecord:
        """Return what was seen of `symbol`; an empty record when that is nothing."""
        return self._records.get(symbol) or SymbolRecord()

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
