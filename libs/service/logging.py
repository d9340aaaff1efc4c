"""How programs log: our events and those of the libraries through one pipeline, secrets masked, repetition bounded."""

import logging
import re
import sys
import time
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, Final

import structlog

_MASK: Final = "***"
_SECRET_WORDS: Final = frozenset({"key", "secret", "token", "password", "authorization"})
_WORD_BREAK: Final = re.compile(r"[^a-z0-9]+")
_URL_CREDENTIALS: Final = re.compile(r"(?<=://)[^/@\s]+@")

_OWN_LOGGERS: Final = ("apps", "libs", "scripts", "__main__")
# Their INFO lines tell of single requests and of steps that our own events tell better.
_TALKATIVE_LOGGERS: Final = ("uvicorn", "uvicorn.error", "httpx2", "httpcore2", "alembic")

_Event = MutableMapping[str, Any]


def configure_logging(level: str = "INFO", fmt: str = "console") -> None:
    """Send all logs to stderr, as `console` lines or one `json` object a line.

    The libraries never log below INFO: the WebSocket library's DEBUG lines hold the keys we authenticate with.
    """
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                # A traceback as plain text: the richer forms print local variables, secrets included.
                structlog.processors.format_exc_info,
                mask_secrets,
                _renderer(fmt),
            ],
        )
    )
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    root = logging.getLogger()
    for old in [known for known in root.handlers if isinstance(known.formatter, structlog.stdlib.ProcessorFormatter)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(max(logging.INFO, logging.getLevelName(level)))
    for name in _OWN_LOGGERS:
        logging.getLogger(name).setLevel(level)
    for name in _TALKATIVE_LOGGERS:
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLevelName(level)))
    logging.captureWarnings(capture=True)


def mask_secrets(_logger: object, _method: str, event: _Event) -> _Event:
    """Hide what stands under a name with the word key, secret, token, password or authorization, and URL passwords."""
    return {name: _masked(name, value) for name, value in event.items()}


class RateLimitedLog:
    """Tell a repeated fault at once, then at most every `every_s` seconds, with the number left out as `repeated`.

    One object per source of faults. Events are told apart by name, so the memory is bounded by the code.
    """

    def __init__(
        self,
        log: structlog.typing.FilteringBoundLogger,
        every_s: float = 30.0,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log = log
        self._every_s = every_s
        self._now = now
        self._told_at: dict[str, float] = {}
        self._left_out: dict[str, int] = {}

    def warning(self, event: str, **details: object) -> None:
        """Log a fault as a warning, or count it."""
        if self._is_due(event):
            self._log.warning(event, **details, **self._repeated(event))

    def error(self, event: str, **details: object) -> None:
        """Log a fault as an error, or count it."""
        if self._is_due(event):
            self._log.error(event, **details, **self._repeated(event))

    def recovered(self, fault: str, event: str, **details: object) -> None:
        """Log `event` if `fault` was told since the last recovery; the next fault is then told at once again."""
        if self._told_at.pop(fault, None) is not None:
            self._log.info(event, **details, **self._repeated(fault))

    def _is_due(self, event: str) -> bool:
        now = self._now()
        told_at = self._told_at.get(event)
        if told_at is not None and now - told_at < self._every_s:
            self._left_out[event] = self._left_out.get(event, 0) + 1
            return False
        self._told_at[event] = now
        return True

    def _repeated(self, event: str) -> dict[str, int]:
        left_out = self._left_out.pop(event, 0)
        return {"repeated": left_out} if left_out else {}


def _masked(name: str, value: object) -> object:
    if not _SECRET_WORDS.isdisjoint(_WORD_BREAK.split(name.lower())):
        return value if value is None else _MASK
    if isinstance(value, str):
        return _URL_CREDENTIALS.sub(f"{_MASK}@", value)
    if isinstance(value, Mapping):
        return {key: _masked(str(key), inner) for key, inner in value.items()}
    return value


def _renderer(fmt: str) -> structlog.typing.Processor:
    if fmt == "json":
        return structlog.processors.JSONRenderer()
    return structlog.dev.ConsoleRenderer(
        colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback, pad_event_to=30
    )
