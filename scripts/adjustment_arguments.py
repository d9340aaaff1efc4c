"""The command line of `scripts.adjust`: what a person may write, and which request to the gateway it stands for. Pure.

Whether the numbers may be recorded, the gateway decides. The default id follows from the content, so that the same
command given twice is one adjustment.
"""

import argparse
import re
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Final, TypeAlias
from urllib.parse import quote

from libs.market_data.symbols import normal_symbol
from libs.portfolio.adjustments import AdjustmentKind
from libs.portfolio.days import NEW_YORK, day_start
from scripts.gateway_calls import address

ADJUSTMENTS: Final = "/api/v1/adjustments"
OPENING_BALANCE: Final = "/api/v1/account/opening-balance"
DEFAULT_REASON: Final = "recorded by command"

_NUMBER: Final = re.compile(r"-?[0-9]+(\.[0-9]+)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Order:
    """One request that changes the ledger: where to post, and what."""

    path: str
    body: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Listing:
    """A request to show what is recorded, of one symbol or (None) of all."""

    symbol: str | None


@dataclass(frozen=True, slots=True)
class Command:
    """What was asked for. `url` None: the gateway that the settings name. With `is_dry_run` nothing is sent."""

    asked: Order | Listing
    url: str | None
    is_dry_run: bool


def read_command(arguments: Sequence[str] | None, now: datetime) -> Command:
    """Return what `arguments` ask for (None: the process's own), seen at `now`.

    Sample: `split NVDA 10 1 --date 2024-06-10`. Raises SystemExit, with usage on standard error, when they are wrong.
    """
    given = _parser().parse_args(arguments)
    match given.command:
        case "list":
            return Command(Listing(given.symbol), given.url, is_dry_run=False)
        case "void":
            order = Order(f"{ADJUSTMENTS}/{quote(given.id, safe='')}/void", {"reason": given.reason})
        case "opening-balance":
            order = Order(OPENING_BALANCE, {"amount": given.amount})
        case "classify":
            order = Order(f"{ADJUSTMENTS}/{quote(given.activity, safe='')}/classify", {"as": given.kind})
        case _:
            order = Order(ADJUSTMENTS, _adjustment(given, now))
    return Command(order, given.url, is_dry_run=given.dry_run)


def default_id(kind: AdjustmentKind, symbol: str, at: datetime, numbers: Sequence[str]) -> str:
    """Return the id of an adjustment that was given none, such as `split:NVDA:2024-06-10`.

    A symbol is split or renamed once at an instant: with other numbers that is a conflict, not a second split.
    """
    told = () if kind in {AdjustmentKind.SPLIT, AdjustmentKind.SYMBOL_CHANGE} else numbers
    return ":".join((kind, symbol, moment(at), *(format(Decimal(number).normalize(), "f") for number in told)))


def moment(at: datetime) -> str:
    """Return an aware time in its shortest form: the date where a New York day begins, else the instant in UTC."""
    here = at.astimezone(NEW_YORK)
    if here.time() == time.min:
        return here.date().isoformat()
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _adjustment(given: Namespace, now: datetime) -> dict[str, str]:
    kind: AdjustmentKind = given.kind
    own = {name: getattr(given, name) for name in _OWN[kind] if getattr(given, name) is not None}
    day = given.date or (None if given.at else now.astimezone(NEW_YORK).date())
    at = given.at if day is None else day_start(day)
    when = {"effective_at": at.isoformat()} if day is None else {"date": day.isoformat()}
    numbers = [own[name] for name in ("qty", "amount") if name in own]
    adjustment_id = given.id or default_id(kind, given.symbol, at, numbers)
    head = {"adjustment_id": adjustment_id, "kind": kind.value, "symbol": given.symbol}
    return head | when | own | {"reason": given.reason}


_OWN: Final = {
    AdjustmentKind.SPLIT: ("ratio_new", "ratio_old", "amount"),
    AdjustmentKind.SYMBOL_CHANGE: ("new_symbol",),
    AdjustmentKind.DIVIDEND: ("amount",),
    AdjustmentKind.FEE: ("amount",),
    AdjustmentKind.CASH_IN_LIEU: ("amount",),
    AdjustmentKind.TRANSFER: ("qty", "amount"),
    AdjustmentKind.INCOME: ("amount",),
    AdjustmentKind.CASH: ("amount",),
    AdjustmentKind.UNCLASSIFIED: ("amount",),
}


_CLASSES: Final = ("income", "fee", "realized", "outside")


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="python -m scripts.adjust",
        description="Record in the ledger what changes a position without a trade; void it; list it.",
        epilog="The same command given twice is one adjustment; for a second one just like it, give --id.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_splits(commands)
    _add_cash(commands)
    _add_transfer(commands)
    void = commands.add_parser("void", parents=[_where(), _dry_run()], help="let an adjustment count no longer")
    void.add_argument("id", metavar="ID", help="as `list` shows it")
    void.add_argument("--reason", required=True, help="why, for those who read the ledger later")
    told = "say what cash of an unknown kind is (outside: none of the P&L)"
    classify = commands.add_parser("classify", parents=[_where(), _dry_run()], help=told)
    classify.add_argument("activity", metavar="ACTIVITY", help="as `/health` and the P&L name it")
    classify.add_argument("kind", metavar="AS", choices=_CLASSES, help=", ".join(_CLASSES))
    told = "confirm the cash that a mirrored account had before its first activity"
    opening = commands.add_parser("opening-balance", parents=[_where(), _dry_run()], help=told)
    opening.add_argument(
        "amount", metavar="USD", type=_number, help="as `/health` and `make parity` show it, or as it was"
    )
    listing = commands.add_parser("list", parents=[_where()], help="show what is recorded, newest first")
    listing.add_argument("--symbol", type=normal_symbol, help="only what touches this symbol")
    return parser


# argparse has no public name for it, and it cannot be subscripted at run time.
_Commands: TypeAlias = "argparse._SubParsersAction[ArgumentParser]"  # noqa: SLF001


def _add_splits(commands: _Commands) -> None:
    split = _recording(commands, "split", AdjustmentKind.SPLIT, "NEW shares for every OLD", needs_time=True)
    split.add_argument("symbol", metavar="SYMBOL", type=normal_symbol)
    split.add_argument("ratio_new", metavar="NEW", type=_number)
    split.add_argument("ratio_old", metavar="OLD", type=_number)
    told = "USD paid per new share for what is left beyond nine decimals (default: at cost)"
    split.add_argument("--cash-price", dest="amount", metavar="USD", type=_number, help=told)
    rename = _recording(commands, "rename", AdjustmentKind.SYMBOL_CHANGE, "everything moves to NEW", needs_time=True)
    rename.add_argument("symbol", metavar="SYMBOL", type=normal_symbol)
    rename.add_argument("new_symbol", metavar="NEW", type=normal_symbol)


def _add_cash(commands: _Commands) -> None:
    dividend = _recording(commands, "dividend", AdjustmentKind.DIVIDEND, "USD received (negative: paid on a short)")
    dividend.add_argument("symbol", metavar="SYMBOL", type=normal_symbol)
    dividend.add_argument("amount", metavar="USD", type=_number)
    fee = _recording(commands, "fee", AdjustmentKind.FEE, "USD paid (negative: refunded)")
    fee.add_argument("amount", metavar="USD", type=_number)
    fee.add_argument("--symbol", required=True, type=normal_symbol, help="the symbol that it is counted to")
    told = "USD received for a fraction that a split had taken"
    cash = _recording(commands, "cash-in-lieu", AdjustmentKind.CASH_IN_LIEU, told)
    cash.add_argument("symbol", metavar="SYMBOL", type=normal_symbol)
    cash.add_argument("amount", metavar="USD", type=_number)


def _add_transfer(commands: _Commands) -> None:
    told = "QTY shares and COST USD moved in (out: both negative)"
    transfer = _recording(commands, "transfer", AdjustmentKind.TRANSFER, told, needs_time=True)
    transfer.add_argument("symbol", metavar="SYMBOL", type=normal_symbol)
    transfer.add_argument("qty", metavar="QTY", type=_number)
    transfer.add_argument("amount", metavar="COST", type=_number)


def _recording(
    commands: _Commands, name: str, kind: AdjustmentKind, told: str, *, needs_time: bool = False
) -> ArgumentParser:
    parser = commands.add_parser(name, parents=[_where(), _dry_run()], help=told, description=f"{name}: {told}.")
    parser.set_defaults(kind=kind)
    times = parser.add_mutually_exclusive_group(required=needs_time)
    default = "" if needs_time else " (default: today)"
    times.add_argument("--date", type=_date, help=f"from the beginning of this day in New York{default}")
    times.add_argument("--at", type=_time, help="from this instant, such as 2024-06-10T14:30:00Z")
    parser.add_argument("--reason", default=DEFAULT_REASON, help="why, for those who read the ledger later")
    parser.add_argument("--id", help="the adjustment's own id (default: made of its content)")
    return parser


def _where() -> ArgumentParser:
    parser = ArgumentParser(add_help=False)
    parser.add_argument("--url", type=address, help="the gateway (default: where the settings say, on this machine)")
    return parser


def _dry_run() -> ArgumentParser:
    parser = ArgumentParser(add_help=False)
    parser.add_argument("--dry-run", action="store_true", help="show what would be sent, send nothing")
    return parser


def _number(text: str) -> str:
    """Return a number as it was written: its digits are the gateway's to judge."""
    if _NUMBER.fullmatch(text) is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no number such as 24.00")
    return text


def _date(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no date such as 2024-06-10") from None


def _time(text: str) -> datetime:
    try:
        at = datetime.fromisoformat(text)
        at.astimezone(NEW_YORK)
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(f"{text!r} is no time such as 2024-06-10T14:30:00Z") from None
    if at.tzinfo is None:
        raise argparse.ArgumentTypeError(f"{text!r} has no zone: write 2024-06-10T14:30:00Z or …-04:00")
    return at
