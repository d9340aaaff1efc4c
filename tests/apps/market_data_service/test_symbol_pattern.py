import re

from hypothesis import given
from hypothesis import strategies as st

from apps.market_data_service.routes import _SYMBOL_PATTERN
from libs.market_data.symbols import MalformedSymbolError, parse_symbol


def is_taken(text: str) -> bool:
    try:
        parse_symbol(text)
    except MalformedSymbolError:
        return False
    return True


@given(st.text("ABUSDCTbtcus1./-", max_size=12) | st.from_regex(_SYMBOL_PATTERN, fullmatch=True))
def test_the_described_symbols_are_the_ones_that_are_taken(text: str) -> None:
    assert (re.search(_SYMBOL_PATTERN, text) is not None and "\n" not in text) == is_taken(text)
