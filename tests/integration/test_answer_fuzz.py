"""What REST, the account's stream and Redis answer is read or refused, never raised as anything else.

The counterpart of `test_wire_fuzz.py` for every other reader of what comes from outside. Seeded; a failure names its
seed and the text.
"""

import math
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Any, Final

import pytest
from hypothesis import settings

from apps.execution_gateway.price_book import PriceBook
from apps.market_data_service.position_sync import PositionListError
from apps.market_data_service.position_sync import read_positions as read_position_list
from libs.broker.account_messages import read_account, read_activities, read_positions
from libs.broker.mirror import Mirror
from libs.broker.trade_updates import Disconnected, Listening, read_message
from libs.market_data.daily_bars_rest import read_bars_page
from libs.market_data.freshness import is_fresh
from libs.market_data.latest_quotes_rest import read_latest_quotes
from libs.market_data.latest_trades_rest import read_latest_trades
from libs.market_data.market_hours import read_clock
from libs.market_data.prices import Price
from libs.market_data.quotes import why_unmarkable
from libs.market_data.subscriptions import Subscriptions
from libs.market_data.trades import why_ineligible
from libs.redis_client.price_codec import (
    UnreadableFeedStatusError,
    UnreadablePriceError,
    decode_feed_status,
    decode_price,
    decode_price_update,
    is_same_write,
)
from tests.libs.broker.samples import DIVIDEND, FILL, PARTIAL_FILL, POSITION
from tests.support.quotes import NOON
from tests.support.wire_mutations import Pairs, encode_json, is_pairs, spoil_bytes, spoil_fields

ANSWERS = {"fast": 1_500, "deep": 30_000}
TIME = NOON.isoformat()
EARLIEST, LATEST = datetime(1970, 1, 1, tzinfo=UTC), datetime(2201, 1, 1, tzinfo=UTC)

QUOTE = {"t": TIME, "ax": "Q", "ap": 172.7, "as": 1, "bx": "Q", "bp": 172.62, "bs": 2, "c": ["R"], "z": "C"}
TRADE = {"t": TIME, "x": "Q", "p": 172.61, "s": 160, "c": ["@", "T"], "i": 1011, "z": "C"}
BAR = {"t": TIME, "o": 174, "h": 174.84, "l": 172.31, "c": 174.61, "v": 85998033}
CLOCK = {"timestamp": TIME, "is_open": True, "next_open": TIME, "next_close": TIME}
HELD = {"symbol": "AAPL", "qty": 100, "cost_basis": 15000.0}
PRICE = {
    "symbol": "AAPL", "bid": 151.99, "ask": 152.01, "mid": 152.0, "bid_size": 300, "ask_size": 100, "timestamp": TIME,
    "exchange": "V", "feed": "iex", "received_at": TIME, "epoch": "c1", "seq": 7, "instance": "i1", "last": 152.0,
    "last_timestamp": TIME, "suspect_since": TIME, "suspect_reason": "crossed",
}  # fmt: skip
UPDATE = {("price" if name == "mid" else name): value for name, value in PRICE.items()}
STATUS = {
    "state": "streaming", "connected": True, "since": TIME, "epoch": "c1", "feed": "iex", "mode": "paper",
    "symbols": ["AAPL"], "market": "open", "halted": [], "doubted": ["AAPL"], "instance": "i1",
}  # fmt: skip
ACCOUNT = {
    "account_number": "1", "cash": "5.1", "equity": "1e3", "last_equity": "7", "long_market_value": "1",
    "short_market_value": "0", "accrued_fees": "0", "balance_asof": "2026-11-19",
}  # fmt: skip


def pairs(value: Any) -> Any:
    if isinstance(value, dict):
        return [(key, pairs(each)) for key, each in value.items()]
    return [pairs(each) for each in value] if isinstance(value, list) else value


# --- what is done with what was read ----------------------------------------------------------------------------------


def assert_in_range(*times: datetime | None) -> None:
    assert all(time is None or EARLIEST <= time < LATEST for time in times)


def take_quotes(text: bytes) -> None:
    for quote in read_latest_quotes(text, NOON)[0]:
        assert_in_range(quote.timestamp)
        why_unmarkable(quote, 10.0)


def take_trades(text: bytes) -> None:
    for trade in read_latest_trades(text, NOON)[0]:
        assert_in_range(trade.timestamp)
        why_ineligible(trade)


def take_clock(text: bytes) -> None:
    assert_in_range(read_clock(text).next_change)


def take_bars(text: bytes) -> None:
    for bar in read_bars_page(text)[0]:
        assert 1970 <= bar.date.year <= 2200


