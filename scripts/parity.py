"""Shows our figures beside the account's own, and what every difference is made of: `python -m scripts.parity`.

Exit codes: 0 every cent is explained, 1 some is not, 2 the comparison cannot be had.
"""

import argparse
import asyncio
import os
import sys
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from libs.service.settings import load_settings
from scripts.local_services import LocalServicesSettings, ask, client

ACCOUNT_FIGURES = ("cash", "equity", "day_change", "total")
_WORTH_NAMING = Decimal("0.005")
_LINE = "{:<22} {:>14} {:>13} {:>13} {:>13} {:>13}  {}"


def lines_of(report: Mapping[str, Any]) -> list[str]:
    """Return the table of a parity body as lines of text; differences are ours - the account's."""
    lines = [_LINE.format("symbol", "qty", "unrealized", "difference", "day", "difference", "because")]
    for row in report["positions"]:
        ours, theirs = row["ours"] or {}, row["account"] or {}
        lines.append(
            _LINE.format(
                row["symbol"],
                _text(ours.get("qty", theirs.get("qty"))),
                _text(ours.get("unrealized_pnl")),
                _text(row["unrealized"]["difference"]),
                _text(ours.get("day_pnl")),
                _text(row["day"]["difference"]),
                _causes(row),
            )
        )
    if report["unreadable"]:
        lines.append(f"not readable in the account's answer: {', '.join(map(str, report['unreadable']))}")
    lines += _account_lines(report.get("account"))
    return [*lines, *_conclusion(report)]


def _conclusion(report: Mapping[str, Any]) -> list[str]:
    """Say what is unexplained of the positions and of the account; else that nothing is, and what is not known."""
    unexplained, account = report["unexplained"], report.get("account") or {}
    lines = []
    if unexplained:
        lines.append(f"unexplained: {_text(report['unexplained_usd'])} USD in {', '.join(unexplained)}")
    if left := [f"{name} {account[name]['unexplained']}" for name in _unexplained_figures(report)]:
        lines.append(f"unexplained of the account, in USD: {', '.join(left)}")
    if lines:
        return lines
    unknown = [name for name in ACCOUNT_FIGURES if not account or account[name]["unexplained"] is None]
    but = f", but for what is not known ({', '.join(unknown)})" if unknown else ""
    return [f"every cent is explained{but}; the account was asked at {report['account_at']}"]


def _unexplained_figures(report: Mapping[str, Any]) -> list[str]:
    """Return the comparisons of the account of which a part is unexplained; what is not known is not."""
    account = report.get("account") or {}
    return [name for name in ACCOUNT_FIGURES if account and account[name]["unexplained"]]


def _account_lines(account: Mapping[str, Any] | None) -> list[str]:
    """Return the account as a whole, one comparison a line; what is not explained last."""
    if account is None:
        return ["the account's cash and equity are not known yet"]
    lines = []
    for name in ACCOUNT_FIGURES:
        figure = account[name]
        parts = ", ".join(f"{part} {_text(amount)}" for part, amount in figure["parts"].items()) or "same"
        told = f"difference {_text(figure['difference'])} ({parts})"
        lines.append(
            f"{name}: ours {_text(figure['ours'])}, the account's {_text(figure['theirs'])}, {told}, "
            f"unexplained {_text(figure['unexplained'])}"
        )
    return lines


def has_unexplained(report: Mapping[str, Any]) -> bool:
    """Say whether a part of any comparison is unexplained; what is not known is not."""
    return bool(report["unexplained"] or _unexplained_figures(report))


def _causes(row: Mapping[str, Any]) -> str:
    """Name what makes the differences, the largest first."""
    amounts: dict[str, Decimal] = {}
    for figure in ("unrealized", "day"):
        for cause, amount in row[figure]["parts"].items():
            amounts[cause] = max(amounts.get(cause, Decimal(0)), abs(Decimal(amount)))
    named = [
        cause for cause, amount in sorted(amounts.items(), key=_amount, reverse=True) if amount >= Decimal("0.005")
    ]
    return ", ".join(named) or "same"


def _amount(item: tuple[str, Decimal]) -> Decimal:
    return item[1]


def _text(value: object) -> str:
    return "unknown" if value is None else str(value)


async def _run(settings: LocalServicesSettings, *, as_json: bool) -> int:
    async with client() as http:
        answer = await ask(http, f"{settings.gateway_url}/api/v1/positions/parity", settings.token)
    if answer.error is not None or answer.body is None:
        print(f"parity cannot be had: {answer.url} {answer.error}", file=sys.stderr)
        return 2
    try:
        print(answer.text if as_json else "\n".join(lines_of(answer.body)))
        sys.stdout.flush()
    except BrokenPipeError:
        # `… | head` has seen enough: not a fault, and no reason for a second one when Python flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1 if has_unexplained(answer.body) else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m scripts.parity", description="Compare with the account's figures.")
    parser.add_argument("--json", action="store_true", help="the whole report, for machines")
    given = parser.parse_args(arguments)
    return asyncio.run(_run(load_settings(LocalServicesSettings), as_json=given.json))


if __name__ == "__main__":
    sys.exit(main())
