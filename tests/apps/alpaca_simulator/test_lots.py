"""Cost of a position: average within the day, compressed first-in first-out from the morning sync on."""

from decimal import Decimal, localcontext

from hypothesis import given
from hypothesis import strategies as st

from apps.alpaca_simulator.lots import COSTS, Holding, Lot

D = Decimal


def traded(*trades, holding=None):
    holding = holding or Holding()
    for qty, price in trades:
        holding = holding.traded(D(qty), D(price))
    return holding


def lots(holding):
    return [(lot.qty, lot.cost) for lot in holding.lots]


def mirrored(holding):
    return [(qty.copy_negate(), cost.copy_negate()) for qty, cost in lots(holding)]


def example():
    """The example of Alpaca's documentation, before its third morning sync."""
    first = traded((100, 10), (50, 12)).synced()
    second = traded((30, 15), holding=first).synced()
    return traded((-120, 14), holding=second)


class TestWorkedExample:
    def test_average_until_the_sync(self):
        held = example()
        assert held.qty == 60
        assert round(held.cost / held.qty, 2) == D("11.39")

    def test_compressed_fifo_after_it(self):
        held = example().synced()
        assert [lot.qty for lot in held.lots] == [30, 30]
        assert round(held.cost / held.qty, 4) == D("12.8333")

    def test_shorts_are_its_mirror(self):
        first = traded((-100, 10), (-50, 12)).synced()
        second = traded((-30, 15), holding=first).synced()
        held = traded((120, 14), holding=second)
        assert (held.qty, held.cost) == (-60, example().cost.copy_negate())
        assert lots(held.synced()) == mirrored(example().synced())


class TestTheDaysOwnTrades:
    def test_closing_trades_take_older_lots_first(self):
        older = traded((10, 100)).synced()
        assert lots(traded((5, 110), (-12, 120), holding=older).synced()) == [(3, 330)]

    def test_a_day_that_turns_the_position_round_opens_one_lot_of_the_other_side(self):
        older = traded((10, 100)).synced()
        turned = traded((-30, 90), (5, 80), holding=older)
        assert (turned.qty, turned.cost) == (-15, -15 * 90)
        assert lots(turned.synced()) == [(-15, -1350)]

    def test_nothing_is_left_of_a_round_trip(self):
        flat = traded((7, 10), (-7, 11))
        assert (flat.qty, flat.cost, flat.synced()) == (0, 0, Holding())

    def test_older_shares_and_those_of_today_are_told_apart(self):
        held = traded((5, 110), (-4, 120), holding=traded((10, 100)).synced())
        assert held.overnight_qty == 10
        assert held.older_left() == (Lot(D(6), D(600)),)
        assert held.opened_today() == (Lot(D(5), D(550)),)


class TestSplit:
    def test_the_cost_stays(self):
        held, fraction = example().synced().split(D(4), D(1))
        assert (held.qty, held.cost, fraction) == (240, 770, 0)
        assert [lot.qty for lot in held.lots] == [120, 120]

    def test_what_fits_no_nine_decimals_is_told(self):
        held, fraction = traded((10, 100)).split(D(1), D(3))
        assert held.qty == D("3.333333333")
        assert 0 < fraction < D("1e-9")
        assert held.qty + fraction == D(10) / 3 or abs(held.qty + fraction - D(10) / 3) < D("1e-27")

    def test_a_short_is_cut_towards_zero_too(self):
        held, fraction = traded((-10, 100)).split(D(1), D(3))
        assert held.qty == D("-3.333333333")
        assert -D("1e-9") < fraction < 0


QUANTITIES = st.decimals(D("-500"), D(500), places=3, allow_nan=False).filter(bool)
PRICES = st.decimals(D("0.01"), D(900), places=2, allow_nan=False)
FORWARD, REVERSE = (D(2), D(1)), (D(1), D(7))
TRADES_AND_SYNCS = st.one_of(st.tuples(QUANTITIES, PRICES), st.just("sync"), st.just(FORWARD))
STEPS = st.lists(st.one_of(TRADES_AND_SYNCS, st.just(REVERSE)))


def after(steps, sign=1):
    held = Holding()
    for step in steps:
        if step == "sync":
            held = held.synced()
        elif step in {FORWARD, REVERSE}:
            held, _ = held.split(*step)
        else:
            held = held.traded(sign * step[0], step[1])
    return held


@given(STEPS)
def test_lots_add_up_and_are_all_of_one_side(steps):
    held = after(steps)
    synced = held.synced()
    assert synced.qty == held.qty == sum((lot.qty for lot in synced.lots), D(0))
    with localcontext(COSTS):
        assert synced.cost == sum((lot.cost for lot in synced.lots), D(0))
    assert all(lot.qty * held.qty > 0 for lot in synced.lots if lot.qty)
    assert held.cost * held.qty >= 0
    assert synced.synced() == synced
    assert sum((lot.qty for lot in (*held.older_left(), *held.opened_today())), D(0)) == held.qty


# Without the reverse split: how the dust beyond 9 decimals falls on a day's purchases and sales depends on their order.
@given(st.lists(TRADES_AND_SYNCS))
def test_shorts_mirror_longs(steps):
    held, mirror = after(steps), after(steps, sign=-1)
    assert (mirror.qty, mirror.cost) == (held.qty.copy_negate(), held.cost.copy_negate())
    assert lots(mirror.synced()) == mirrored(held.synced())


@given(st.lists(st.tuples(QUANTITIES.map(abs), PRICES), min_size=1))
def test_without_sales_the_sync_changes_no_cost(buys):
    held = traded(*buys)
    assert held.synced().cost == held.cost == sum((qty * price for qty, price in buys), D(0))
