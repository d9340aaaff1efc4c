from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from libs.market_data.subscriptions import Owner, Subscriptions


def test_each_owner_changes_only_its_own() -> None:
    subscriptions = Subscriptions()
    subscriptions.subscribe(["AAPL", "SPY"])
    subscriptions.replace_positions({"AAPL": Decimal(100)})
    assert subscriptions.owners("AAPL") == [Owner.MANUAL, Owner.POSITIONS]
    subscriptions.unsubscribe(["AAPL", "UNKNOWN"])
    assert subscriptions.owners("AAPL") == [Owner.POSITIONS]
    subscriptions.replace_positions({})
    assert subscriptions.by_priority() == ["SPY"]
    assert "AAPL" not in subscriptions
    assert len(subscriptions) == 1


def test_positions_come_first_by_absolute_cost_then_manual_ones_by_age() -> None:
    subscriptions = Subscriptions()
    subscriptions.subscribe(["OLD"])
    subscriptions.subscribe(["NEW", "OLD"])
    subscriptions.replace_positions({"LONG": Decimal(500), "SHORT": Decimal(-900), "NEW": Decimal(1)})
    assert subscriptions.by_priority() == ["SHORT", "LONG", "NEW", "OLD"]


def test_the_revision_grows_only_with_a_change() -> None:
    subscriptions = Subscriptions()
    subscriptions.subscribe(["AAPL"])
    before = subscriptions.revision
    subscriptions.subscribe(["AAPL"])
    subscriptions.unsubscribe(["MSFT"])
    assert subscriptions.revision == before
    subscriptions.subscribe(["MSFT"])
    assert subscriptions.revision > before


@given(
    st.lists(
        st.tuples(st.sampled_from(["subscribe", "unsubscribe", "positions"]), st.sets(st.sampled_from("ABCDEF"))),
        max_size=20,
    )
)
def test_wanted_is_the_union_of_what_the_owners_want(steps: list[tuple[str, set[str]]]) -> None:
    subscriptions, manual, positions = Subscriptions(), set[str](), set[str]()
    for action, symbols in steps:
        if action == "subscribe":
            subscriptions.subscribe(symbols)
            manual |= symbols
        elif action == "unsubscribe":
            subscriptions.unsubscribe(symbols)
            manual -= symbols
        else:
            subscriptions.replace_positions(dict.fromkeys(symbols, Decimal(1)))
            positions = symbols
        wanted = subscriptions.by_priority()
        assert len(wanted) == len(set(wanted)) == len(subscriptions)
        assert set(wanted) == manual | positions
