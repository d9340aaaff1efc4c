"""Imports fills from a CSV file, all of them or none: `python -m scripts.import_fills FILE [--dry-run]`.

Only asks the gateway and shows what it says. What is recorded already counts once, so a file may be imported again.
Exit codes: 0 done, or nothing to import; 1 refused, every fault listed, or some fills are void and count for nothing;
2 gateway out of reach, or wrong usage.
"""

import argparse
import asyncio
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import httpx2
import msgspec

from libs.service.settings import load_settings
from scripts.fills_csv import COLUMNS, MAX_FILE_BYTES, LineFault, Row, read_fills
from scripts.gateway_calls import GatewayError, address, refusal
from scripts.local_services import PATIENCE_S, LocalServicesSettings, client, read_body

_IMPORT_PATIENCE_S: Final = 60.0
"""Longer than the gateway gives itself for the longest list."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """How many fills are new, and how many were recorded before; `void` are the lines of those that were voided.

    `twice` of the repeated are only in the file twice; `twice_lines` are the first of these.
    """

    created: int
    repeated: int
    void: tuple[LineFault, ...] = ()
    twice: int = 0
    twice_lines: tuple[LineFault, ...] = ()


@dataclass(frozen=True, slots=True)
class Refused:
    """Why the gateway takes none of the fills: `faults` by line, `others` more of them; or, of no line, `reason`."""

    faults: tuple[LineFault, ...] = ()
    reason: str | None = None
    others: int = 0


async def send(gateway_url: str, token: str | None, rows: Sequence[Row], *, dry_run: bool) -> Accepted | Refused:
    """Post `rows` as one list. Raises GatewayError."""
    url = f"{gateway_url}/api/v1/fills/import"
    try:
        async with client() as http:
            answer = await http.post(
                url,
                params={"dry_run": "true" if dry_run else "false"},
                content=msgspec.json.encode({"fills": [row.cells for row in rows]}),
                headers={"Authorization": f"Bearer {token}"} if token else {},
                timeout=httpx2.Timeout(_IMPORT_PATIENCE_S, connect=PATIENCE_S),
            )
    except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.InvalidURL) as error:
        raise GatewayError(f"{gateway_url} cannot be reached: {error or type(error).__name__}") from error
    except httpx2.RequestError as error:
        # The fills may have been recorded: a second run counts them once.
        raise GatewayError(f"{url} gave no answer: {error or type(error).__name__}; run this again") from error
    try:
        return read_answer(answer.status_code, read_body(answer.text), rows)
    except ValueError as error:
        raise GatewayError(f"{url} answered {answer.status_code}, but not as a gateway does: {error}") from error


def read_answer(status: int, body: Mapping[str, Any], rows: Sequence[Row]) -> Accepted | Refused:
    """Return what an answer to `rows` says. Raises GatewayError when it says that the gateway cannot be used now.

    Raises ValueError for what no gateway answers.
    """
    match status, body:
        case HTTPStatus.OK, {"created": int(created), "repeated": int(repeated)}:
            twice = _twice_lines(body.get("twice_fills", []), rows)
            return Accepted(
                created, repeated, _void_lines(body.get("void_fills", []), rows), int(body.get("twice", 0)), twice
            )
        case HTTPStatus.OK, _:
            raise ValueError("the counts are missing")
        case ((HTTPStatus.UNPROCESSABLE_ENTITY | HTTPStatus.CONFLICT), {"errors": [{"index": _}, *_] as errors}):
            return Refused(tuple(_fault(error, rows) for error in errors), others=int(body.get("other_errors", 0)))
        case ((HTTPStatus.UNPROCESSABLE_ENTITY | HTTPStatus.REQUEST_ENTITY_TOO_LARGE), _):
            return Refused(reason=refusal(status, body))
        case _:
            raise GatewayError(f"the gateway {refusal(status, body)}")


def _void_lines(listed: object, rows: Sequence[Row]) -> tuple[LineFault, ...]:
    if not isinstance(listed, list):
        raise ValueError("the void fills are no list")  # noqa: TRY004  # of what was answered, not of our own types
    return tuple(_void_line(one, rows) for one in listed)


def _void_line(one: object, rows: Sequence[Row]) -> LineFault:
    match one:
        case {"index": int(index), "fill_id": str(fill_id), "voided_at": str(since)} if 0 <= index < len(rows):
            told = (
                f"{fill_id!r} is VOID since {since} and counts for nothing: to record it again, give it a new fill_id"
            )
            return LineFault(rows[index].line, "fill_id", told)
        case _:
            raise ValueError("a void fill without its place")


def _twice_lines(listed: object, rows: Sequence[Row]) -> tuple[LineFault, ...]:
    if not isinstance(listed, list):
        raise ValueError("the fills listed twice are no list")  # noqa: TRY004  # as above
    return tuple(_twice_line(one, rows) for one in listed)


def _twice_line(one: object, rows: Sequence[Row]) -> LineFault:
    match one:
        case {"index": int(index), "fill_id": str(fill_id), "other_index": int(other)} if (
            0 <= other < index < len(rows)
        ):
            told = f"{fill_id!r} is in the file twice (also in line {rows[other].line}), both the same: it counts once"
            return LineFault(rows[index].line, "fill_id", told)
        case _:
            raise ValueError("a fill listed twice without its places")


def _fault(error: object, rows: Sequence[Row]) -> LineFault:
    match error:
        case {"index": int(index), "detail": str(detail), **others} if 0 <= index < len(rows):
            column, other = others.get("field"), others.get("other_index")
        case _:
            raise ValueError("an error without its place")
    if isinstance(other, int) and 0 <= other < len(rows):
        detail = f"{detail} (the other one: line {rows[other].line})"
    return LineFault(rows[index].line, column if column in COLUMNS else None, detail)


async def _import(name: str, data: bytes, gateway_url: str, token: str | None, *, dry_run: bool) -> int:
    file = read_fills(data)
    if file.faults and not file.rows:
        return _refuse(name, file.faults)
    if not file.rows:
        print(f"nothing to import: {name} holds no fill")
        return 0
    try:
        # With faults of its own the file is refused: the gateway is asked for the others.
        outcome = await send(gateway_url, token, file.rows, dry_run=dry_run or bool(file.faults))
    except GatewayError as error:
        if not file.faults:
            raise
        return _refuse(name, file.faults, f"the rest could not be checked: {error}")
    if isinstance(outcome, Refused):
        faults = [*file.faults, *_others(outcome.faults, file.faults)]
        reason = outcome.reason and f"the gateway {outcome.reason}"
        if outcome.others:
            reason = f"{outcome.others:,} more faults are not listed: correct these first"
        return _refuse(name, faults, reason, others=outcome.others)
    if file.faults:
        return _refuse(name, [*file.faults, *outcome.void])
    return _tell(name, outcome, dry_run=dry_run)


def _others(faults: Iterable[LineFault], known: Iterable[LineFault]) -> list[LineFault]:
    """Return those of the gateway's faults that are not about cells which the file's own faults name already."""
    cells = {(fault.line, fault.column) for fault in known}
    return [fault for fault in faults if (fault.line, fault.column) not in cells]


def _tell(name: str, outcome: Accepted, *, dry_run: bool) -> int:
    for line in (*outcome.void, *outcome.twice_lines):
        print(line, file=sys.stderr)
    more = f", {len(outcome.void)} are void" if outcome.void else ""
    more += f", {outcome.twice} are in the file twice" if outcome.twice else ""
    recorded = outcome.repeated - outcome.twice
    if dry_run:
        told = f"{outcome.created} fills would be imported, {recorded} are recorded already{more} (dry run)"
    else:
        told = f"{outcome.created} fills imported, {recorded} were recorded already{more}"
    print(f"{name}: {told}")
    return 1 if outcome.void else 0


def _refuse(name: str, faults: Iterable[LineFault], reason: str | None = None, *, others: int = 0) -> int:
    in_order = sorted(faults, key=lambda fault: fault.line)
    lines = [str(fault) for fault in in_order] + ([reason] if reason else [])
    print("\n".join(lines), file=sys.stderr)
    count = len(in_order) + others if others else len(lines)
    what = "1 fault" if count == 1 else f"{count} faults"
    print(f"{name}: refused with {what}, nothing was imported", file=sys.stderr)
    return 1


def _read(name: str) -> bytes:
    if name == "-":
        return sys.stdin.buffer.read(MAX_FILE_BYTES + 1)
    with Path(name).open("rb") as file:
        return file.read(MAX_FILE_BYTES + 1)


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.import_fills", description="Import fills from a CSV file, all of them or none."
    )
    parser.add_argument("file", metavar="FILE", help=f"CSV in UTF-8 with the columns {','.join(COLUMNS)}; - for stdin")
    parser.add_argument("--dry-run", action="store_true", help="check everything, record nothing")
    parser.add_argument("--url", type=address, help="the gateway (default: where the settings say, on this machine)")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    asked = _arguments(arguments)
    settings = load_settings(LocalServicesSettings)
    gateway_url = asked.url or settings.gateway_url
    try:
        data = _read(asked.file)
    except OSError as error:
        print(f"cannot read {asked.file}: {error.strerror or error}", file=sys.stderr)
        return 2
    try:
        return asyncio.run(_import(asked.file, data, gateway_url, settings.token, dry_run=asked.dry_run))
    except GatewayError as error:
        print(f"cannot import {asked.file}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
