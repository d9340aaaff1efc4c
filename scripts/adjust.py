"""Records splits, renames, dividends, fees and transfers: `python -m scripts.adjust split NVDA 10 1 --date 2024-06-10`.

Only asks the gateway, and shows the positions before and after. The same command again is recorded once.
Exit codes: 0 done, or recorded already; 1 refused; 2 gateway out of reach, or wrong usage.
"""

import asyncio
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote

import httpx2
import msgspec

from libs.service.settings import load_settings
from scripts.adjustment_arguments import ADJUSTMENTS, OPENING_BALANCE, Listing, Order, read_command
from scripts.adjustment_lines import adjustment_line, change_lines, fault_lines
from scripts.gateway_calls import GatewayError, refusal
from scripts.local_services import PATIENCE_S, LocalServicesSettings, ask, client, read_body

Rows = Mapping[str, Mapping[str, Any]]

_RECORDING_PATIENCE_S: Final = 10.0
"""Longer than the gateway waits for its database."""
_MOST_LISTED: Final = 1000
_REFUSALS: Final = frozenset(
    {
        HTTPStatus.NOT_FOUND,
        HTTPStatus.CONFLICT,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        HTTPStatus.UNPROCESSABLE_ENTITY,
    }
)


class RefusedError(Exception):
    """The gateway takes the order for wrong; nothing has changed. `lines` say why, for a person."""

    def __init__(self, *lines: str) -> None:
        self.lines = lines
        super().__init__("; ".join(lines))


@dataclass(frozen=True, slots=True)
class Gateway:
    """A gateway to ask: over what, where it is, and the token that it asks for; None: it asks for none."""

    http: httpx2.AsyncClient
    url: str
    token: str | None

    async def read(self, path: str) -> Mapping[str, Any]:
        """Return the body of a good answer. Raises GatewayError."""
        answer = await ask(self.http, f"{self.url}{path}", self.token)
        if answer.body is None or answer.error is not None:
            raise GatewayError(f"{answer.url} {answer.error}")
        return answer.body

    async def post(self, order: Order) -> Mapping[str, Any]:
        """Return the body of a good answer. Raises RefusedError and GatewayError."""
        url = f"{self.url}{order.path}"
        try:
            answer = await self.http.post(
                url,
                content=msgspec.json.encode(order.body),
                headers={"Authorization": f"Bearer {self.token}"} if self.token else {},
                timeout=httpx2.Timeout(_RECORDING_PATIENCE_S, connect=PATIENCE_S),
            )
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.InvalidURL) as error:
            raise GatewayError(f"{self.url} cannot be reached: {error or type(error).__name__}") from error
        except httpx2.RequestError as error:
            # It may have been recorded: a second run counts it once.
            raise GatewayError(f"{url} gave no answer: {error or type(error).__name__}; run this again") from error
        try:
            body = read_body(answer.text)
        except ValueError as error:
            raise GatewayError(f"{url} answered {answer.status_code}, but not as a gateway does: {error}") from error
        return _checked(answer.status_code, body)

    async def positions(self) -> Rows:
        """Return the open positions by symbol. Raises GatewayError."""
        return _by(await self.read("/api/v1/positions"), "positions", "symbol")

    async def adjustments(self, symbol: str | None) -> Rows:
        """Return the newest adjustments of a symbol, or of all, by id. Raises GatewayError."""
        query = f"?limit={_MOST_LISTED}" + ("" if symbol is None else f"&symbol={quote(symbol, safe='')}")
        return _by(await self.read(f"{ADJUSTMENTS}{query}"), "adjustments", "adjustment_id")


