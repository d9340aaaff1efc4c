import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from libs.market_data.symbols import (
    QUOTE_CURRENCIES,
    MalformedSymbolError,
    is_coin_pair,
    is_symbol,
    normal_symbol,
    parse_symbol,
    spellings,
)

TICKERS = st.from_regex(r"[A-Z][A-Z0-9]{0,5}", fullmatch=True)
SUFFIXES = st.from_regex(r"[A-Z0-9]{1,4}", fullmatch=True)
LETTERS = st.from_regex(r"[A-Z]", fullmatch=True)


@pytest.mark.parametrize(
    ("text", "symbol"),
    [
        ("AAPL", "AAPL"),
        ("F", "F"),
        ("fakepaca", "FAKEPACA"),
        ("brk.b", "BRK.B"),
        ("BRK/B", "BRK.B"),
        ("BRK-B", "BRK.B"),
        ("brk/b", "BRK.B"),
        ("BF-A", "BF.A"),
        ("ABC.WS", "ABC.WS"),
        ("ABC.WS.A", "ABC.WS.A"),
        ("AGM.PR.C", "AGM.PR.C"),
        ("AGM.PR/C", "AGM.PR.C"),
        ("AGM.PR-C", "AGM.PR.C"),
        ("ABC-WS", "ABC-WS"),
        ("ABC-1", "ABC-1"),
        ("BRK.USD", "BRK.USD"),
        ("USD", "USD"),
        ("TUSD", "TUSD"),
        ("SPUSD", "SPUSD"),
        ("USDU", "USDU"),
        ("ABCDEF", "ABCDEF"),
    ],
)
def test_symbols_have_one_form(text: str, symbol: str) -> None:
    assert parse_symbol(text) == normal_symbol(text) == symbol
    assert is_symbol(symbol)
    assert is_symbol(text) == (text == symbol)


@pytest.mark.parametrize(
    ("text", "pair"),
    [
        ("BTC/USD", "BTC/USD"),
        ("btc/usd", "BTC/USD"),
        ("BTC-USD", "BTC/USD"),
        ("ETH/USDC", "ETH/USDC"),
        ("ETH/USDT", "ETH/USDT"),
        ("ETH-BTC", "ETH/BTC"),
        ("BRK/BTC", "BRK/BTC"),
        ("T/USD", "T/USD"),
        ("1INCH/USD", "1INCH/USD"),
        ("USDT/USD", "USDT/USD"),
        ("BTCUSD", "BTC/USD"),
        ("ethusdt", "ETH/USDT"),
        ("AVAXUSDC", "AVAX/USDC"),
        ("ETHBTC", "ETH/BTC"),
        ("USDTUSD", "USDT/USD"),
        ("USDCUSDT", "USDC/USDT"),
        ("1INCHUSD", "1INCH/USD"),
    ],
)
def test_coin_pairs_have_a_slash_and_are_not_subscribed(text: str, pair: str) -> None:
    assert normal_symbol(text) == pair
    assert is_coin_pair(pair)
    assert not is_symbol(pair)
    with pytest.raises(MalformedSymbolError, match="is a coin pair, which is held and valued, but not streamed"):
        parse_symbol(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " AAPL",
        "AAPL ",
        "*",
        "AAPL\r\n",
        "AAPL\n",
        "price:x",
        "TOOLONGX",
        "1AB",
        "BRK.",
        ".B",
        "BRK.TOOLO",
        "ABC.WS.A.B",
        "ABC..A",
        "ABC.WS-AB",
        "ABC-WS.A",
        "ABC-WS-A",
        "ABC/WS",
        "BRK//B",
        "BRK/1",
        "/B",
        "BRK/",
        "AAPL240119C00100000",
        "ßA",
        "ſA",
        "А",
        "BRK/ß",
        "A" * 10_000,
    ],
)
def test_anything_else_is_refused_with_the_remedy(text: str) -> None:
    assert not is_symbol(text)
    assert not is_coin_pair(text)
    with pytest.raises(MalformedSymbolError, match="expected 1 to 6 letters") as refused:
        parse_symbol(text)
    assert len(str(refused.value)) < 250


@given(st.text() | st.from_regex(r"[A-Za-z0-9]{1,7}([./-][A-Za-z0-9]{0,5}){0,3}", fullmatch=True))
def test_the_normal_form_is_its_own_normal_form(text: str) -> None:
    normal = normal_symbol(text)
    assert normal_symbol(normal) == normal
    assert normal_symbol(text.lower()) == normal or not text.isascii()


@given(TICKERS, st.lists(SUFFIXES, max_size=2))
def test_up_to_two_suffixes_can_be_subscribed(ticker: str, suffixes: list[str]) -> None:
    symbol = ".".join([ticker, *suffixes])
    assume(suffixes or len(ticker) < 6)  # six characters may be a coin pair
    assert parse_symbol(symbol.lower()) == symbol


@given(TICKERS, st.lists(SUFFIXES, max_size=1), LETTERS)
def test_a_class_is_one_symbol_however_it_is_written(ticker: str, series: list[str], letter: str) -> None:
    base = ".".join([ticker, *series])
    symbol = f"{base}.{letter}"
    assert {parse_symbol(f"{base}{mark}{letter}") for mark in "./-"} == {symbol}
    assert set(spellings(symbol)) == {f"{base}{mark}{letter}" for mark in "./-"}


@given(TICKERS, st.sampled_from(QUOTE_CURRENCIES))
def test_a_coin_is_one_symbol_however_it_is_written(coin: str, currency: str) -> None:
    pair = f"{coin}/{currency}"
    assert {normal_symbol(f"{coin}{mark}{currency}".lower()) for mark in "/-"} == {pair}
    joined = {f"{coin}{currency}"} if normal_symbol(f"{coin}{currency}") == pair else set()
    assert set(spellings(pair)) == {pair, f"{coin}-{currency}", *joined}
    assert joined or len(coin + currency) < 6 or coin + currency != normal_symbol(coin + currency)


@pytest.mark.parametrize("symbol", ["AAPL", "ABC.WS", "ABC-WS", "AAPL240119C00100000", "BRK.1"])
def test_most_symbols_are_written_one_way(symbol: str) -> None:
    assert spellings(symbol) == [symbol]
