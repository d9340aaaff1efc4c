import json
from datetime import UTC, date, datetime
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.broker.account_messages import execution_id_of, read_account, read_activities, read_positions
from libs.broker.executions import Activity, Execution
from libs.portfolio.fills import Side
from tests.libs.broker.samples import DIVIDEND, FILL, POSITION

D = Decimal
json_values = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def body(*elements: object) -> bytes:
    return json.dumps(list(elements)).encode()


def one(**changes: object):
    answer = read_positions(body(POSITION | changes))
    assert not answer.unreadable
    return answer.positions[0]


class TestPositions:
    def test_a_position(self) -> None:
        position = one()
        assert (position.symbol, position.asset_class, position.qty) == ("AAPL", "us_equity", 5)
        assert (position.avg_entry_price, position.cost_basis) == (100, 500)
        assert (position.current_price, position.lastday_price) == (120, 119)
        assert (position.unrealized_pl, position.unrealized_intraday_pl, position.market_value) == (100, 5, 600)

    @pytest.mark.parametrize(
        ("qty", "side", "cost", "expected"),
        [
            ("5", "short", "500", (-5, -500)),
            ("-5", "short", "-500", (-5, -500)),
            ("-5", "long", "-500", (5, 500)),
            ("-5", None, "500", (-5, -500)),
            ("5", "sideways", "500", (5, 500)),
            (7, "long", 12.5, (7, D("12.5"))),
            ("0.123456789", "long", "1", (D("0.123456789"), 1)),
        ],
    )
    def test_the_sign_is_the_sides(self, qty, side, cost, expected) -> None:
        position = one(qty=qty, side=side, cost_basis=cost)
        assert (position.qty, position.cost_basis) == expected

    def test_cost_and_entry_price_from_each_other(self) -> None:
        assert one(cost_basis=None, qty="3", avg_entry_price="33.1").cost_basis == D("99.3")
        assert one(avg_entry_price="", qty="4", cost_basis="-10", side="short").avg_entry_price == D("2.5")

    @pytest.mark.parametrize("odd", [None, "", "n/a", "NaN", "Infinity", True, [], {}, "1e999999", "1" * 65])
    def test_what_is_not_told_is_none(self, odd) -> None:
        position = one(market_value=odd, current_price=odd, unrealized_pl=odd, asset_class=odd)
        assert (position.market_value, position.current_price, position.unrealized_pl) == (None, None, None)
        assert position.asset_class in {"unknown", "n/a", "NaN", "Infinity", "1e999999", "1" * 65}

    @pytest.mark.parametrize(
        ("exotic", "symbol"),
        [
            ({"symbol": "BTC/USD", "qty": "lots"}, "BTC/USD"),
            ({"symbol": "X", "qty": "1"}, "X"),
            ({"qty": "1"}, None),
            (None, None),
            (17, None),
            ([], None),
        ],
    )
    def test_one_exotic_holding_costs_itself_alone_and_is_named(self, exotic, symbol) -> None:
        answer = read_positions(body(exotic, POSITION))
        assert [position.symbol for position in answer.positions] == ["AAPL"]
        assert [unreadable.symbol for unreadable in answer.unreadable] == [symbol]
        assert all(symbol is None or unreadable.why.startswith(f"{symbol}: ") for unreadable in answer.unreadable)

    def test_unknown_classes_and_crypto_are_read(self) -> None:
        answer = read_positions(
            body(
                POSITION | {"symbol": "BTC/USD", "asset_class": "crypto", "qty": "0.5"},
                POSITION | {"symbol": "AAPL240614C00202500", "asset_class": "us_option", "market_value": None},
                POSITION | {"symbol": "NESN", "asset_class": "global_equity"},
            )
        )
        assert [position.asset_class for position in answer.positions] == ["crypto", "us_option", "global_equity"]

    def test_a_coin_is_named_as_its_fills_name_it(self) -> None:
        coin = POSITION | {"symbol": "BTCUSD", "asset_class": "crypto"}
        answer = read_positions(body(coin, POSITION | {"symbol": "ODDEX"}, coin | {"symbol": "ETHUSD", "qty": "lots"}))
        assert [position.symbol for position in answer.positions] == ["BTC/USD", "ODDEX"]
        assert [one.symbol for one in answer.unreadable] == ["ETH/USD"]
        both = read_positions(body(coin, coin | {"symbol": "BTC/USD"}))
        assert (both.positions, [one.symbol for one in both.unreadable]) == ((), ["BTC/USD"])

    def test_a_symbol_listed_twice_is_not_believed(self) -> None:
        answer = read_positions(body(POSITION, POSITION | {"qty": "7"}))
        assert (answer.positions, [one.symbol for one in answer.unreadable]) == ((), ["AAPL"])
        assert [one.why for one in answer.unreadable] == ["AAPL: listed more than once"]

    @pytest.mark.parametrize("answer", [b"null", b"{}", b'"[]"', b"<html>", b"", b"[{]", b"\xff"])
    def test_flat_is_said_by_an_empty_list_alone(self, answer) -> None:
        with pytest.raises((msgspec.MsgspecError, ValueError)):
            read_positions(answer)
        assert read_positions(b"[]").positions == ()

    @given(st.dictionaries(st.sampled_from(sorted(POSITION)), json_values))
    def test_nothing_odd_raises_or_is_dropped(self, changes) -> None:
        answer = read_positions(body(POSITION | changes))
        assert len(answer.positions) + len(answer.unreadable) == 1


