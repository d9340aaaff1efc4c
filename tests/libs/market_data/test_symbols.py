import pytest

from libs.market_data.symbols import MalformedSymbolError, is_symbol, parse_symbol


@pytest.mark.parametrize(
    ("text", "symbol"), [("AAPL", "AAPL"), ("brk.b", "BRK.B"), ("BF-A", "BF-A"), ("F", "F"), ("fakepaca", "FAKEPACA")]
)
def test_symbols_are_upper_cased(text: str, symbol: str) -> None:
    assert parse_symbol(text) == symbol


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
        "ßA",
        "ſA",
        "А",
        "A/B",
        "A" * 10_000,
    ],
)
def test_anything_else_is_refused_with_the_remedy(text: str) -> None:
    assert not is_symbol(text)
    with pytest.raises(MalformedSymbolError, match="expected 1 to 6 letters") as refused:
        parse_symbol(text)
    assert len(str(refused.value)) < 250
