"""A file of recorded quotes, CSV or Parquet, read whole and put in the order of its times.

Columns: `timestamp` (ISO-8601, UTC when it names no zone, or integer nanoseconds), `symbol`, `bid_price`, `bid_size`,
`bid_exchange`, `ask_price`, `ask_size`, `ask_exchange`; a missing side is 0. A line of CSV (the sample is also a test):
2025-10-17T13:30:00.000000001Z,AAPL,248.01,200,V,248.05,100,V
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from apps.alpaca_simulator.listings import listing_of
from apps.alpaca_simulator.points import Quote

if TYPE_CHECKING:
    import polars as pl

_PRICES: Final = ("bid_price", "ask_price")
_SIZES: Final = ("bid_size", "ask_size")
_EXCHANGES: Final = ("bid_exchange", "ask_exchange")
_COLUMNS: Final = ("timestamp", "symbol", *_PRICES, *_SIZES, *_EXCHANGES)
_CHUNK: Final = 2_000


class RecordingError(ValueError):
    """A recording cannot be read. It carries the file; reading it again does not help."""

    def __init__(self, path: Path, problem: str) -> None:
        self.path = path
        super().__init__(f"cannot replay {path}: {problem}")


@dataclass(frozen=True, slots=True)
class Recording:
    """Recorded quotes in order of time; quotes of the same time stay in the order of the file."""

    first_prices: dict[str, float]
    """For every recorded symbol its first two-sided mid in USD, else its first price, else its usual one."""
    _table: "pl.DataFrame"

    @property
    def symbols(self) -> frozenset[str]:
        """The symbols that have at least one quote."""
        return frozenset(self.first_prices)

    def __len__(self) -> int:
        return self._table.height

    def quotes(self) -> Iterator[Quote]:
        """Yield every quote with its recorded time."""
        for chunk in self._table.iter_slices(_CHUNK):
            for time_ns, symbol, bid, ask, bid_size, ask_size, bid_exchange, ask_exchange in chunk.iter_rows():
                tape = listing_of(symbol).tape
                yield Quote(
                    symbol, bid, bid_size, bid_exchange, ask, ask_size, ask_exchange, time_ns, ("R",), tape
                )  # fmt: skip


def read_recording(path: Path) -> Recording:
    """Read a recording; takes as long as the file is large, so call it from a thread.

    Raises RecordingError, in one line, for a file that is missing, of another kind, incomplete or empty.
    """
    import polars as pl  # only a replay needs it

    try:
        table = _normal(_read_table(path))
    except (pl.exceptions.PolarsError, OSError) as fault:
        raise RecordingError(path, str(fault).splitlines()[0]) from fault
    except ValueError as fault:
        raise RecordingError(path, str(fault)) from fault
    return Recording(_first_prices(table), table)


def _read_table(path: Path) -> "pl.DataFrame":
    import polars as pl

    if not path.is_file():
        raise ValueError("there is no such file")
    match path.suffix.lower():
        case ".csv":
            return pl.read_csv(path, infer_schema=False)
        case ".parquet":
            return pl.read_parquet(path)
        case other:
            raise ValueError(f"expected a .csv or .parquet file, not {other or 'a file without a suffix'!r}")


def _normal(table: "pl.DataFrame") -> "pl.DataFrame":
    """Return the columns in their fixed types and order, sorted by time."""
    import polars as pl

    missing = [name for name in _COLUMNS if name not in table.columns]
    if missing:
        raise ValueError(f"column {missing[0]} is missing")
    if table.is_empty():
        raise ValueError("it holds no quote")
    normal = table.select(
        _times_ns(table["timestamp"]).alias("timestamp"),
        pl.col("symbol").cast(pl.String).str.strip_chars().str.to_uppercase(),
        *(pl.col(name).cast(pl.Float64).fill_null(0.0) for name in _PRICES),
        *(pl.col(name).cast(pl.Float64).fill_null(0.0).round().cast(pl.UInt32) for name in _SIZES),
        *(pl.col(name).cast(pl.String).fill_null(" ") for name in _EXCHANGES),
    )
    if normal["symbol"].null_count():
        raise ValueError("a quote names no symbol")
    return normal.sort("timestamp", maintain_order=True)


def _times_ns(times: "pl.Series") -> "pl.Series":
    import polars as pl

    if times.dtype.is_integer():
        parsed = times.cast(pl.Int64)
    elif isinstance(times.dtype, pl.Datetime):
        parsed = times.dt.cast_time_unit("ns").dt.timestamp("ns")
    else:
        text = times.cast(pl.String).str.strip_chars()
        # The parser wants a "T" and a zone; a time that names none is UTC.
        zoned = text.str.replace(" ", "T").str.replace(r"(T[0-9:.]*)$", "${1}Z")
        iso = zoned.str.to_datetime("%+", time_unit="ns", time_zone="UTC", strict=False).dt.timestamp("ns")
        parsed = text.str.to_integer(strict=False).fill_null(iso)
    if parsed.null_count():
        row = parsed.is_null().arg_max() or 0
        raise ValueError(f"row {row + 1}: timestamp {times[row]!r} is neither ISO-8601 nor integer nanoseconds")
    return parsed


def _first_prices(table: "pl.DataFrame") -> dict[str, float]:
    import polars as pl

    bid, ask = pl.col("bid_price"), pl.col("ask_price")
    firsts = table.group_by("symbol", maintain_order=True).agg(
        ((bid + ask) / 2).filter((bid > 0) & (ask > 0)).first().alias("mid"),
        pl.max_horizontal(bid, ask).filter(pl.max_horizontal(bid, ask) > 0).first().alias("price"),
    )
    return {symbol: mid or price or listing_of(symbol).base_price for symbol, mid, price in firsts.iter_rows()}
