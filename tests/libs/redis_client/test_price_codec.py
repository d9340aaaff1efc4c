import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.market_data.prices import FeedStatus, LinkState, MarketPhase, Mode, Price
from libs.redis_client.price_codec import (
    UnreadableFeedStatusError,
    UnreadablePriceError,
    decode_feed_status,
    decode_price,
    decode_price_update,
    encode_feed_status,
    encode_price,
    encode_price_update,
)

PRICE_SAMPLE = (
    b'{"symbol":"AAPL","bid":151.99,"ask":152.01,"mid":152.00,"bid_size":300,"ask_size":100,'
    b'"timestamp":"2025-10-19T14:30:15.123456+00:00","exchange":"V","ask_exchange":"P","feed":"iex",'
    b'"received_at":"2025-10-19T14:30:15.130002+00:00","epoch":"c1","seq":7,"instance":"i1",'
    b'"suspect_since":null,"suspect_reason":null,"mode":"paper"}'
)
PRICE = Price(
    symbol="AAPL",
    mid=Decimal("152.00"),
    timestamp=datetime(2025, 10, 19, 14, 30, 15, 123456, UTC),
    bid=Decimal("151.99"),
    ask=Decimal("152.01"),
    bid_size=Decimal(300),
    ask_size=Decimal(100),
    exchange="V",
    ask_exchange="P",
    feed="iex",
    received_at=datetime(2025, 10, 19, 14, 30, 15, 130002, UTC),
    epoch="c1",
    seq=7,
    instance="i1",
    mode=Mode.PAPER,
)
UPDATE_SAMPLE = (
    b'{"symbol":"AAPL","price":152.00,"timestamp":"2025-10-19T14:30:15.123456+00:00","bid":151.99,"ask":152.01,'
    b'"epoch":"c1","seq":7,"received_at":"2025-10-19T14:30:15.130002+00:00","feed":"iex",'
    b'"instance":"i1","suspect_since":null,"suspect_reason":null,"mode":"paper"}'
)
STATUS_SAMPLE = (
    b'{"state":"streaming","connected":true,"since":"2025-10-19T13:29:58+00:00","epoch":"c1","feed":"iex",'
    b'"mode":"paper","symbols":["AAPL","MSFT"],"market":"open","halted":["MSFT"],"doubted":[],"instance":"i1",'
    b'"lag_s":null,"clock_offset_s":0.0,"at":"2025-10-19T14:30:16+00:00"}'
)
STATUS = FeedStatus(
    state=LinkState.STREAMING,
    connected=True,
    since=datetime(2025, 10, 19, 13, 29, 58, tzinfo=UTC),
    epoch="c1",
    feed="iex",
    mode=Mode.PAPER,
    symbols=frozenset({"MSFT", "AAPL"}),
    market=MarketPhase.OPEN,
    halted=frozenset({"MSFT"}),
    instance="i1",
    at=datetime(2025, 10, 19, 14, 30, 16, tzinfo=UTC),
)

