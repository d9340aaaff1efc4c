"""Histories of shares that corporate actions move, with what they come to at the end, worked out by hand.

`total` is unrealized + realized + income - fees over the whole ledger: cash in - cash out + market value, less what
shares from outside had cost. Each may be played in any order of the activities, and in as many rounds.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

from libs.broker.executions import Activity
from libs.portfolio.fills import Fill
from tests.support.portfolio import fill

D = Decimal
DAY = date(2025, 10, 20)
NOON = datetime(2025, 10, 20, 16, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class ShareScenario:
    """Trades, activities, marks; and what is held (shares and cost), has been realized and adds up in the end."""

    name: str
    fills: tuple[Fill, ...]
    activities: tuple[Activity, ...]
    marks: Mapping[str, str]
    total: str
    realized: str
    held: Mapping[str, tuple[str, str]] = field(default_factory=dict)


def bought(days_before: int, qty: object, price: object, symbol: str) -> Fill:
    """Trade so many days before noon of the day; sold when negative."""
    at = NOON - timedelta(days=days_before)
    return fill(qty, price, fill_id=f"{symbol}{days_before}{qty}", symbol=symbol, filled_at=at)


def booked(name: str, kind: str, symbol: str, qty: object, price: object = None, **fields: object) -> Activity:
    """Book an activity on the day."""
    numbers = {key: D(str(value)) if isinstance(value, int | float) else value for key, value in fields.items()}
    exact_price = None if price is None else D(str(price))
    return Activity(name, kind, DAY, symbol, qty=D(str(qty)), price=exact_price, **numbers)  # type: ignore[arg-type]


ADD, REMOVE = "ADD, cost basis adjustment", "REMOVE, cost basis adjustment"

SPUN_OFF = ShareScenario(
    "spin-off",
    (bought(5, 100, "22.276", "SEM"),),
    (
        booked("1", "SPIN", "CON", "80.6971", "12.8328"),
        booked("2", "SPIN", "SEM", 100, "11.9203", description=ADD),
        booked("3", "SPIN", "SEM", -100, "22.276", description=REMOVE),
    ),
    {"SEM": "11.92", "CON": "12.83"},
    # -2,227.60 + 1,192 + 1,035.343793
    "-0.26",
    "0",
)
SPUN_OFF_AT_OUR_COST = ShareScenario(
    "spin-off at another cost method",
    (bought(4, 100, 10, "SEM"), bought(4, 50, 12, "SEM"), bought(3, 30, 15, "SEM"), bought(2, -120, 14, "SEM")),
    (
        booked("1", "SPIN", "SEM", -60, "12.8333", description=REMOVE),
        booked("2", "SPIN", "SEM", 60, "6.8333", description=ADD),
        booked("3", "SPIN", "CONB", 60, 6),
    ),
    {"SEM": "6", "CONB": "7"},
    # -1,000 - 600 - 450 + 1,680 + 360 + 420
    "410.00",
    # 120 * 14 - 2,050 * 120 / 180
    "313.33",
    # 683.33 in the proportion of 409.998 to 360
    {"SEM": ("60", "363.85"), "CONB": ("60", "319.48")},
)
SHORT_SPUN_OFF = ShareScenario(
    "spin-off of a short",
    (bought(5, -100, "22.276", "SEM"),),
    (
        booked("1", "SPIN", "CON", "-80.6971", "12.8328"),
        booked("2", "SPIN", "SEM", -100, "11.9203", description=ADD),
        booked("3", "SPIN", "SEM", 100, "22.276", description=REMOVE),
    ),
    {"SEM": "11.92", "CON": "12.83"},
    "0.26",
    "0",
)
TWO_CHILDREN = ShareScenario(
    "two companies out of one",
    (bought(5, 10, 100, "OLD"), bought(4, 3, 7, "KID")),
    (
        booked("1", "SPIN", "OLD", -10, 100, description=REMOVE),
        booked("2", "SPIN", "OLD", 10, 50, description=ADD),
        booked("3", "SPIN", "KID", 5, 40),
        booked("4", "SPIN", "BABY", "2.5", 120),
    ),
    {"OLD": "55", "KID": "40", "BABY": "110"},
    # -1,000 - 21 + 550 + 320 + 275
    "124.00",
    "0",
    {"OLD": ("10", "500"), "KID": ("8", "221"), "BABY": ("2.5", "300")},
)
TWO_PARENTS = ShareScenario(
    "two spin-offs on one day",
    (bought(5, 10, 100, "AAA"), bought(5, 10, 30, "BBB")),
    (
        booked("1", "SPIN", "AAA", -10, 100, description=REMOVE),
        booked("2", "SPIN", "AAA", 10, 60, description=ADD),
        booked("3", "SPIN", "AKID", 10, 40),
        booked("4", "SPIN", "BBB", -10, 30, description=REMOVE),
        booked("5", "SPIN", "BBB", 10, 25, description=ADD),
        booked("6", "SPIN", "BKID", 1, 50),
    ),
    {"AAA": "60", "AKID": "41", "BBB": "24", "BKID": "50"},
    "0.00",
    "0",
    {"AAA": ("10", "600"), "AKID": ("10", "400"), "BBB": ("10", "250"), "BKID": ("1", "50")},
)
MERGED = ShareScenario(
    "merger into other shares",
    (bought(5, 100, 10, "OLD"),),
    (
        booked("1", "MA", "OLD", -100, 10, description="OLD into NEW"),
        booked("2", "MA", "NEW", 40, 30, description="OLD into NEW"),
    ),
    {"NEW": "32"},
    "280.00",
    "0",
    {"NEW": ("40", "1000")},
)
MERGED_WITH_CASH = ShareScenario(
    "merger into other shares and cash",
    (bought(5, 100, 10, "OLD"),),
    (
        booked("1", "MA", "OLD", -100, 10, description="OLD into NEW"),
        booked("2", "MA", "NEW", 40, 20, description="OLD into NEW", net_amount=300),
    ),
    {"NEW": "20"},
    # -1,000 + 300 + 800
    "100.00",
    "300",
    {"NEW": ("40", "1000")},
)
MERGED_FOR_CASH = ShareScenario(
    "merger for cash, booked on the day after",
    (bought(5, 10, 100, "OLD"),),
    (
        booked("1", "MA", "OLD", -10, description="OLD, cash merger"),
        Activity("2", "MA", DAY + timedelta(days=1), "OLD", net_amount=D(1500), description="OLD, proceeds"),
    ),
    {},
    "500.00",
    "500",
)
REORGANIZED = ShareScenario(
    "more shares of the same, and cash",
    (bought(5, 100, "6.04", "ABC"),),
    (
        booked("1", "REO", "ABC", -100, "6.04", description=REMOVE),
        booked("2", "REO", "ABC", 500, "1.208", description=ADD, net_amount=995),
    ),
    {"ABC": "1.5"},
    # -604 + 995 + 750
    "1141.00",
    "995",
    {"ABC": ("500", "604")},
)
WORTHLESS = ShareScenario(
    "removed for nothing",
    (bought(5, 200, "1.50", "CLNNW"),),
    (booked("1", "REORG", "CLNNW", -200, net_amount=0, description="Worthless Removal"),),
    {},
    "-300.00",
    "-300",
)
WORTHLESS_SHORT = ShareScenario(
    "a short removed for nothing",
    (bought(5, -200, "1.50", "CLNNW"),),
    (booked("1", "REORG", "CLNNW", 200, net_amount=0, sub_kind="WRM"),),
    {},
    "300.00",
    "300",
)
WORTHLESS_IN_PART = ShareScenario(
    "a part removed for nothing, by journal",
    (bought(5, 200, "1.50", "CLNNW"),),
    (booked("1", "JNLS", "CLNNW", -50, description="Removal of worthless security"),),
    {"CLNNW": "0.01"},
    "-298.50",
    "-75",
)
TRANSFERRED = ShareScenario(
    "transferred out",
    (bought(5, 6, 100, "SYM"),),
    (booked("1", "ACATS", "SYM", -2, description="ACATS out"), booked("2", "JNLS", "SYM", -4)),
    {},
    "0.00",
    "0",
)
STOCK_DIVIDEND = ShareScenario(
    "stock dividend with a rate",
    (bought(5, 100, 10, "SYM"), bought(-1, -112, 9, "SYM")),
    (booked("1", "DIV", "SYM", 12, net_amount=0, per_share_amount=1.12),),
    {},
    "8.00",
    "8",
)
STOCK_DIVIDEND_WITH_FRACTION = ShareScenario(
    "stock dividend, the fraction in cash",
    (bought(5, 105, 10, "SYM"),),
    (
        booked("1", "DIV", "SYM", 12, net_amount=0, per_share_amount=1.12, sub_kind="SDIV"),
        Activity("2", "CIL", DAY, "SYM", net_amount=D("5.40")),
    ),
    {"SYM": "9"},
    # -1,050 + 5.40 + 1,053
    "8.40",
    "5.40",
    {"SYM": ("117", "1050")},
)
DIVIDEND_IN_KIND = ShareScenario(
    "dividend in shares of another company",
    (bought(5, 100, 10, "SYM"),),
    (booked("1", "DIV", "KIND", 3, net_amount=0, per_share_amount=0.3),),
    {"SYM": "10", "KIND": "11"},
    "33.00",
    "0",
    {"SYM": ("100", "1000"), "KIND": ("3", "0")},
)
CASH_DIVIDEND_OF_NOTHING = ShareScenario(
    "a cash dividend that rounds to nothing",
    (bought(5, "0.01", 10, "SYM"),),
    (booked("1", "DIV", "SYM", "0.01", net_amount=0, per_share_amount=0.22),),
    {"SYM": "10"},
    "0.00",
    "0",
    {"SYM": ("0.01", "0.1")},
)

SPLIT_AFTER_A_SALE = ShareScenario(
    "split that is booked under the date of a sale before it",
    (bought(25, 100, 100, "SPL"), bought(0, -10, 1200, "SPL")),
    (booked("1", "SPLIT", "SPL", -90), booked("2", "SPLIT", "SPL", 900)),
    {"SPL": "121"},
    # -10,000 + 12,000 + 900 * 121
    "110900.00",
    "11000",
    {"SPL": ("900", "9000")},
)
SPLIT_BEFORE_A_SALE = ShareScenario(
    "split on the date of a sale after it",
    (bought(25, 100, 100, "SPL"), bought(0, -10, 120, "SPL")),
    (booked("1", "SPLIT", "SPL", -100), booked("2", "SPLIT", "SPL", 1000)),
    {"SPL": "121"},
    # -10,000 + 1,200 + 990 * 121
    "110990.00",
    "1100",
    {"SPL": ("990", "9900")},
)

CALL, HIGHER = "AAPL251219C00400000", "AAPL251219C00800000"
NEW_CALL, NEW_HIGHER = "AAPL251219C00100000", "AAPL251219C00200000"
OPTIONS_ADJUSTED = ShareScenario(
    "option contracts that a split changes, without prices",
    (bought(5, 1, 1000, CALL), bought(4, 1, 800, CALL), bought(3, -1, 950, CALL), bought(3, -2, 300, HIGHER)),
    (
        booked("1", "OPCA", CALL, -1, description="REMOVE"),
        booked("2", "OPCA", HIGHER, 2, description="REMOVE"),
        booked("3", "OPCA", NEW_CALL, 4, description="ADD"),
        booked("4", "OPCA", NEW_HIGHER, -8, description="ADD"),
    ),
    # USD per contract
    {NEW_CALL: "250", NEW_HIGHER: "70"},
    # -1,000 - 800 + 950 + 600 + 1,000 - 560
    "190.00",
    "50",
    {NEW_CALL: ("4", "900"), NEW_HIGHER: ("-8", "-600")},
)
DIVIDEND_ON_OPTIONS = ShareScenario(
    "a dividend on option contracts, told with their number",
    (bought(5, 1, 1000, CALL),),
    (booked("1", "OPCA", CALL, 1, net_amount=30, sub_kind="DIV.CDIV"),),
    {CALL: "1000"},
    "30.00",
    "30",
    {CALL: ("1", "1000")},
)
TRANSFERRED_WITH_ITS_WORTH = ShareScenario(
    "transferred out, with what the shares are worth",
    (bought(5, 6, 100, "SYM"),),
    (booked("1", "ACATS", "SYM", -6, 180, net_amount=-1080),),
    {},
    "0.00",
    "0",
)
RENAMED_ENTRY_BY_ENTRY = ShareScenario(
    "two renamings of as many shares, described entry by entry",
    (bought(5, 100, 10, "OLD"), bought(5, 100, 20, "ODD")),
    (
        booked("1", "NC", "OLD", -100, 10, description="REMOVE, name change"),
        booked("2", "NC", "NEW", 100, 10, description="ADD, name change"),
        booked("3", "NC", "ODD", -100, 20, description="REMOVE, name change"),
        booked("4", "NC", "NIX", 100, 20, description="ADD, name change"),
    ),
    {"NEW": "11", "NIX": "20"},
    "100.00",
    "0",
    {"NEW": ("100", "1000"), "NIX": ("100", "2000")},
)

SHARE_SCENARIOS = (
    OPTIONS_ADJUSTED,
    DIVIDEND_ON_OPTIONS,
    TRANSFERRED_WITH_ITS_WORTH,
    RENAMED_ENTRY_BY_ENTRY,
    SPLIT_AFTER_A_SALE,
    SPLIT_BEFORE_A_SALE,
    SPUN_OFF,
    SPUN_OFF_AT_OUR_COST,
    SHORT_SPUN_OFF,
    TWO_CHILDREN,
    TWO_PARENTS,
    MERGED,
    MERGED_WITH_CASH,
    MERGED_FOR_CASH,
    REORGANIZED,
    WORTHLESS,
    WORTHLESS_SHORT,
    WORTHLESS_IN_PART,
    TRANSFERRED,
    STOCK_DIVIDEND,
    STOCK_DIVIDEND_WITH_FRACTION,
    DIVIDEND_IN_KIND,
    CASH_DIVIDEND_OF_NOTHING,
)