def take_held(text: bytes) -> None:
    subscriptions = Subscriptions()
    subscriptions.replace_positions(read_position_list(text))
    subscriptions.by_priority()


def take_price(text: bytes) -> None:
    mark(decode_price(text, "AAPL"))


def take_update(text: bytes) -> None:
    price = decode_price_update(text)
    is_same_write(text, price)
    mark(price)


def mark(price: Price) -> None:
    assert_in_range(price.timestamp, price.received_at, price.last_timestamp, price.suspect_since)
    book = PriceBook()
    book.offer(Price(price.symbol, Decimal(1), NOON, epoch="c1", seq=1, received_at=NOON), is_live=True)
    book.offer(price, is_live=True)
    age_s = price.age_s(NOON)
    assert math.isfinite(age_s)
    assert age_s >= 0


def take_status(text: bytes) -> None:
    status = decode_feed_status(text)
    assert_in_range(status.since)
    book = PriceBook()
    book.hear(status, NOON)
    is_fresh(status.since, NOON)


def take_stream_message(text: bytes) -> None:
    """Raises nothing at all: what cannot be read may have been an execution, and says so."""
    mirror = Mirror(NOON)
    for message in (Listening(("trade_updates",)), read_message(text), Disconnected("over")):
        mirror.receive(message, NOON)
        mirror.unsettled(NOON)
        mirror.next_request(NOON + timedelta(minutes=1))


def take_activities(text: bytes) -> None:
    page = read_activities(text)
    mirror = Mirror(NOON)
    mirror.next_request(NOON)
    mirror.take_page(page)
    mirror.caught_up(page.unreadable)
    mirror.next_request(NOON + timedelta(minutes=5))


Reader = Callable[[bytes], object]
OVERFLOW: Final = (ValueError, RecursionError)
READERS: Final[dict[str, tuple[Any, Reader, tuple[type[Exception], ...]]]] = {
    "latest quotes": ({"quotes": {"AAPL": QUOTE, "GOOD": QUOTE}}, take_quotes, OVERFLOW),
    "latest trades": ({"trades": {"AAPL": TRADE, "GOOD": TRADE}}, take_trades, OVERFLOW),
    "clock": (CLOCK, take_clock, OVERFLOW),
    "bars": ({"bars": {"AAPL": [BAR]}, "next_page_token": "x"}, take_bars, OVERFLOW),
    "the gateway's positions": ({"positions": [HELD, HELD]}, take_held, (PositionListError,)),
    "cached price": (PRICE, take_price, (UnreadablePriceError,)),
    "price update": (UPDATE, take_update, (UnreadablePriceError,)),
    "feed status": (STATUS, take_status, (UnreadableFeedStatusError,)),
    "trade update": ({"stream": "trade_updates", "data": PARTIAL_FILL}, take_stream_message, ()),
    "trading control": ({"stream": "listening", "data": {"streams": ["trade_updates"]}}, take_stream_message, ()),
    "positions": ([POSITION, POSITION | {"symbol": "B"}], read_positions, OVERFLOW),
    "activities": ([FILL, DIVIDEND], take_activities, OVERFLOW),
    "account": (ACCOUNT, read_account, OVERFLOW),
}


def spoil_within(value: Any, dice: Random) -> Any:
    """Spoil one object anywhere in `value`, the outermost included."""
    if is_pairs(value):
        inner = [at for at, (_, each) in enumerate(value) if isinstance(each, list)]
        if inner and dice.random() < 0.7:
            at = dice.choice(inner)
            return [*value[:at], (value[at][0], spoil_within(value[at][1], dice)), *value[at + 1 :]]
        return spoil_fields(value, dice)
    if isinstance(value, list) and value:
        at = dice.randrange(len(value))
        return [*value[:at], spoil_within(value[at], dice), *value[at + 1 :]]
    return value


def spoiled(good: Pairs, seed: int, count: int) -> Iterator[bytes]:
    dice = Random(seed)
    text = encode_json(good).encode()
    yield text
    for _ in range(count):
        yield spoil_bytes(text, text, dice) if dice.random() < 0.2 else encode_json(spoil_within(good, dice)).encode()


@pytest.mark.hypothesis
@pytest.mark.parametrize("name", READERS)
def test_what_is_answered_is_read_or_refused(name: str) -> None:
    sample, read, refusals = READERS[name]
    seed, refused = 20_261_201, 0
    count = ANSWERS[settings.get_current_profile_name()]
    for number, text in enumerate(spoiled(pairs(sample), seed, count)):
        try:
            read(text)
        except refusals:
            refused += 1
            assert number > 0, "the good answer must be read"
        except Exception as error:
            raise AssertionError(f"{name}, seed {seed}, answer {number}: {text[:1_000]!r}") from error
    assert refused < count
