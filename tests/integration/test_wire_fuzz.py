"""No frame ends the market data service, marks wrongly, or costs more than itself: spoiled frames, all the way down.

Each frame goes through the session, the intake, the newest quotes and trades, into the JSON of Redis and out of it, and
into the gateway's book. `make test` sends 20,000, `make test-deep` 300,000. A failure names its seed and the frame.
"""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from random import Random

import pytest
from hypothesis import settings

from apps.execution_gateway.price_book import PriceBook
from libs.market_data.alpaca_messages import UnreadableMessage
from libs.market_data.channels import Channel, SideChannel
from libs.market_data.halts import Halts, TradingStatus
from libs.market_data.latest_quotes import LatestQuotes
from libs.market_data.prices import FeedStatus, LinkState, MarketPhase, Mode, Price
from libs.market_data.quote_intake import QuoteIntake
from libs.market_data.quotes import Quote
from libs.market_data.session import Session
from libs.market_data.symbols import is_symbol
from libs.market_data.trades import Trade, TradeCancel, TradeCorrection
from libs.redis_client.price_codec import (
    decode_feed_status,
    decode_price,
    decode_price_update,
    encode_feed_status,
    encode_price,
    encode_price_update,
)
from tests.support.quotes import NOON
from tests.support.wire_mutations import (
    Pairs,
    encode_json,
    encode_msgpack,
    json_array,
    msgpack_array,
    spoil_bytes,
    spoil_fields,
)

FRAMES = {"fast": 20_000, "deep": 300_000}
PARTS = 10
GOOD = ("GOODA", "GOODB")


def quote_message(symbol: str, bid: float, ask: float, at: datetime) -> Pairs:
    return [
        ("T", "q"), ("S", symbol), ("bx", "V"), ("bp", bid), ("bs", 100), ("ax", "Q"), ("ap", ask), ("as", 200),
        ("c", ["R"]), ("z", "C"), ("t", at.isoformat().replace("+00:00", "Z")),
    ]  # fmt: skip


def messages(at: datetime) -> list[Pairs]:
    """Return one good message of each kind."""
    time = at.isoformat()
    return [
        quote_message("AAPL", 150.25, 150.27, at),
        [("T", "t"), ("i", 96921), ("S", "AAPL"), ("x", "D"), ("p", 150.26), ("s", 1), ("t", time), ("c", ["@"]),
         ("z", "C")],
        [("T", "c"), ("S", "AAPL"), ("x", "D"), ("oi", 96921), ("op", 150.26), ("os", 1), ("oc", ["@"]), ("ci", 96922),
         ("cp", 150.255), ("cs", 2), ("cc", ["@"]), ("z", "C"), ("t", time)],
        [("T", "x"), ("S", "AAPL"), ("i", 96922), ("x", "D"), ("p", 150.26), ("s", 1), ("a", "C"), ("z", "C"),
         ("t", time)],
        [("T", "s"), ("S", "AAPL"), ("sc", "H"), ("sm", "Halt"), ("rc", "T12"), ("rm", ""), ("t", time), ("z", "C")],
        [("T", "subscription"), ("trades", ["AAPL"]), ("quotes", ["AAPL", *GOOD]), ("statuses", ["AAPL"])],
        [("T", "error"), ("code", 405), ("msg", "symbol limit exceeded")],
        [("T", "success"), ("msg", "authenticated")],
    ]  # fmt: skip


class Pipeline:
    """Every pure part that a frame of the stream passes, joined as the service joins them."""

    def __init__(self) -> None:
        self.session = Session(sides=(SideChannel(Channel.STATUSES), SideChannel(Channel.TRADES)))
        self.intake = QuoteIntake(is_symbol, 10.0)
        self.latest = LatestQuotes("iex")
        self.halts = Halts()
        self.book = PriceBook()
        self.intake.add_handler(lambda quote: self.latest.put(quote, "c1"))
        self.intake.add_trade_handler(self.latest.take_trade)
        self.prices = 0

    def take(self, frame: bytes | str, now: datetime) -> list[Quote]:
        """Take one frame; return the quotes that it brought. Raises whatever escapes."""
        quotes = []
        for event in self.session.receive(frame, now):
            match event:
                case Quote():
                    quotes.append(event)
                    if self.intake.take_streamed(event):
                        self.halts.quoted(event.symbol)
                case Trade() | TradeCancel() | TradeCorrection():
                    self.intake.take_trade(event)
                case TradingStatus():
                    self.halts.take(event, now)
                case UnreadableMessage():
                    self.intake.reject_malformed(event.symbol)
                case _:
                    pass
        self.session.next_request(["AAPL", *GOOD])
        return quotes

    def publish(self, now: datetime) -> None:
        """Write what waits, as the service does, and read it as the gateway does."""
        for write in self.latest.take(now.timestamp()):
            price = write.price
            assert_can_mark(price)
            cached = decode_price(encode_price(price), price.symbol)
            assert cached == price
            told = decode_price_update(encode_price_update(price))
            assert (told.mid, told.bid, told.ask, told.timestamp) == (price.mid, price.bid, price.ask, price.timestamp)
            self.book.offer(told, is_live=True)
            self.book.offer(cached, is_live=False)
            price.age_s(now)
            self.prices += 1
        status = FeedStatus(
            state=LinkState.STREAMING, connected=True, since=now, epoch="c1", feed="iex", mode=Mode.SIMULATED,
            symbols=self.session.confirmed, market=MarketPhase.OPEN, halted=self.halts.symbols,
        )  # fmt: skip
        assert decode_feed_status(encode_feed_status(status)) == status
        assert self.intake.counts["handler_errors"] == 0


