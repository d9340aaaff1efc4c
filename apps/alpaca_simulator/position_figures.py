"""What positions and the account are worth, and how the API writes it. Pure: prices are arguments."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from decimal import Context, Decimal, localcontext
from typing import Any, Final

from apps.alpaca_simulator.listings import listing_of
from apps.alpaca_simulator.lots import COSTS, NOTHING, Holding
from apps.alpaca_simulator.wire_text import asset_id, number_text

ACCOUNT_NUMBER: Final = "PASIMULATED"
_EXCHANGES: Final = {"A": "NYSE", "B": "ARCA", "C": "NASDAQ"}
_AVERAGE_PLACES: Final = Decimal("1e-9")
_FRACTIONS: Final = Context(prec=28)
_FRACTION_PLACES: Final = 30


@dataclass(frozen=True, slots=True)
class PositionFigures:
    """One position at its current price and the close of the day before, both in USD a share.

    `unrealized_pl` = quantity * current - cost, `plpc` a fraction of |cost|. The intraday figure counts shares that
    were held at the morning sync from the close, shares opened since from their own average. The day's closing trades
    take the older shares first. How Alpaca splits such a mixed position is not documented.
    """

    symbol: str
    held: Holding
    price: Decimal
    lastday_price: Decimal
    ordered_qty: Decimal = NOTHING
    """The shares (unsigned) that open orders are to close."""

    @property
    def market_value(self) -> Decimal:
        """USD, negative for a short."""
        with localcontext(COSTS):
            return self.held.qty * self.price

    @property
    def lastday_value(self) -> Decimal:
        """What the shares of the morning sync were worth at the last close, in USD."""
        with localcontext(COSTS):
            return self.held.overnight_qty * self.lastday_price

    @property
    def intraday_base(self) -> Decimal:
        """What the intraday profit is measured against, in USD."""
        with localcontext(COSTS):
            older = sum((lot.qty for lot in self.held.older_left()), NOTHING) * self.lastday_price
            return older + sum((lot.cost for lot in self.held.opened_today()), NOTHING)

    def body(self) -> dict[str, Any]:
        """Return the position as the API writes it."""
        with localcontext(COSTS):
            return self._body()

    def _body(self) -> dict[str, Any]:
        qty, cost, value = self.held.qty, self.held.cost, self.market_value
        base = self.intraday_base
        figures = {
            "qty": qty,
            "qty_available": max(abs(qty) - self.ordered_qty, NOTHING).copy_sign(qty),
            "avg_entry_price": (cost / qty).quantize(_AVERAGE_PLACES),
            "market_value": value,
            "cost_basis": cost,
            "unrealized_pl": value - cost,
            "unrealized_intraday_pl": value - base,
            "current_price": self.price,
            "lastday_price": self.lastday_price,
        }
        fractions = {
            "unrealized_plpc": _fraction(value - cost, abs(cost)),
            "unrealized_intraday_plpc": _fraction(value - base, abs(base)),
            "change_today": _fraction(self.price - self.lastday_price, self.lastday_price),
        }
        return {
            "asset_id": asset_id(self.symbol),
            "symbol": self.symbol,
            "exchange": _EXCHANGES[listing_of(self.symbol).tape],
            "asset_class": "us_equity",
            "asset_marginable": True,
            "side": "long" if qty > 0 else "short",
            **{name: number_text(figure) for name, figure in figures.items()},
            **{name: number_text(fraction, _FRACTION_PLACES) for name, fraction in fractions.items()},
        }


def account_body(
    positions: Iterable[PositionFigures], cash: Decimal, last_equity: Decimal, balance_asof: date
) -> dict[str, Any]:
    """Return the account as the API writes it; amounts in USD."""
    values = [figures.market_value for figures in positions]
    long_usd = sum((value for value in values if value > 0), NOTHING)
    short_usd = sum((value for value in values if value < 0), NOTHING)
    equity = cash + long_usd + short_usd
    half = number_text((long_usd - short_usd) / 2)
    none_at_all = dict.fromkeys(
        ("accrued_fees", "pending_transfer_in", "pending_transfer_out", "pending_reg_taf_fees", "sma"), "0"
    )
    never = dict.fromkeys(("trading_blocked", "transfers_blocked", "account_blocked", "trade_suspended_by_user"), False)
    return none_at_all | never | {
        "id": asset_id("account"),
        "account_number": ACCOUNT_NUMBER,
        "status": "ACTIVE",
        "crypto_status": "INACTIVE",
        "currency": "USD",
        "cash": number_text(cash),
        "equity": number_text(equity),
        "last_equity": number_text(last_equity),
        "portfolio_value": number_text(equity),
        "buying_power": number_text(equity * 2),
        "regt_buying_power": number_text(equity * 2),
        "non_marginable_buying_power": number_text(equity),
        "effective_buying_power": number_text(equity * 2),
        "options_buying_power": "0",
        "long_market_value": number_text(long_usd),
        "short_market_value": number_text(short_usd),
        "position_market_value": number_text(long_usd - short_usd),
        "initial_margin": half,
        "maintenance_margin": half,
        "last_maintenance_margin": half,
        "multiplier": "2",
        "shorting_enabled": True,
        "balance_asof": balance_asof.isoformat(),
        "options_approved_level": 0,
        "options_trading_level": 0,
        "crypto_tier": 0,
        "created_at": "2023-01-01T18:20:20.272275Z",
        "admin_configurations": {},
        "user_configurations": None,
    }  # fmt: skip


def _fraction(part: Decimal, whole: Decimal) -> Decimal:
    return _FRACTIONS.divide(part, whole) if whole else NOTHING
