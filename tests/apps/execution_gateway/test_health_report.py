from datetime import UTC, datetime

from apps.execution_gateway.health_report import GatewayState, health_body, reasons
from apps.execution_gateway.pnl_report import FeedView, MarketSaidBy, MarketView
from libs.market_data.prices import LinkState, MarketPhase, Mode
from libs.market_data.trading_sessions import TradingPhase

NOON = datetime(2025, 10, 20, 16, 0, tzinfo=UTC)


def state(**changes: object) -> GatewayState:
    known = {
        "mode": Mode.PAPER,
        "task_failures": {},
        "pnl": None,
        "database_error": None,
        "redis_address": "redis://127.0.0.1:6379/0",
        "redis_error": None,
        "feed": FeedView(connected=True, state=LinkState.STREAMING, since=NOON),
        "doubted": [],
        "heartbeat_age_s": 1.23456,
        "market": MarketView(MarketPhase.OPEN, TradingPhase.REGULAR, NOON, MarketSaidBy.CALENDAR),
        "closing_prices": 3,
        "bars_problems": ("x is missing",),
    }
    return GatewayState(**{**known, **changes})  # type: ignore[arg-type]


def test_all_is_well():
    body = health_body(state(), "1.0")
    assert (body["status"], body["reasons"]) == ("healthy", [])
    assert body["price_feed"] == {
        "connected": True,
        "state": "streaming",
        "since": "2025-10-20T16:00:00+00:00",
        "lag_seconds": None,
        "clock_offset_seconds": 0.0,
        "heartbeat_age_seconds": 1.235,
    }
    assert body["market"] == {"state": "open", "next_change": "2025-10-20T16:00:00+00:00", "said_by": "calendar"}
    assert body["daily_bars"] == {
        "closing_prices": 3,
        "problems": ["x is missing"],
        "missing": [],
        "missing_symbols": [],
    }


def test_another_system_on_the_server_is_named_and_degrades_nothing():
    body = health_body(state(foreign=["host:2:other"]), "1.0")
    assert body["status"] == "healthy"
    assert body["redis"]["foreign_instances"] == ["host:2:other"]  # type: ignore[index]
    (reason,) = body["reasons"]  # type: ignore[misc]
    assert reason["code"] == "foreign_messages"
    assert all(word in reason["detail"] for word in ("host:2:other", "REDIS_NAMESPACE", "REDIS_URL"))


def test_each_fault_has_its_reason():
    ill = state(
        task_failures={"pnl_feed": "KeyError: 1"},
        database_error="gone",
        redis_error="refused",
        feed=FeedView(connected=False, state=LinkState.UNKNOWN, since=None),
    )
    assert [reason.code for reason in reasons(ill)] == [
        "background_task_died",
        "database_unusable",
        "redis_away",
        "price_feed_silent",
    ]
    assert health_body(ill, "1.0")["status"] == "unhealthy"


def test_a_ledger_that_cannot_be_written_degrades_and_is_still_read():
    why = "the ledger cannot be written, the disk is full (12 bytes left): make room on the disk of /var/lib"
    body = health_body(state(write_error=why), "1.0")
    assert (body["status"], body["reasons"]) == ("degraded", [{"code": "ledger_not_writable", "detail": why}])
    assert body["database"] == {"usable": True, "writable": False, "last_error": why}
    gone = health_body(state(write_error=why, database_error="gone"), "1.0")
    assert [reason["code"] for reason in gone["reasons"]] == ["database_unusable"]  # type: ignore[attr-defined]
    assert gone["database"] == {"usable": False, "writable": False, "last_error": "gone"}


def test_a_link_that_does_not_stream_degrades():
    waiting = state(feed=FeedView(connected=False, state=LinkState.BACKING_OFF, since=NOON), heartbeat_age_s=None)
    assert [reason.code for reason in reasons(waiting)] == ["price_feed_not_streaming"]
    assert health_body(waiting, "1.0")["status"] == "degraded"


def test_doubted_prices_degrade():
    doubting = state(doubted=["AAPL", "MSFT"])
    (reason,) = reasons(doubting)
    assert reason.code == "prices_doubted"
    assert reason.detail.endswith("AAPL, MSFT")
    assert health_body(doubting, "1.0")["status"] == "degraded"


def test_a_ledger_that_took_too_long_degrades_while_its_database_answers():
    slow = state(ledger_error="the ledger's database did not answer within 2 s")
    assert [(reason.code, reason.health) for reason in reasons(slow)] == [("ledger_slow", "degraded")]
    gone = state(ledger_error="the ledger's database did not answer within 2 s", database_error="gone")
    assert [reason.code for reason in reasons(gone)] == ["database_unusable"]


def test_a_late_stream_and_a_wrong_clock_degrade():
    late = state(
        feed=FeedView(connected=True, state=LinkState.STREAMING, since=NOON, lag_s=900.0, clock_offset_s=-91.4)
    )
    lagging, clock = reasons(late)
    assert (lagging.code, clock.code) == ("stream_lagging", "clock_wrong")
    assert "900 s" in lagging.detail
    assert "91 s ahead of" in clock.detail
    assert health_body(late, "1.0")["status"] == "degraded"