class TestAccount:
    def test_an_account(self) -> None:
        summary = read_account(
            b'{"id":"1d9e","account_number":"PALPACA_123","status":"ACCOUNT_CLOSED_PENDING","currency":"USD",'
            b'"cash":"122086.5","equity":"123346.11","last_equity":"122011.09751111286868","accrued_fees":"0",'
            b'"long_market_value":"1259.61","short_market_value":null,"balance_asof":"2023-09-27"}'
        )
        assert (summary.account_number, summary.status) == ("PALPACA_123", "ACCOUNT_CLOSED_PENDING")
        assert summary.last_equity == D("122011.09751111286868")
        assert (summary.short_market_value, summary.balance_asof) == (None, date(2023, 9, 27))

    @pytest.mark.parametrize("answer", [b"[]", b"{}", b"null", b'{"account_number":7}', b"x"])
    def test_an_answer_that_names_no_account(self, answer) -> None:
        with pytest.raises(ValueError, match=r"."):
            read_account(answer)


class TestActivities:
    def test_a_fill_and_a_dividend(self) -> None:
        page = read_activities(body(FILL, DIVIDEND))
        assert page.executions == (
            Execution(
                "8efc7b9a-8b2b-4000-9955-d36e7db0df74",
                "904837e3-3b76-47ec-b432-046db621571b",
                "LPCN",
                None,
                Side.BUY,
                D(1),
                D("1.63"),
                D(1),
                datetime(2019, 5, 24, 15, 34, 6, 977000, UTC),
            ),
        )
        assert page.activities == (
            Activity(DIVIDEND["id"], "DIV", date(2019, 8, 1), "T", D(2), D("1.02"), D("0.51"), None, None, "executed"),
        )
        assert (page.last_id, page.count, page.unreadable) == (DIVIDEND["id"], 2, ())

    @pytest.mark.parametrize(
        ("changes", "symbol"),
        [
            ({"symbol": "BTC/USD"}, "BTC/USD"),
            ({"symbol": "BTCUSD"}, "BTC/USD"),  # no class: activities of executions name none
            ({"symbol": "BTCUSD", "asset_class": "crypto"}, "BTC/USD"),
            ({"symbol": "BTCUSD", "order": {"asset_class": "crypto"}}, "BTC/USD"),
        ],
    )
    def test_coins(self, changes, symbol) -> None:
        page = read_activities(body(FILL | changes, DIVIDEND | changes))
        assert [one.symbol for one in (*page.executions, *page.activities)] == [symbol, symbol]

    def test_the_execution_is_the_part_after_the_colons(self) -> None:
        assert execution_id_of("20190524::8efc") == "8efc"
        assert execution_id_of("8efc") == "8efc"
        assert execution_id_of("20190524::") == "20190524::"

    @pytest.mark.parametrize("side", ["sell", "sell_short", "SELL"])
    def test_sides(self, side) -> None:
        assert read_activities(body(FILL | {"side": side})).executions[0].side is Side.SELL

    @pytest.mark.parametrize(
        "changes",
        [{"qty": "-1"}, {"price": "0"}, {"side": "hold"}, {"symbol": ""}, {"transaction_time": "2019-05-24T15:34:06"}],
    )
    def test_a_fill_that_cannot_be_read_says_that_it_may_be_one(self, changes) -> None:
        page = read_activities(body(FILL | changes, FILL))
        assert len(page.executions) == 1
        assert [one.may_be_execution for one in page.unreadable] == [True]

    @pytest.mark.parametrize("odd", ["[" * 5_000 + "]" * 5_000, '{"qty":NaN}', '{"id":"\\ud800"}'])
    def test_an_element_that_no_decoder_passes_over_costs_itself_alone(self, odd) -> None:
        page = read_activities(f"[{json.dumps(FILL)},{odd},{json.dumps(DIVIDEND)}]".encode())
        assert (len(page.executions), len(page.activities), page.count) == (1, 1, 3)
        assert [one.may_be_execution for one in page.unreadable] == [True]
        answer = read_positions(f"[{odd},{json.dumps(POSITION)}]".encode())
        assert ([one.symbol for one in answer.positions], len(answer.unreadable)) == (["AAPL"], 1)

    def test_unreadable_others_and_the_place_to_go_on_from(self) -> None:
        page = read_activities(body(DIVIDEND | {"date": None}, None, {"id": "last", "activity_type": None}))
        assert [one.may_be_execution for one in page.unreadable] == [False, True, True]
        assert (page.last_id, page.count) == ("last", 3)
        assert read_activities(b"[]").last_id is None

    @given(st.dictionaries(st.sampled_from(sorted(FILL | DIVIDEND)), json_values))
    def test_nothing_odd_raises_or_is_dropped(self, changes) -> None:
        page = read_activities(body(FILL | changes))
        assert len(page.executions) + len(page.activities) + len(page.unreadable) == 1
