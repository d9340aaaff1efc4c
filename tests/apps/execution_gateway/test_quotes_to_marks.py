"""Quotes in at the venue's end, marks out at the reader's, by messages and by keys: a withdrawn quote is never live."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from apps.execution_gateway.price_book import PriceBook, Verdict
from libs.market_data.freshness import Mark, MarkRules, PriceSource, can_vouch, choose_mark, live_feed, word_of
from libs.market_data.latest_quotes import LatestQuotes
from libs.market_data.prices import FeedStatus, LinkState, MarketPhase, Mode, Price
from libs.market_data.quote_intake import QuoteIntake
from libs.market_data.quotes import QuoteOrigin
from libs.market_data.trades import TradeCancel
from libs.redis_client.price_codec import decode_price, decode_price_update, encode_price, encode_price_update
from tests.support.quotes import NOON, make_quote, make_trade

STALE_AFTER_S, TTL_S = 15.0, 300.0
LOOKS_S = (0.0, 0.5, 3.0, 14.9, 15.1, 40.0, 400.0)


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


@dataclass
class Path:
    """One symbol's way from the stream to the mark. `good` is the last quote that may mark: its bid and its time."""

    now_s: float = 0.0
    connection: int = 1
    trades: int = 0
    good: tuple[int, float] | None = None
    rejected_since_s: float | None = None
    key: tuple[bytes, float] | None = None
    latest: LatestQuotes = field(default_factory=lambda: LatestQuotes("iex", "i1", Mode.PAPER))
    book: PriceBook = field(default_factory=PriceBook)

    def __post_init__(self) -> None:
        self.intake = QuoteIntake(lambda _symbol: True, 10.0)
        self.intake.add_handler(lambda quote: self.latest.put(quote, f"e{self.connection}"))
        self.intake.add_rejection_handler(self.latest.take_rejected)
        self.intake.add_trade_handler(self.latest.take_trade)

    @property
    def status(self) -> FeedStatus:
        epoch, symbols = f"e{self.connection}", frozenset({"AAPL"})
        return FeedStatus(
            state=LinkState.STREAMING,
            connected=True,
            since=NOON,
            epoch=epoch,
            feed="iex",
            mode=Mode.PAPER,
            symbols=symbols,
            market=MarketPhase.OPEN,
            instance="i1",
        )

    def step(self, what: str, after_s: float, bid: int) -> None:
        self.now_s += after_s
        now = at(self.now_s)
        match what:
            case "good":
                self.good, self.rejected_since_s = (bid, self.now_s), None
                self.intake.take_streamed(make_quote(bid=float(bid), ask=bid + 0.02, at_s=self.now_s))
            case "one-sided" | "untimed" | "ahead":
                made_at = {"one-sided": now, "untimed": None, "ahead": at(self.now_s + 100)}[what]
                self.rejected_since_s = self.now_s if self.rejected_since_s is None else self.rejected_since_s
                self.intake.take_streamed(make_quote(bid=0.0, ask=149.0, timestamp=made_at, received_at=now))
            case "fetched" if self.good is not None:  # an answer that the stream has overtaken
                bid, made_at_s = self.good
                quote = make_quote(bid=float(bid), ask=bid + 0.02, timestamp=at(made_at_s), received_at=now)
                quote.origin = QuoteOrigin.REST
                self.intake.take_fetched(quote)
            case "reconnect":
                self.connection += 1
            case "trade":
                self.trades += 1
                self.intake.take_trade(make_trade(self.trades, float(bid), at_s=self.now_s))
            case "cancel":
                self.intake.take_trade(TradeCancel("AAPL", self.trades, "V"))
            case _:
                pass
        self.book.hear(self.status, now)

    def write(self) -> None:
        for write in self.latest.take(self.now_s):
            if (left_s := TTL_S - write.age_s) > 0:
                self.key = encode_price(write.price), self.now_s + left_s
            if write.publish:
                price = decode_price_update(encode_price_update(write.price))
                verdict = self.book.offer(price, is_live=True, now=at(self.now_s), at_s=self.now_s)
                assert verdict is not Verdict.GAP

    def read(self) -> Price | None:
        """Return what stands under the key; the book takes it in, as on each request."""
        if self.key is None or self.key[1] <= self.now_s:
            return None
        price = decode_price(self.key[0], "AAPL")
        self.book.offer(price, is_live=False, now=at(self.now_s), at_s=self.now_s + 1e-6)
        return price

    def mark(self, price: Price, in_s: float) -> Mark:
        """Return the mark when nothing but heartbeats comes for `in_s`."""
        now = at(self.now_s + in_s)
        feed = live_feed(self.status, now, now)
        word = word_of(feed, price, NOON - timedelta(hours=12))
        vouched_at = now if can_vouch(self.status) and price.epoch == self.status.epoch else None
        return choose_mark(
            price,
            word=word,
            last_vouched_at=vouched_at,
            close=None,
            market=MarketPhase.OPEN,
            now=now,
            rules=MarkRules(STALE_AFTER_S, TTL_S),
        )


def what_marks(price: Price) -> tuple[object, ...]:
    return (
        price.mid, price.bid, price.ask, price.timestamp, price.received_at, price.epoch, price.last,
        price.suspect_since, price.suspect_reason, price.suspect_quotes, price.newest_bid, price.newest_ask,
    )  # fmt: skip


STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "good",
                "good",
                "one-sided",
                "one-sided",
                "untimed",
                "ahead",
                "fetched",
                "reconnect",
                "trade",
                "cancel",
                "quiet",
            ]
        ),
        st.sampled_from([0.05, 0.3, 1.0, 2.0, 7.0, 16.0, 100.0]),
        st.integers(100, 200),
        st.booleans(),
    ),
    max_size=25,
)


@given(steps=STEPS)
def test_messages_and_keys_say_the_same_and_no_withdrawn_quote_is_live(
    steps: list[tuple[str, float, int, bool]],
) -> None:
    path = Path()
    for what, after_s, bid, is_read in steps:
        path.step(what, after_s, bid)
        path.write()
        heard = path.book.price("AAPL")
        prices = [] if heard is None else [heard]
        if is_read and (cached := path.read()) is not None:
            held = path.book.price("AAPL")
            assert held is not None
            assert what_marks(held) == what_marks(cached)
            prices.append(cached)
        for price in prices:
            for in_s in LOOKS_S:
                mark = path.mark(price, in_s)
                if mark.source is not PriceSource.REAL_TIME:
                    continue
                assert path.good is not None
                assert mark.price == path.good[0] + Decimal("0.01")
                since_s = path.rejected_since_s
                assert since_s is None or path.now_s + in_s - since_s < STALE_AFTER_S
