from datetime import UTC, date, datetime
from decimal import Decimal

import msgspec
import pytest

from libs.market_data.daily_bars_rest import DailyBar, bars_query, read_bars_page

NOW = datetime(2025, 10, 20, 21, 0, 0, 500, tzinfo=UTC)


def test_the_sample() -> None:
    body = (
        b'{"bars":{"AAPL":[{"t":"2022-02-01T05:00:00Z","o":174,"h":174.84,"l":172.31,"c":174.61,'
        b'"v":85998033,"n":732412,"vw":173.703516}]},"next_page_token":"QUFQTHxE"}'
    )
    bar = DailyBar(
        "AAPL", date(2022, 2, 1), Decimal(174), Decimal("174.84"), Decimal("172.31"), Decimal("174.61"), 85998033
    )
    assert read_bars_page(body) == ([bar], "QUFQTHxE")


def test_the_date_is_new_yorks_in_summer_and_winter() -> None:
    def dated(moment: str) -> date:
        body = f'{{"bars":{{"A":[{{"t":"{moment}","o":1,"h":1,"l":1,"c":1,"v":1}}]}},"next_page_token":null}}'
        bars, token = read_bars_page(body.encode())
        assert token is None
        return bars[0].date

    assert dated("2025-07-01T04:00:00Z") == date(2025, 7, 1)
    assert dated("2025-12-01T05:00:00Z") == date(2025, 12, 1)
    assert dated("2025-12-01T00:00:00-05:00") == date(2025, 12, 1)


@pytest.mark.parametrize("body", [b"{}", b'{"bars":null,"next_page_token":null}', b'{"bars":{},"next_page_token":""}'])
def test_no_bars(body: bytes) -> None:
    assert read_bars_page(body) == ([], None)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b'{"bars":[]}',
        b'{"bars":{"A":[{"t":"2025-12-01T05:00:00Z","o":1,"h":1,"l":1,"c":null,"v":1}]}}',
        b'{"bars":{"A":[{"t":"2025-12-01T05:00:00","o":1,"h":1,"l":1,"c":1,"v":1}]}}',
    ],
)
def test_a_page_is_readable_as_a_whole_or_an_error(body: bytes) -> None:
    with pytest.raises(msgspec.MsgspecError):
        read_bars_page(body)


def test_the_question_asks_for_official_unadjusted_bars() -> None:
    query = bars_query(["AAPL", "BRK.B"], date(2025, 10, 1), datetime(2025, 10, 18, tzinfo=UTC), NOW)
    assert query == {
        "symbols": "AAPL,BRK.B",
        "timeframe": "1Day",
        "start": "2025-10-01",
        "end": "2025-10-18T00:00:00Z",
        "adjustment": "raw",
        "feed": "sip",
        "limit": "10000",
        "sort": "asc",
        "asof": "-",
    }


def test_the_question_never_reaches_into_the_last_sixteen_minutes() -> None:
    assert bars_query(["A"], date(2025, 10, 1), NOW, NOW)["end"] == "2025-10-20T20:44:00Z"