def assert_can_mark(price: Price) -> None:
    assert is_symbol(price.symbol)
    assert price.bid is not None
    assert price.ask is not None
    assert Decimal(0) < price.bid <= price.mid <= price.ask < Decimal("Infinity")
    for time in (price.timestamp, price.received_at, price.last_timestamp):
        assert time is None or (time.tzinfo is UTC and 1970 <= time.year <= 2200)
    for size in (price.bid_size, price.ask_size, price.last_size):
        assert size is None or 0 <= size <= 10**12
    assert price.last is None or Decimal(0) < price.last < Decimal("Infinity")


def good_beside(number: int, now: datetime) -> list[Pairs]:
    bid = 100 + number % 100 / 100
    return [quote_message(symbol, bid, bid + 0.02, now) for symbol in GOOD]


def spoiled_frames(seed: int, count: int, *, is_text: bool) -> Iterator[tuple[bytes | str, list[Pairs]]]:
    """Yield frames, and the good messages that each of them must still deliver."""
    dice = Random(seed)
    for number in range(count):
        now = NOON + timedelta(milliseconds=number)
        first, last = good_beside(number, now)
        of_each_kind = messages(now)
        bad = dice.choice(of_each_kind)
        kind = dice.randrange(10)
        if kind <= 6:
            yield whole([first, spoil_fields(bad, dice), last], is_text=is_text), [first, last]
        elif kind == 7:
            # Spoiled within: what its bytes are by then is anybody's guess, where it ends is not.
            yield framed_extension(first, bad, last, dice, is_text=is_text), [first, last]
        else:
            frame, other = (packed(whole([each], is_text=is_text)) for each in (bad, dice.choice(of_each_kind)))
            spoiled = spoil_bytes(frame, other, dice)
            yield (spoiled.decode("utf-8", "replace") if is_text else spoiled), []


def framed_extension(first: Pairs, bad: Pairs, last: Pairs, dice: Random, *, is_text: bool) -> bytes | str:
    """Return a frame whose middle element is spoiled by the byte, but ends where it says."""
    spoiled = spoil_bytes(encode_msgpack(bad), b"\xff" * 9, dice)
    if is_text:
        inner = spoiled.hex().translate(str.maketrans("", "", '"\\[]{},'))
        return json_array([encode_json(first), inner, encode_json(last)])
    extension = b"\xc9" + len(spoiled).to_bytes(4, "big") + b"\x05" + spoiled
    return msgpack_array([encode_msgpack(first), extension, encode_msgpack(last)])


def whole(each: Iterable[object], *, is_text: bool) -> bytes | str:
    return encode_json(list(each)) if is_text else encode_msgpack(list(each))


def packed(frame: bytes | str) -> bytes:
    return frame.encode() if isinstance(frame, str) else frame


def run_part(seed: int, count: int, *, is_text: bool) -> Pipeline:
    pipeline = Pipeline()
    for number, (frame, must_arrive) in enumerate(spoiled_frames(seed, count, is_text=is_text)):
        now = NOON + timedelta(milliseconds=number)
        try:
            quotes = pipeline.take(frame, now)
            arrived = [(quote.symbol, quote.bid, quote.ask) for quote in quotes if quote.symbol in GOOD]
            expected = [tuple(dict(good)[key] for key in ("S", "bp", "ap")) for good in must_arrive]
            assert arrived == expected
            pipeline.publish(now)
        except Exception as error:
            raise AssertionError(f"seed {seed}, frame {number}: {packed(frame)[:2_000].hex()}") from error
    return pipeline


# The mark has `make test-deep` choose it, by whose profile it sends more.
@pytest.mark.hypothesis
@pytest.mark.parametrize("is_text", [False, True], ids=["msgpack", "json"])
@pytest.mark.parametrize("part", range(PARTS // 2))
def test_no_frame_escapes_marks_wrongly_or_costs_its_neighbours(part: int, *, is_text: bool) -> None:
    count = FRAMES[settings.get_current_profile_name()] // PARTS
    pipeline = run_part(20_261_201 + part, count, is_text=is_text)
    # All of it was in vain if nothing came through, or nothing was spoiled.
    assert pipeline.prices > count
    assert pipeline.session.counts["unreadable_messages"] > count // 10
    assert pipeline.session.counts["unreadable_frames"] > count // 20