def _checked(status: int, body: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return `body` when `status` is good. Raises RefusedError and GatewayError."""
    if status in {HTTPStatus.OK, HTTPStatus.CREATED}:
        return body
    if status not in _REFUSALS:
        raise GatewayError(f"the gateway {refusal(status, body)}")
    raise RefusedError(*(fault_lines(body) or [f"the gateway {refusal(status, body)}"]))


def _by(body: Mapping[str, Any], name: str, key: str) -> Rows:
    rows = body.get(name)
    if not isinstance(rows, list) or not all(isinstance(row, Mapping) and key in row for row in rows):
        raise GatewayError(f"the gateway lists something else than {name}")
    return {str(row[key]): row for row in rows}


async def _show(gateway: Gateway, listing: Listing) -> int:
    rows = await gateway.adjustments(listing.symbol)
    for row in rows.values():
        print(adjustment_line(row))
    if not rows:
        print("no adjustment is recorded" + (f" of {listing.symbol}" if listing.symbol else ""))
    if len(rows) >= _MOST_LISTED:
        print(f"these are the newest {_MOST_LISTED:,}: name a --symbol to see others", file=sys.stderr)
    return 0


async def _carry_out(gateway: Gateway, order: Order) -> int:
    if order.path == OPENING_BALANCE:
        answer = await gateway.post(order)
        print(f"confirmed: the account began with {answer.get('amount')} USD that no activity names")
        return 0
    before = await gateway.positions()
    answer = await gateway.post(order)
    adjustment = _adjustment(answer)
    if answer.get("status") == "repeated":
        return await _tell_repeated(gateway, adjustment)
    print(f"{'void' if 'voided_at' in adjustment else 'recorded'}: {adjustment_line(adjustment)}")
    symbols = [str(adjustment[name]) for name in ("symbol", "new_symbol") if adjustment.get(name) is not None]
    try:
        after = await gateway.positions()
    except GatewayError as error:
        print(f"that is done, but the positions cannot be shown: {error}", file=sys.stderr)
        return 0
    print("\n".join(change_lines(symbols, before, after)))
    return 0


def _adjustment(answer: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the adjustment in an answer: a void's has it in a list. Raises GatewayError."""
    match answer:
        case {"adjustments": [{"adjustment_id": _, "symbol": _} as adjustment]}:
            return adjustment  # type: ignore[no-any-return]
        case {"adjustment_id": _, "symbol": _}:
            return answer
        case _:
            raise GatewayError("the gateway answered with something else than an adjustment")


async def _tell_repeated(gateway: Gateway, adjustment: Mapping[str, Any]) -> int:
    """Say that it stands already; whether it counts, only the list tells."""
    recorded = await gateway.adjustments(str(adjustment["symbol"]))
    row = recorded.get(str(adjustment["adjustment_id"]), adjustment)
    if row.get("voided_at") is not None:
        raise RefusedError(f"void: {adjustment_line(row)}", "to record it again, give it another --id")
    print(f"already recorded: {adjustment_line(row)}")
    return 0


def _show_order(url: str, order: Order) -> int:
    print(f"would post to {url}{order.path} (dry run)")
    print(msgspec.json.encode(order.body).decode())
    return 0


async def _run(url: str, token: str | None, asked: Order | Listing) -> int:
    async with client() as http:
        gateway = Gateway(http, url, token)
        return await (_show(gateway, asked) if isinstance(asked, Listing) else _carry_out(gateway, asked))


def main(arguments: Sequence[str] | None = None, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> int:
    """Run the command and return its exit code."""
    command = read_command(arguments, now())
    settings = load_settings(LocalServicesSettings)
    url = command.url or settings.gateway_url
    try:
        if command.is_dry_run and isinstance(command.asked, Order):
            return _show_order(url, command.asked)
        return asyncio.run(_run(url, settings.token, command.asked))
    except RefusedError as error:
        print("\n".join((*error.lines, "refused, nothing has changed")), file=sys.stderr)
        return 1
    except GatewayError as error:
        print(str(error), file=sys.stderr)
        return 2
    except BrokenPipeError:
        # `… | head` has seen enough: not a fault, and no reason for a second one when Python flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
