"""One screen of how everything is: services, link, market, positions with P&L. `python -m scripts.status [--json]`.

Only asks and shows; exit codes: 0 healthy, 1 degraded, 2 down (a service unreachable or unhealthy) or wrong settings.
"""

import argparse
import asyncio
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum
from typing import Any, Final

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from libs.service.settings import load_settings
from scripts.local_services import Answer, LocalServicesSettings, ask, client
from scripts.people_time import UNKNOWN, people_age, people_time
from scripts.pnl_table import mode_banner, mode_words, plain_lines, pnl_view

Body = Mapping[str, Any]

MARKET_DATA: Final = "market data"
GATEWAY: Final = "execution gateway"


class Verdict(IntEnum):
    """How the whole is; the value is the exit code."""

    HEALTHY = 0
    DEGRADED = 1
    DOWN = 2


_VERDICTS: Final = {"healthy": Verdict.HEALTHY, "degraded": Verdict.DEGRADED}
_STYLES: Final = {Verdict.HEALTHY: "green", Verdict.DEGRADED: "yellow", Verdict.DOWN: "bold red"}


@dataclass(frozen=True, slots=True)
class Report:
    """What the services answered at one moment."""

    market_data: Answer
    gateway: Answer
    pnl: Answer
    checked_at: datetime

    @property
    def verdict(self) -> Verdict:
        """The worst of what was found. P&L that cannot be had is at least a degradation."""
        pnl = Verdict.HEALTHY if self.pnl.error is None else Verdict.DEGRADED
        return max(verdict_of(self.market_data), verdict_of(self.gateway), pnl)


def verdict_of(health: Answer) -> Verdict:
    """Return how a service is by its `/health`: unreachable, unreadable and unhealthy are all down."""
    if health.error is not None or health.body is None:
        return Verdict.DOWN
    return _VERDICTS.get(str(health.body.get("status")), Verdict.DOWN)


async def look(settings: LocalServicesSettings) -> Report:
    """Ask both services at once. Never raises for what they answer."""
    async with client() as http:
        market_data, gateway, pnl = await asyncio.gather(
            ask(http, f"{settings.market_data_url}/health", settings.token),
            ask(http, f"{settings.gateway_url}/health", settings.token),
            ask(http, f"{settings.gateway_url}/api/v1/positions/pnl/realtime", settings.token),
        )
    return Report(market_data, gateway, pnl, datetime.now(UTC))


def as_json(report: Report) -> bytes:
    """Return the machine's form. The services' bodies stand in it letter for letter, so no digit is lost."""
    return msgspec.json.encode(
        {
            "status": report.verdict.name.lower(),
            "checked_at": report.checked_at.isoformat(),
            "market_data": _answer_json(report.market_data),
            "execution_gateway": _answer_json(report.gateway),
            "pnl": _answer_json(report.pnl),
        }
    )


def show(report: Report, console: Console) -> None:
    """Print the screen: tables on a terminal, plain lines elsewhere."""
    if console.is_terminal:
        _show_screen(report, console)
    else:
        for line in _lines(report):
            print(line)


def _answer_json(answer: Answer) -> dict[str, object]:
    body = None if answer.body is None or answer.text is None else msgspec.Raw(answer.text.encode())
    return {"url": answer.url, "http_status": answer.status, "error": answer.error, "body": body}


def _show_screen(report: Report, console: Console) -> None:
    if report.pnl.body is None or report.pnl.error is not None:
        console.print(mode_banner(_mode(report)))
    services = Table(title=Text(f"Markstream is {report.verdict.name.lower()}", style=_STYLES[report.verdict]))
    for title in ("Service", "Address", "Status", "Mode", "Why"):
        services.add_column(title, overflow="fold")
    for name, answer in _services(report):
        status = Text(_status(answer), style=_STYLES[verdict_of(answer)])
        services.add_row(name, _address(answer), status, str((answer.body or {}).get("mode", UNKNOWN)), _why(answer))
    console.print(services)
    for line in _facts(report):
        console.print(Text(line))
    if report.pnl.body is not None and report.pnl.error is None:
        console.print(pnl_view(report.pnl.body, console.width))
    else:
        console.print(Text(f"No P&L: {report.pnl.error}", style="bold red"))


def _lines(report: Report) -> list[str]:
    lines = [f"markstream: {report.verdict.name.lower()}"]
    lines += [
        f"{name}: {_status(answer)} {_address(answer)} {_why(answer)}".rstrip() for name, answer in _services(report)
    ]
    lines += _facts(report)
    if report.pnl.body is not None and report.pnl.error is None:
        return lines + plain_lines(report.pnl.body)
    return [*lines, mode_words(_mode(report)), f"no P&L: {report.pnl.error}"]


def _services(report: Report) -> list[tuple[str, Answer]]:
    return [(MARKET_DATA, report.market_data), (GATEWAY, report.gateway)]


def _facts(report: Report) -> list[str]:
    """Return the link's and the market's state in a line each, as far as known."""
    health = report.market_data.body or {}
    lines = []
    link = health.get("link")
    if isinstance(link, Mapping):
        heard = people_age(link.get("last_frame_age_seconds"))
        lines.append(
            f"Link: {link.get('state')} since {people_time(link.get('since'))}; last frame {heard} ago; "
            f"{link.get('reconnects')} reconnects; symbols wanted: {health.get('subscribed_symbols')}"
        )
        if link.get("last_error"):
            lines.append(f"Last error of the link: {_words(link.get('last_error'))}")
    market = health.get("market") or (report.gateway.body or {}).get("market")
    if isinstance(market, Mapping):
        phase, change = market.get("state"), people_time(market.get("next_change"))
        lines.append(f"Market: {phase}, next change {change} (says the {market.get('said_by')})")
    return lines


def _mode(report: Report) -> object:
    for answer in (report.gateway, report.market_data):
        if answer.body is not None and "mode" in answer.body:
            return answer.body["mode"]
    return None


def _status(answer: Answer) -> str:
    return "down" if answer.error is not None else str((answer.body or {}).get("status"))


def _address(answer: Answer) -> str:
    return answer.url.removesuffix("/health")


def _why(answer: Answer) -> str:
    if answer.error is not None:
        return answer.error
    reasons = (answer.body or {}).get("reasons")
    return "; ".join(_words(reason) for reason in reasons) if isinstance(reasons, list) else ""


def _words(reason: object) -> str:
    """Return a reason's sentence; machines' code when it has none."""
    if isinstance(reason, Mapping):
        return str(reason.get("detail") or reason.get("message") or reason.get("code") or dict(reason))
    return str(reason)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m scripts.status", description="Show how everything is.")
    parser.add_argument("--json", action="store_true", help="for machines: the services' bodies as they answered")
    asked = parser.parse_args(arguments)
    return asyncio.run(_run(load_settings(LocalServicesSettings), for_machines=asked.json))


async def _run(settings: LocalServicesSettings, *, for_machines: bool) -> int:
    report = await look(settings)
    try:
        if for_machines:
            print(as_json(report).decode())
        else:
            show(report, Console())
        sys.stdout.flush()
    except BrokenPipeError:
        # `… | head` has seen enough: not a fault, and no reason for a second one when Python flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return int(report.verdict)


if __name__ == "__main__":
    sys.exit(main())
