"""Activities of the account for tests, and what the ledger held before them."""

from datetime import date
from decimal import Decimal
from itertools import count

from libs.broker.activity_results import Applied, Known
from libs.broker.executions import Activity
from libs.broker.reconcile import OurPosition

D = Decimal
MONDAY = date(2025, 10, 20)
NUMBERED = count(1)


def activity(kind: str, symbol: str | None = "AAPL", **fields: object) -> Activity:
    numbers = {name: D(str(value)) if isinstance(value, int | float) else value for name, value in fields.items()}
    return Activity(
        **({"activity_id": f"a{next(NUMBERED):05}", "kind": kind, "date": MONDAY, "symbol": symbol} | numbers)
    )


def holding(qty: object = 0, cost: object = 0, **others: object):
    """Hold `qty` shares of AAPL at `cost`, and of each other symbol so many at 10 USD."""
    held = {"AAPL": OurPosition(D(str(qty)), D(str(cost)))}
    held |= {symbol: OurPosition(D(str(number)), D(str(number)) * 10) for symbol, number in others.items()}
    return lambda symbol, _day: held.get(symbol, OurPosition(D(0), D(0)))


NOTHING_HELD = holding()
SPLIT_ID = "activity:split:AAPL:2025-10-20"


def waited(*activities: Activity) -> Known:
    """Say that these were given in an earlier round too."""
    return Known(waited={one.activity_id for one in activities})


def only(applied: Applied):
    """Return the one adjustment, which is all that came of it."""
    (adjustment,) = applied.adjustments
    assert (applied.cash, applied.waiting, applied.undone, applied.unhandled) == ((), (), (), ())
    return adjustment
