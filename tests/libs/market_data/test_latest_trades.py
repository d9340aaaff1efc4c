"""Which trade is the last, whatever is taken back, repeated, late or fetched."""

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.market_data.latest_trades import HISTORY, LatestTrades
from libs.market_data.quotes import QuoteOrigin
from libs.market_data.trades import Ineligible, TradeCancel, TradeCorrection, TradeEvent, TradesInterrupted
from tests.support.quotes import NOON, make_trade

REST = QuoteOrigin.REST


def told(*events: TradeEvent) -> LatestTrades:
    trades = LatestTrades()
    for event in events:
        trades.take(event)
    return trades


def last_price(trades: LatestTrades, symbol: str = "AAPL") -> float | None:
    last = trades.last(symbol)
    return None if last is None else last.price


def cancel(trade_id: int, exchange: str = "V") -> TradeCancel:
    return TradeCancel("AAPL", trade_id, exchange)


def correction(original_id: int, trade_id: int, price: float, **changes: object) -> TradeCorrection:
    return TradeCorrection(original_id, make_trade(trade_id, price, at_s=3600, **changes))


def test_nothing_is_known_before_the_first() -> None:
    assert LatestTrades().last("AAPL") is None


def test_the_newest_by_arrival_is_the_last() -> None:
    trades = told(make_trade(1, 10.0, at_s=5), make_trade(2, 11.0, at_s=4))
    assert last_price(trades) == 11.0


def test_a_late_one_is_not() -> None:
    trades = told(make_trade(1, 10.0, at_s=5))
    late = make_trade(2, 11.0, timestamp=NOON + timedelta(seconds=2.9), received_at=NOON + timedelta(seconds=6))
    assert trades.take(late) is Ineligible.OUT_OF_ORDER
    assert last_price(trades) == 10.0


def test_a_time_in_the_future_does_not_make_the_rest_look_late() -> None:
    trades = told(make_trade(1, 10.0, timestamp=NOON + timedelta(days=1)))
    assert trades.take(make_trade(2, 11.0, at_s=1)) is None


def test_our_clock_set_back_does_not_stop_it() -> None:
    trades = told(make_trade(1, 10.0, at_s=3600), make_trade(2, 11.0, at_s=0), make_trade(3, 12.0, at_s=1))
    assert last_price(trades) == 12.0


def test_an_ineligible_one_is_not_kept() -> None:
    trades = LatestTrades()
    assert trades.take(make_trade(conditions=("I",))) is Ineligible.CONDITION
    assert list(trades.symbols) == []


def test_a_cancel_of_the_last_rolls_back_and_of_an_older_one_changes_history_alone() -> None:
    trades = told(make_trade(1, 10.0), make_trade(2, 11.0), make_trade(3, 12.0), cancel(2))
    assert last_price(trades) == 12.0
    trades.take(cancel(3))
    assert last_price(trades) == 10.0
    trades.take(cancel(1))
    assert trades.last("AAPL") is None
    assert trades.cancelled == 3


def test_the_same_id_on_another_exchange_is_another_trade() -> None:
    trades = told(make_trade(1, 10.0, exchange="V"), make_trade(1, 11.0, exchange="Q"), cancel(1, "V"))
    assert last_price(trades) == 11.0
    trades.take(cancel(1, "Q"))
    assert trades.last("AAPL") is None


def test_a_correction_of_the_last_replaces_it_in_its_place_and_time() -> None:
    trades = told(make_trade(1, 10.0), make_trade(2, 11.0), correction(2, 20, 11.5))
    last = trades.last("AAPL")
    assert last is not None
    assert (last.price, last.trade_id, last.timestamp) == (11.5, 20, NOON)
    trades.take(correction(1, 1, 9.0))
    assert last_price(trades) == 11.5
    trades.take(cancel(20))
    assert last_price(trades) == 9.0
    assert trades.corrected == 2


def test_a_correction_can_be_corrected_and_one_to_something_ineligible_takes_it_out() -> None:
    trades = told(make_trade(1, 10.0), make_trade(2, 11.0), correction(2, 20, 11.5), correction(20, 21, 11.6))
    assert last_price(trades) == 11.6
    trades.take(correction(21, 22, 11.6, conditions=("W",)))
    assert last_price(trades) == 10.0


