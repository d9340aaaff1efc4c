import pytest

from libs.broker.instruments import canonical_symbol, is_option
from libs.market_data.symbols import is_symbol


@pytest.mark.parametrize("asset_class", [None, "us_option", "us_equity", "unknown"])
@pytest.mark.parametrize(
    "symbol",
    [
        "AAPL260320C00150000",
        "AAPL1260320C00150000",
        "F260320P00012500",
        "GOOGL2260320C00150000",
        "ABCDEF260320C00150000",
    ],
)
def test_an_options_symbol_says_so_by_itself(symbol, asset_class) -> None:
    assert is_option(symbol, asset_class)


@pytest.mark.parametrize(
    "symbol", ["AAPL", "BRK.B", "BTC/USD", "ABCDEF1260320C00150000", "260320C00150000", "AAPL260320X00150000"]
)
def test_another_is_one_only_by_its_class(symbol) -> None:
    assert [is_option(symbol, asset_class) for asset_class in (None, "us_equity", "us_option")] == [False, False, True]


@pytest.mark.parametrize(
    ("symbol", "expected"),
    [
        ("BTCUSD", "BTC/USD"),
        ("ETHUSDT", "ETH/USDT"),
        ("BTCUSDC", "BTC/USDC"),
        ("USDTUSD", "USDT/USD"),
        ("ETHBTC", "ETH/BTC"),
        ("ETH/USD", "ETH/USD"),
        ("USD", "USD"),
        ("BTC", "BTC"),
        ("USDT", "USDT"),
        ("DOGE", "DOGE"),
    ],
)
def test_a_coin_has_its_slash(symbol, expected) -> None:
    assert canonical_symbol(symbol, "crypto") == expected
    assert canonical_symbol(expected, "crypto") == expected
    # Not every source names the class: what has six characters or more cannot be a stock.
    assert {canonical_symbol(symbol, asset_class) for asset_class in (None, "us_equity")} == {expected}
    assert "/" not in expected or not is_symbol(expected)


@pytest.mark.parametrize("asset_class", [None, "us_equity", "us_option", "unheard of"])
@pytest.mark.parametrize(
    ("symbol", "expected"),
    [("BRK/B", "BRK.B"), ("BRK-B", "BRK.B"), ("BRK.B", "BRK.B"), ("brk.b", "BRK.B"), ("BTC-USD", "BTC/USD")],
)
def test_a_class_has_its_dot_whoever_tells_of_it(symbol, expected, asset_class) -> None:
    assert canonical_symbol(symbol, asset_class) == expected
