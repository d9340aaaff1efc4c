"""Writes the ledger's fills to a CSV file that can be imported again: `python -m scripts.export_fills [FILE]`.

Oldest first, without the voided ones; the file appears whole or not at all. Adjustments have no place in it: how many
stand is said.
Exit codes: 0 done; 1 the file cannot be written; 2 gateway out of reach, or wrong usage.
"""

import argparse
import asyncio
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from libs.service.settings import load_settings
from scripts.fills_csv import MAX_FILLS, write_fills
from scripts.gateway_calls import GatewayError, address
from scripts.local_services import LocalServicesSettings, ask, client

_PAGE: Final = 1000


async def fetch_fills(gateway_url: str, token: str | None) -> list[dict[str, Any]]:
    """Return every fill of the ledger in the order of application, voided ones included. Raises GatewayError."""
    return (await _fetch(gateway_url, token, "fills"))[::-1]


async def count_adjustments(gateway_url: str, token: str | None) -> int:
    """Return how many adjustments count in the ledger. Raises GatewayError."""
    every = await _fetch(gateway_url, token, "adjustments")
    try:
        return sum(one["voided_at"] is None for one in every)
    except (KeyError, TypeError) as error:
        raise GatewayError(f"the gateway lists something else than adjustments: {error}") from error


async def _fetch(gateway_url: str, token: str | None, noun: str) -> list[dict[str, Any]]:
    """Return every entry of a list that comes in pages, in the order of the pages."""
    found: list[dict[str, Any]] = []
    url = first = f"{gateway_url}/api/v1/{noun}?limit={_PAGE}"
    async with client() as http:
        while True:
            answer = await ask(http, url, token)
            if answer.error is not None:
                raise GatewayError(f"{answer.url} {answer.error}")
            body = answer.body or {}
            match body.get(noun), body.get("next", ...):
                case [*entries], None:
                    return [*found, *entries]
                case [_, *_] as entries, str(cursor):
                    found += entries
                    url = f"{first}&after={quote(cursor)}"
                case _:
                    raise GatewayError(f"{answer.url} answered without a page of {noun}")


async def _fetch_all(gateway_url: str, token: str | None) -> tuple[list[dict[str, Any]], int]:
    return await fetch_fills(gateway_url, token), await count_adjustments(gateway_url, token)


def _export(name: str, every: Sequence[Mapping[str, Any]], *, with_voids: bool) -> None:
    try:
        fills = every if with_voids else [fill for fill in every if fill["voided_at"] is None]
        text = write_fills(fills, with_voids=with_voids)
    except (KeyError, TypeError) as error:
        raise GatewayError(f"the gateway lists something else than fills: {error}") from error
    if name == "-":
        _print(text.encode())
    else:
        _write(Path(name).resolve(), text.encode())
    print(f"{len(fills)} fills exported{'' if name == '-' else f' to {name}'}", file=sys.stderr)
    if len(fills) > MAX_FILLS:
        print(f"an import takes {MAX_FILLS:,} at once: split the file before, oldest fills first", file=sys.stderr)


def _tell_adjustments(count: int) -> None:
    if count:
        what = "1 adjustment of the ledger is" if count == 1 else f"{count} adjustments of the ledger are"
        print(
            f"{what} not in the file (splits, renames, dividends, fees, transfers): see them with "
            'make adjust ARGS="list", and record them where the fills go with make adjust',
            file=sys.stderr,
        )


def _write(target: Path, content: bytes) -> None:
    unfinished = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        # A person's trades are nobody else's business.
        with open(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:  # noqa: PTH123  # a mode
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)


def _print(content: bytes) -> None:
    try:
        sys.stdout.buffer.write(content)
        sys.stdout.flush()
    except BrokenPipeError:
        # `… | head` has seen enough: not a fault, and no reason for a second one when Python flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m scripts.export_fills", description="Write the fills as CSV.")
    parser.add_argument("file", metavar="FILE", nargs="?", default="-", help="where to (default: -, standard output)")
    parser.add_argument(
        "--all", action="store_true", help="voided fills too, with when and why: to read, not to import again"
    )
    parser.add_argument("--url", type=address, help="the gateway (default: where the settings say, on this machine)")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    asked = _arguments(arguments)
    settings = load_settings(LocalServicesSettings)
    gateway_url = asked.url or settings.gateway_url
    try:
        every, adjustments = asyncio.run(_fetch_all(gateway_url, settings.token))
        _export(asked.file, every, with_voids=asked.all)
        _tell_adjustments(adjustments)
    except OSError as error:
        print(f"cannot write {asked.file}: {error.strerror or error}", file=sys.stderr)
        return 1
    except GatewayError as error:
        print(f"cannot export: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