money = st.decimals(min_value=Decimal("1e-9"), max_value=Decimal("1e9"), places=9)
shares = st.decimals(min_value=0, max_value=Decimal("1e9"), places=9)
times = st.datetimes(min_value=datetime(2000, 1, 1), max_value=datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
words = st.text(max_size=8)
unordered_prices = st.builds(
    Price,
    symbol=st.sampled_from(["AAPL", "BRK.B", "F"]),
    mid=money,
    timestamp=times,
    bid=st.none() | money,
    ask=st.none() | money,
    bid_size=st.none() | shares,
    ask_size=st.none() | shares,
    exchange=st.none() | words,
    ask_exchange=st.none() | words,
    feed=st.none() | words,
    received_at=st.none() | times,
    epoch=st.none() | words,
    seq=st.none() | st.integers(0, 2**62),
    last=st.none() | money,
    last_timestamp=st.none() | times,
    last_size=st.none() | shares,
    mode=st.none() | st.sampled_from(Mode),
)


def in_order(price: Price) -> Price:
    """Return the price with its mid between its sides, as a writer makes it."""
    names = [name for name in ("bid", "mid", "ask") if getattr(price, name) is not None]
    return replace(price, **dict(zip(names, sorted(getattr(price, name) for name in names), strict=True)))


prices = unordered_prices.map(in_order)
statuses = st.builds(
    FeedStatus,
    state=st.sampled_from(LinkState),
    connected=st.booleans(),
    since=times,
    epoch=st.none() | words,
    feed=words,
    mode=st.sampled_from(Mode),
    symbols=st.frozensets(words),
    market=st.sampled_from(MarketPhase),
    lag_s=st.none() | st.floats(0, 1e9),
)


def with_members(**members: object) -> bytes:
    return json.dumps({"mid": 152.0, "timestamp": "2025-10-19T14:30:15+00:00", **members}).encode()


def test_the_samples_are_what_is_written_and_read() -> None:
    assert encode_price(PRICE) == PRICE_SAMPLE
    assert decode_price(PRICE_SAMPLE) == PRICE
    assert encode_price_update(PRICE) == UPDATE_SAMPLE
    assert encode_feed_status(STATUS) == STATUS_SAMPLE
    assert decode_feed_status(STATUS_SAMPLE) == STATUS
    assert decode_feed_status(STATUS_SAMPLE).at == STATUS.at


def test_the_last_trade_is_written_once_it_is_known() -> None:
    at = datetime(2025, 10, 19, 14, 30, 14, 900000, UTC)
    price = replace(PRICE, last=Decimal("152.01"), last_timestamp=at, last_size=Decimal(100))
    members = b',"last":152.01,"last_timestamp":"2025-10-19T14:30:14.900000+00:00"'
    assert encode_price(price) == PRICE_SAMPLE[:-1] + members + b',"last_size":100}'
    assert encode_price_update(price) == UPDATE_SAMPLE[:-1] + members + b"}"
    assert decode_price(encode_price(price)) == price


@given(prices)
def test_a_price_survives_the_cache_to_the_last_digit(price: Price) -> None:
    read = decode_price(encode_price(price), price.symbol)
    assert read == price
    assert str(read.mid) == str(price.mid)


@given(prices)
def test_an_update_carries_what_marks(price: Price) -> None:
    read = decode_price_update(encode_price_update(price))
    kept = (price.symbol, price.mid, price.timestamp, price.bid, price.ask, price.epoch, price.seq, price.received_at)
    assert (read.symbol, read.mid, read.timestamp, read.bid, read.ask, read.epoch, read.seq, read.received_at) == kept
    assert read.feed == price.feed
    assert (read.last, read.last_timestamp) == (price.last, price.last_timestamp)


@given(statuses)
def test_a_status_survives(status: FeedStatus) -> None:
    assert decode_feed_status(encode_feed_status(status)) == status


@given(st.binary(max_size=60))
def test_any_bytes_are_a_price_or_unreadable(data: bytes) -> None:
    for decode in (decode_price, decode_price_update):
        with pytest.raises(UnreadablePriceError):
            decode(data)
    with pytest.raises(UnreadableFeedStatusError):
        decode_feed_status(data)


def test_mid_and_timestamp_are_enough() -> None:
    price = decode_price(b'{"mid": 152.00, "timestamp": "2025-10-19T14:30:15.123456+00:00"}', "AAPL")
    assert price == Price("AAPL", Decimal("152.00"), datetime(2025, 10, 19, 14, 30, 15, 123456, UTC))
    assert str(price.mid) == "152.00"


def test_unknown_members_and_other_zones_are_fine() -> None:
    price = decode_price(with_members(timestamp="2025-10-19T10:30:15-04:00", colour={"a": [1]}), "AAPL")
    assert price.timestamp == datetime(2025, 10, 19, 14, 30, 15, tzinfo=UTC)
    assert price.timestamp.tzinfo is UTC
    assert decode_price(with_members(timestamp="2025-10-19T14:30:15Z"), "AAPL").timestamp.tzinfo is UTC


def test_numbers_stay_as_exact_as_their_text() -> None:
    raw = b'{"mid":0.1000000000000000055,"timestamp":"2025-10-19T14:30:15Z"}'
    assert decode_price(raw, "X").mid == Decimal("0.1000000000000000055")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"152.00",
        b"[]",
        b"{}",
        b"not json",
        b'{"mid":152.00}',
        b'{"timestamp":"2025-10-19T14:30:15+00:00"}',
        b'{"mid":NaN,"timestamp":"2025-10-19T14:30:15+00:00"}',
        PRICE_SAMPLE[:-10],
        b'{"mid":152.00,"timestamp":"\xff"}',
        with_members(mid=None),
        with_members(mid="NaN"),
        with_members(mid="Infinity"),
        with_members(mid=0),
        with_members(mid=-1),
        with_members(mid=True),
        with_members(mid="abc"),
        with_members(mid=[]),
        with_members(mid=1e13),
        with_members(mid=1e-12),
        b'{"mid":1e999999,"timestamp":"2025-10-19T14:30:15+00:00"}',
        b'{"mid":1e-999999,"timestamp":"2025-10-19T14:30:15+00:00"}',
        with_members(bid=-1),
        with_members(bid="NaN"),
        with_members(ask=0),
        with_members(ask_size="Infinity"),
        with_members(ask_size="NaN"),
        with_members(bid_size=-1),
        with_members(last=0),
        with_members(last="NaN"),
        with_members(last_size=-1),
        with_members(last_timestamp="2025-10-19T14:30:15"),
        with_members(seq="7"),
        with_members(seq=True),
        with_members(seq=-1),
        with_members(seq=2**63),
        with_members(seq=10**40),
        with_members(seq=1.5),
        with_members(bid=900, ask=700),
        with_members(bid=150.01, ask=149.99),
        with_members(bid=152.01, ask=152.02),
        with_members(bid=151.98, ask=151.99),
        with_members(bid=152.01),
        with_members(ask=151.99),
        with_members(timestamp=None),
        with_members(timestamp="yesterday"),
        with_members(timestamp="2025-10-19T14:30:15"),
        with_members(timestamp="0001-01-01T00:00:00+14:00"),
        with_members(received_at="2025-10-19T14:30:15"),
        with_members(symbol="MSFT"),
        with_members(symbol=5),
        b"[" * 100_000,
        b'{"mid":152.00,"timestamp":"2025-10-19T14:30:15Z","x":' + b"[" * 100_000,
    ],
)
def test_what_is_no_price_is_unreadable(data: bytes) -> None:
    with pytest.raises(UnreadablePriceError):
        decode_price(data, "AAPL")