@pytest.mark.parametrize("event", [cancel(99), correction(99, 100, 5.0)])
def test_what_was_not_kept_cannot_be_taken_back(event: TradeEvent) -> None:
    trades = told(make_trade(1, 10.0), event)
    assert last_price(trades) == 10.0
    assert (trades.corrected, trades.cancelled) == (0, 0)
    assert told(event).last("AAPL") is None


def test_a_repeated_trade_is_one_trade() -> None:
    trades = told(make_trade(1, 10.0), make_trade(2, 11.0))
    assert trades.take(make_trade(2, 11.0)) is Ineligible.REPEATED
    trades.take(cancel(2))
    assert last_price(trades) == 10.0


def test_ids_begin_anew_every_day() -> None:
    trades = told(make_trade(1, 10.0), make_trade(2, 11.0), make_trade(1, 12.0, at_s=86_400))
    assert last_price(trades) == 12.0
    trades.take(cancel(1))
    assert last_price(trades) == 11.0


def test_a_trade_without_an_id_is_kept_and_never_taken_back() -> None:
    trades = told(make_trade(None, 10.0), make_trade(None, 11.0), make_trade(3, 12.0), cancel(3))
    assert last_price(trades) == 11.0


def test_what_is_fetched_counts_only_if_newer() -> None:
    trades = told(make_trade(1, 10.0, at_s=5))
    assert trades.take(make_trade(2, 11.0, at_s=5, origin=REST)) is Ineligible.OLDER_THAN_STREAM
    assert trades.take(make_trade(1, 10.0, at_s=5, origin=REST)) is Ineligible.REPEATED
    assert trades.take(make_trade(2, 11.0, at_s=6, origin=REST)) is None
    assert last_price(trades) == 11.0
    assert told(make_trade(origin=REST)).last("AAPL") is not None


def test_what_is_fetched_cannot_bring_back_what_was_taken_back() -> None:
    trades = told(make_trade(1, 10.0), cancel(1), cancel(2), correction(3, 4, 9.0))
    for trade_id in (1, 2, 3):
        assert trades.take(make_trade(trade_id, at_s=9, origin=REST)) is Ineligible.WITHDRAWN
    # The stream itself may: ids begin anew every day.
    assert trades.take(make_trade(1, 10.0, at_s=86_400)) is None


def test_after_an_interruption_nothing_is_known() -> None:
    trades = told(make_trade(1), make_trade(1, symbol="KO"), make_trade(1, symbol="F"))
    trades.take(TradesInterrupted(frozenset({"AAPL", "NEVER"})))
    assert [symbol for symbol in ("AAPL", "KO", "F") if trades.last(symbol)] == ["KO", "F"]
    trades.keep_only({"F"})
    assert list(trades.symbols) == ["F"]
    trades.take(TradesInterrupted())
    assert list(trades.symbols) == []


def test_the_history_is_bounded() -> None:
    trades = told(*(make_trade(number, 10.0 + number) for number in range(HISTORY + 10)))
    for number in range(HISTORY + 9, 9, -1):
        assert last_price(trades) == 10.0 + number
        trades.take(cancel(number))
    assert trades.last("AAPL") is None


STEPS = st.lists(
    st.tuples(st.sampled_from(["trade", "odd", "cancel", "correct"]), st.integers(0, 30), st.integers(1, 1000)),
    max_size=60,
)


@given(STEPS)
def test_the_last_is_what_a_list_of_the_standing_trades_ends_with(steps: list[tuple[str, int, int]]) -> None:
    trades, standing = LatestTrades(), list[tuple[int, float]]()
    for number, (kind, chosen, price) in enumerate(steps):
        if kind in {"trade", "odd"}:
            conditions = ("@",) if kind == "trade" else ("@", "I")
            trades.take(make_trade(1000 + number, float(price), at_s=number, conditions=conditions))
            if kind == "trade":
                standing.append((1000 + number, float(price)))
            continue
        trade_id = standing[chosen % len(standing)][0] if standing else 5
        if kind == "cancel":
            trades.take(cancel(trade_id))
            standing = [each for each in standing if each[0] != trade_id]
        else:
            trades.take(correction(trade_id, 2000 + number, float(price)))
            standing = [(2000 + number, float(price)) if each[0] == trade_id else each for each in standing]
        assert last_price(trades) == (standing[-1][1] if standing else None)
    assert last_price(trades) == (standing[-1][1] if standing else None)


def test_what_is_given_is_not_changed() -> None:
    corrected = correction(1, 2, 11.0)
    before = replace(corrected.corrected)
    told(make_trade(1, 10.0), corrected)
    assert corrected.corrected == before
