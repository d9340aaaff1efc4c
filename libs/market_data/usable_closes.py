"""Which of the closes found on disk may be used, and what is said of the others. Pure.

Decides that a close counts only for a session that was over when its file was written, and that of two closes which
contradict each other neither does: not knowing is better than being wrong.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from enum import Enum, auto
from pathlib import Path
from typing import Final, assert_never

SymbolSession = tuple[str, date]

_MOST_NAMED: Final = 5
REMEDY: Final = "python -m scripts.fetch_daily_bars --verify 10 --replace settles it"


@dataclass(frozen=True, slots=True)
class KnownSessions:
    """The calendar around a moment: `completed` sessions with their closing time (aware), and those `coming`.

    `coming` begins with the session that is on, and reaches further than any honest file does.
    """

    completed: Mapping[date, datetime]
    coming: frozenset[date]


@dataclass(frozen=True, slots=True)
class WrittenCloses:
    """What one file says, row by row, and when it was last written (aware; None: unknown)."""

    file: Path
    rows: Iterable[tuple[SymbolSession, Decimal]]
    written_at: datetime | None


@dataclass(frozen=True, slots=True)
class UsableCloses:
    """The closes to believe, USD per share, and one line for each thing that is wrong."""

    closes: dict[SymbolSession, Decimal]
    problems: tuple[str, ...]


class _Verdict(Enum):
    USABLE = auto()
    IGNORED = auto()
    """Too old to be asked for, or of a session that is not over: nothing is wrong with it."""
    NO_SESSION = auto()
    TOO_EARLY = auto()


def usable_closes(files: Iterable[WrittenCloses], sessions: KnownSessions | None) -> UsableCloses:
    """Put the closes of `files` together. Without `sessions` every date counts, whenever it was written."""
    closes: dict[SymbolSession, Decimal] = {}
    came_from: dict[SymbolSession, Path] = {}
    contradictions: dict[SymbolSession, str] = {}
    problems: list[str] = []
    for file in files:
        refused: defaultdict[_Verdict, Counter[date]] = defaultdict(Counter)
        for key, close in file.rows:
            verdict = _judge(key[1], file.written_at, sessions)
            if verdict is not _Verdict.USABLE:
                refused[verdict][key[1]] += 1
            elif closes.setdefault(key, close) == close:
                came_from.setdefault(key, file.file)
            else:
                contradictions[key] = f"{_name(key)}: {closes[key]} in {came_from[key]}, {close} in {file.file}"
        problems += _refusals(file.file, refused)
    for key in contradictions:
        del closes[key]
    return UsableCloses(closes, (*problems, *_told(contradictions)))


def _judge(day: date, written_at: datetime | None, sessions: KnownSessions | None) -> _Verdict:
    if sessions is None:
        return _Verdict.USABLE
    closes_at = sessions.completed.get(day)
    if closes_at is not None:
        is_too_early = written_at is not None and written_at < closes_at
        return _Verdict.TOO_EARLY if is_too_early else _Verdict.USABLE
    is_old = bool(sessions.completed) and day < min(sessions.completed)
    return _Verdict.IGNORED if is_old or day in sessions.coming else _Verdict.NO_SESSION


def _refusals(file: Path, refused: Mapping[_Verdict, Counter[date]]) -> Iterable[str]:
    for verdict, rows in refused.items():
        days = _listed([day.isoformat() for day in sorted(rows)])
        match verdict:
            case _Verdict.NO_SESSION:
                yield f"{file}: {rows.total()} rows are of no session ({days}) and not used"
            case _Verdict.TOO_EARLY:
                yield f"{file}: {rows.total()} closes were written before their session was over ({days}), not used"
            case _Verdict.IGNORED | _Verdict.USABLE:
                pass
            case _:
                assert_never(verdict)


def _told(contradictions: Mapping[SymbolSession, str]) -> Iterable[str]:
    for _, text in sorted(contradictions.items())[:_MOST_NAMED]:
        yield f"{text}; they contradict each other and neither is used; {REMEDY}"
    if len(contradictions) > _MOST_NAMED:
        others = [_name(key) for key in sorted(contradictions)[_MOST_NAMED:]]
        yield f"{len(others)} more closes contradict each other and are not used: {_listed(others)}"


def _name(key: SymbolSession) -> str:
    return f"{key[0]} {key[1]}"


def _listed(texts: list[str]) -> str:
    shown = ", ".join(texts[:_MOST_NAMED])
    return shown if len(texts) <= _MOST_NAMED else f"{shown} and {len(texts) - _MOST_NAMED} more"