def test_a_mode_that_we_do_not_know_is_none() -> None:
    assert decode_price(with_members(mode="replay"), "AAPL").mode is Mode.REPLAY
    assert decode_price(with_members(mode="fast"), "AAPL").mode is None


@pytest.mark.parametrize(
    ("bid", "ask", "is_believed"),
    [(None, None, True), (152, 152, True), (152, None, True), (None, 152, True), (95, 105, True), (94.9, 105, False),
     (1, 303, False)],
)  # fmt: skip
def test_a_spread_that_the_writer_would_not_write_is_not_read(
    bid: float | None, ask: float | None, is_believed: bool
) -> None:
    mid = 152 if bid is None or ask is None else (bid + ask) / 2
    cached = with_members(mid=mid, bid=bid, ask=ask)
    update = json.dumps({"symbol": "AAPL", "price": mid, "bid": bid, "ask": ask, "timestamp": "2025-10-19T14:30:15Z"})
    assert decode_price(cached, "AAPL").mid == Decimal(str(mid)), "without a limit: any"
    for read in (
        lambda: decode_price(cached, "AAPL", Decimal(10)),
        lambda: decode_price_update(update.encode(), Decimal(10)),
    ):
        if is_believed:
            assert read().mid == Decimal(str(mid))
        else:
            with pytest.raises(UnreadablePriceError, match="MAX_SPREAD_PCT=10"):
                read()


def test_a_price_must_be_of_some_symbol() -> None:
    with pytest.raises(UnreadablePriceError):
        decode_price(with_members())
    with pytest.raises(UnreadablePriceError, match="names no symbol"):
        decode_price_update(UPDATE_SAMPLE.replace(b"AAPL", b""))
    with pytest.raises(UnreadablePriceError):
        decode_price_update(with_members(symbol="AAPL"))  # a cached price is no update


@pytest.mark.parametrize(
    "change", [(b"streaming", b"flying"), (b"paper", b"toy"), (b"+00:00", b""), (b'"open"', b"null")]
)
def test_what_is_no_status_is_unreadable(change: tuple[bytes, bytes]) -> None:
    with pytest.raises(UnreadableFeedStatusError):
        decode_feed_status(STATUS_SAMPLE.replace(*change))


@pytest.mark.parametrize("mid", ["NaN", "sNaN", "Infinity", "0", "-1"])
def test_a_price_that_nobody_could_read_is_not_written(mid: str) -> None:
    broken = Price("AAPL", Decimal(mid), PRICE.timestamp)
    for encode in (encode_price, encode_price_update):
        with pytest.raises(ValueError, match="cannot be written"):
            encode(broken)


def test_times_are_written_in_utc() -> None:
    new_york = timezone(timedelta(hours=-4))
    text = encode_price(Price("AAPL", Decimal(1), datetime(2025, 10, 19, 10, 30, tzinfo=new_york)))
    assert b'"timestamp":"2025-10-19T14:30:00+00:00"' in text
    with pytest.raises(ValueError, match="naive"):
        encode_price(Price("AAPL", Decimal(1), datetime(2025, 10, 19, 10, 30)))  # noqa: DTZ001
