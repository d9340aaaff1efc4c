import json
import logging
from collections.abc import Iterator

import pytest
import structlog
from pydantic import SecretStr

from libs.service.logging import RateLimitedLog, configure_logging, mask_secrets


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    yield
    root.setLevel(level)
    root.handlers[:] = handlers
    logging.captureWarnings(capture=False)
    for name in ("apps", "libs", "scripts", "__main__", "uvicorn", "uvicorn.error", "httpx2", "httpcore2", "alembic"):
        logging.getLogger(name).setLevel(logging.NOTSET)
    structlog.reset_defaults()


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_json_lines_of_ours_and_of_libraries(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("INFO", "json")
    structlog.get_logger("libs.x").info("link_up", symbols=3)
    structlog.get_logger("libs.x").debug("hidden")
    logging.getLogger("alpaca.stream").warning("odd %s", "thing", extra={"api_key": "PKABC"})
    ours, theirs = lines(capsys)
    assert (ours["event"], ours["symbols"], ours["level"], ours["logger"]) == ("link_up", 3, "info", "libs.x")
    assert str(ours["timestamp"]).endswith("Z")
    assert (theirs["event"], theirs["level"], theirs["api_key"]) == ("odd thing", "warning", "***")


def test_debug_is_for_our_own_lines_only(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("DEBUG", "json")
    structlog.get_logger("apps.x").debug("ours")
    logging.getLogger("websockets.client").debug('> TEXT {"action":"auth","secret":"s3cr3t"}')
    logging.getLogger("uvicorn.error").info("Started server process")
    assert [line["event"] for line in lines(capsys)] == ["ours"]


def test_a_higher_level_holds_for_all(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("ERROR", "json")
    structlog.get_logger("apps.x").warning("ours")
    logging.getLogger("uvicorn.error").warning("theirs")
    logging.getLogger("uvicorn.error").error("bad")
    assert [line["event"] for line in lines(capsys)] == ["bad"]


def test_configuring_twice_tells_once(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("INFO", "json")
    configure_logging("INFO", "json")
    structlog.get_logger("libs.x").info("once")
    assert len(lines(capsys)) == 1


@pytest.mark.parametrize("fmt", ["console", "json"])
def test_a_traceback_shows_no_variables(capsys: pytest.CaptureFixture[str], fmt: str) -> None:
    configure_logging("INFO", fmt)

    def fail() -> None:
        password = "hunter" + "2"
        raise RuntimeError(len(password))

    try:
        fail()
    except RuntimeError:
        structlog.get_logger("libs.x").exception("it_failed")
    told = capsys.readouterr().err
    assert "RuntimeError: 7" in told
    assert "it_failed" in told
    assert "hunter2" not in told


def test_secrets_are_masked_by_name_and_in_urls() -> None:
    event = {
        "event": "start redis://user:pw@host:6379/0",
        "ALPACA_API_KEY": "PKABC",
        "APCA-API-SECRET-KEY": "s",
        "api_token": "t",
        "password": "p",
        "redis_password": None,
        "secret": SecretStr("x"),
        "headers": {"Authorization": "Bearer t", "accept": "json"},
        "monkey": "business",
        "tokens_left": 4,
        "url": "https://example.com/a@b",
    }
    assert mask_secrets(None, "info", event) == {
        "event": "start redis://***@host:6379/0",
        "ALPACA_API_KEY": "***",
        "APCA-API-SECRET-KEY": "***",
        "api_token": "***",
        "password": "***",
        "redis_password": None,
        "secret": "***",
        "headers": {"Authorization": "***", "accept": "json"},
        "monkey": "business",
        "tokens_left": 4,
        "url": "https://example.com/a@b",
    }


def test_a_repeated_fault_is_told_at_once_then_seldom_with_a_count() -> None:
    now = 0.0
    with structlog.testing.capture_logs() as logs:
        log = RateLimitedLog(structlog.get_logger("x"), every_s=30, now=lambda: now)
        for second in range(65):
            now = float(second)
            log.warning("redis_unavailable", reason="refused")
            if second == 10:
                log.error("other")
        log.recovered("redis_unavailable", "redis_returned")
        log.recovered("redis_unavailable", "redis_returned")
        log.recovered("never_told", "redis_returned")
        log.warning("redis_unavailable", reason="refused")
    told = [(entry["event"], entry.get("repeated")) for entry in logs]
    assert told == [
        ("redis_unavailable", None),
        ("other", None),
        ("redis_unavailable", 29),
        ("redis_unavailable", 29),
        ("redis_returned", 4),
        ("redis_unavailable", None),
    ]
