"""Decides how well the gateway is, and why not better. Pure: what it judges has been looked up before."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, assert_never

from apps.execution_gateway.account_view import AccountView, MirrorHealth
from apps.execution_gateway.bodies import iso, market_body
from apps.execution_gateway.pnl_report import FeedView, MarketView, RealtimePnl
from libs.broker.activity_results import Unhandled
from libs.market_data.freshness import PriceSource
from libs.market_data.missing_bars import Gap, gap_lines
from libs.market_data.prices import LinkState, Mode
from libs.portfolio.rounding import plain_number
from libs.service.health import Health, Reason, clock_reason, overall, reason_bodies

_ID_SHOWN: Final = 80
_NAMED: Final = 20


@dataclass(frozen=True, slots=True)
class GatewayState:
    """What is known of every part at one moment. While the ledger is unreadable `pnl` is None.

    `account` is None when the positions are the ledger's own; `account_unexplained` are the comparisons with its cash
    and equity that two rounds could not explain. `redis_error` is None while connected. `doubted` are the
    held symbols that the feed does not vouch for, `foreign` the market data processes of other systems on that server.
    `heartbeat_age_s` is None before the first heartbeat. `ledger_error` is why the positions could not be read in time
    from a database that answers, None when they were. `write_error` is why nothing can be recorded, None when it can.
    """

    mode: Mode
    task_failures: Mapping[str, str]
    pnl: RealtimePnl | None
    database_error: str | None
    redis_address: str
    redis_error: str | None
    feed: FeedView
    doubted: Sequence[str]
    heartbeat_age_s: float | None
    market: MarketView
    closing_prices: int
    bars_problems: Sequence[str]
    bars_missing: Sequence[Gap] = ()
    account: AccountView | None = None
    account_unexplained: Sequence[str] = ()
    ledger_error: str | None = None
    write_error: str | None = None
    foreign: Sequence[str] = ()


def reasons(state: GatewayState) -> list[Reason]:
    """Return all that is not as it should be."""
    found = [
        Reason("background_task_died", f"the task {name} has died: {why}", Health.UNHEALTHY)
        for name, why in state.task_failures.items()
    ]
    found += _ledger_reasons(state)
    if state.account is not None:
        found += account_reasons(state.account)
    if state.account_unexplained:
        named = ", ".join(state.account_unexplained)
        found.append(
            Reason(
                "account_unexplained",
                f"the ledger does not close on the account ({named}): see /api/v1/positions/parity or make parity",
            )
        )
    if state.pnl is not None and (unclassified := state.pnl.report.totals.unclassified):
        named = "; ".join(
            f"{one.symbol or 'account'} {one.kind} {one.activity} of {one.amount:f} USD on {one.date}"
            for one in unclassified[:_NAMED]
        )
        more = "" if len(unclassified) <= _NAMED else f" and {len(unclassified) - _NAMED} more"
        remedy = 'classify it: make adjust ARGS="classify ACTIVITY income|fee|realized|outside"'
        found.append(Reason("account_unclassified", f"cash of an unknown kind is in no total: {named}{more}; {remedy}"))
    if state.redis_error is not None:
        found.append(Reason("redis_away", f"Redis is away: {state.redis_error}; prices come from memory and age"))
    found += _feed_reasons(state.feed, state.mode)
    if state.foreign:
        found.append(_foreign_reason(state.foreign))
    if state.doubted:
        named = ", ".join(state.doubted[:_NAMED])
        found.append(Reason("prices_doubted", f"newer quotes may have been missed, so these are not live: {named}"))
    return found


def _feed_reasons(feed: FeedView, account: Mode) -> list[Reason]:
    found = []
    if feed.state is LinkState.UNKNOWN:
        found.append(Reason("price_feed_silent", "no heartbeat from the market data service within 6 seconds"))
    elif feed.state is LinkState.FOREIGN_MODE:
        found.append(_foreign_mode_reason(feed, account))
    elif feed.state is not LinkState.STREAMING:
        found.append(Reason("price_feed_not_streaming", f"the link to the venue is {feed.state}"))
    if feed.lag_s is not None:
        found.append(
            Reason("stream_lagging", f"quotes come {feed.lag_s:.0f} s after they were made: none of them is live")
        )
    if feed.clock_offset_s:
        found.append(clock_reason(feed.clock_offset_s))
    return found


def _foreign_mode_reason(feed: FeedView, account: Mode) -> Reason:
    return Reason(
        "foreign_mode",
        f"the account's money is {account}, the prices are {feed.mode}: they mark nothing here. Have the market data "
        "service stream from Alpaca (unset ALPACA_STREAM_URL), or give each system its own REDIS_NAMESPACE. To try "
        "things out with such prices, start the gateway with the market data service's ALPACA_STREAM_URL too",
        Health.UNHEALTHY,
    )


def _foreign_reason(foreign: Sequence[str]) -> Reason:
    # Two systems on one server is a normal case, and nothing of the other is believed.
    return Reason(
        "foreign_messages",
        f"this Redis server also carries messages of another market data service ({', '.join(foreign)}), which are not "
        "believed. If it is another system, give each its own REDIS_NAMESPACE; if it is this one's, give both services "
        "the same REDIS_URL, database number included",
        Health.HEALTHY,
    )


def _ledger_reasons(state: GatewayState) -> list[Reason]:
    if state.database_error is not None:
        return [Reason("database_unusable", state.database_error, Health.UNHEALTHY)]
    found = []
    if state.ledger_error is not None:
        found.append(Reason("ledger_slow", f"the positions cannot be shown now: {state.ledger_error}"))
    if state.write_error is not None:
        # Figures are still right: a balancer must not take the gateway out for this.
        found.append(Reason("ledger_not_writable", state.write_error))
    return found


def account_reasons(account: AccountView) -> list[Reason]:
    """Return what is wrong with the mirror of the account."""
    found = []
    why = account.last_error or "not known yet"
    match account.health:
        case MirrorHealth.IN_STEP:
            pass
        case MirrorHealth.REFUSED:
            found.append(Reason("account_refused", f"Alpaca refuses the account's keys: {why}", Health.UNHEALTHY))
        case MirrorHealth.OTHER_ACCOUNT:
            found.append(Reason("account_is_another", why, Health.UNHEALTHY))
        case MirrorHealth.UNREACHABLE:
            found.append(Reason("account_unreachable", f"the account cannot be asked: {why}"))
        case MirrorHealth.STARTING | MirrorHealth.CATCHING_UP:
            found.append(Reason("account_not_in_step", "executions of the account may be missing still"))
        case _:
            assert_never(account.health)
    if account.unresolved:
        named = "; ".join(_unresolved(one) for one in account.unresolved[:_NAMED])
        found.append(
            Reason(
                "activities_unresolved",
                f"it is not known what these activities of the account do to its shares ({named}); the positions are "
                "taken from the account when they stay different",
            )
        )
    if account.unexplained:
        named = ", ".join(one.symbol for one in account.unexplained[:_NAMED])
        found.append(Reason("account_differs", f"the account's positions differ from ours, unexplained: {named}"))
    found += _cash_reasons(account)
    if account.unreadable:
        named = "; ".join(one.why for one in account.unreadable[:3])
        found.append(Reason("account_unreadable", f"parts of the account's answers cannot be read: {named}"))
    return found


def _cash_reasons(account: AccountView) -> list[Reason]:
    found = []
    if not account.is_history_complete:
        found.append(
            Reason(
                "account_history_incomplete",
                "the account's activities could not all be read with their dates and amounts, so its cash and total "
                "are not compared; when the broker has mended them, restart the gateway: it then asks for all again",
            )
        )
    if account.opening is not None and not account.opening.is_confirmed:
        amount, source = account.opening.amount, account.opening.source
        told = (
            f"{amount:f} USD of cash that no activity names, taken from {source}, is assumed to be the opening balance"
        )
        remedy = f'confirm it: make adjust ARGS="opening-balance {amount:f}"'
        found.append(Reason("account_opening_assumed", f"{told}; {remedy}"))
    return found


def _unresolved(one: Unhandled) -> str:
    activity = one.activity
    return f"{activity.symbol or 'no symbol'}, {activity.kind} {activity.activity_id[:_ID_SHOWN]}: {one.why}"


def _account(account: AccountView | None) -> dict[str, object] | None:
    if account is None:
        return None
    return {
        "state": account.health,
        "account_number": account.account_number,
        "confirmed_at": iso(account.confirmed_at),
        "caught_up_at": iso(account.caught_up_at),
        "stream": account.stream,
        "last_error": account.last_error,
        "differences": [
            {
                "symbol": one.symbol,
                "reason": one.reason,
                "explained": one.is_explained,
                "qty": plain_number(one.ours_qty),
                "account_qty": None if one.theirs_qty is None else plain_number(one.theirs_qty),
            }
            for one in account.differences[:_NAMED]
        ],
        "unreadable": [one.why for one in account.unreadable[:_NAMED]],
    }


def health_body(state: GatewayState, version: str) -> dict[str, object]:
    """Return the body of `/health`."""
    found = reasons(state)
    age = state.heartbeat_age_s
    return {
        "status": overall(found),
        "version": version,
        "mode": state.mode,
        "redis": {
            "connected": state.redis_error is None,
            "address": state.redis_address,
            "last_error": state.redis_error,
            "foreign_instances": list(state.foreign),
        },
        "database": {
            "usable": state.database_error is None,
            "writable": state.database_error is None and state.write_error is None,
            "last_error": state.database_error or state.write_error,
        },
        "price_feed": {
            "connected": state.feed.connected,
            "state": state.feed.state,
            "since": iso(state.feed.since),
            "lag_seconds": state.feed.lag_s,
            "clock_offset_seconds": round(state.feed.clock_offset_s, 3),
            "heartbeat_age_seconds": None if age is None else round(age, 3),
        },
        "positions": _positions(state),
        "position_source": "ledger" if state.account is None else "alpaca",
        "account": _account(state.account),
        "market": market_body(state.market),
        "daily_bars": {
            "closing_prices": state.closing_prices,
            "problems": list(state.bars_problems),
            "missing": gap_lines(state.bars_missing, sorted({gap.session for gap in state.bars_missing})),
            "missing_symbols": sorted({gap.symbol for gap in state.bars_missing}),
        },
        "reasons": reason_bodies(found),
    }


def _positions(state: GatewayState) -> dict[str, object]:
    known: dict[str, object] = {"doubted": state.doubted}
    if state.pnl is None:
        unknown = dict.fromkeys(("open", "by_price_source", "unpriced", "halted", "suspect", "not_streamable"))
        return {**unknown, **known}
    rows = state.pnl.report.rows
    by_source: dict[str, int] = {}
    for row in rows:
        by_source[row.price_source] = by_source.get(row.price_source, 0) + 1
    # A halt is no fault of anybody here: it is told, and degrades nothing.
    halted = [row.symbol for row in rows if row.price_source is PriceSource.HALTED]
    suspect = [row.symbol for row in rows if row.suspect_since is not None]
    unpriced = state.pnl.report.totals.unpriced
    return {
        "open": len(rows),
        "by_price_source": by_source,
        "unpriced": unpriced,
        "halted": halted,
        "suspect": suspect,
        "not_streamable": [row.symbol for row in rows if not row.streamable],
        **known,
    }
