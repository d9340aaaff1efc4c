"""What is known of a mirrored account at one moment, for those who show it. `account_mirror.py` finds it out."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from apps.execution_gateway.ledger_facts import LedgerFacts
from libs.broker.account_messages import AccountSummary, PositionsAnswer
from libs.broker.account_parity import AccountCircumstances
from libs.broker.activity_results import Unhandled
from libs.broker.executions import Unreadable
from libs.broker.reconcile import Difference
from libs.market_data.prices import LinkState
from libs.portfolio.book import Book


class MirrorHealth(StrEnum):
    """How well the account is known."""

    STARTING = "starting"
    CATCHING_UP = "catching_up"
    IN_STEP = "in_step"
    UNREACHABLE = "unreachable"
    REFUSED = "refused"
    OTHER_ACCOUNT = "other_account"


@dataclass(frozen=True, slots=True)
class OpeningBalance:
    """The cash, in USD, that no activity names; what it was taken from, and whether somebody has confirmed it."""

    amount: Decimal
    source: str
    is_confirmed: bool


@dataclass(frozen=True, slots=True)
class WholeAccount:
    """What the account said of its cash and equity beside a reading of its positions, and the ledger's part of it."""

    summary: AccountSummary
    facts: LedgerFacts
    circumstances: AccountCircumstances


@dataclass(frozen=True, slots=True)
class AccountView:
    """What is known of the mirror at one moment. `confirmed_at`: when the account's positions were last taken over.

    `unexplained` are the differences that the last comparison could not explain; `unreadable` what of the account's
    answers could not be read; `unresolved` the activities of which it is not known what they do to the shares.
    `is_history_complete`: the last catch-up left no activity's cash unknown, nor did the first.
    """

    health: MirrorHealth
    account_number: str | None
    confirmed_at: datetime | None
    caught_up_at: datetime | None
    stream: LinkState
    last_error: str | None
    differences: tuple[Difference, ...]
    unreadable: tuple[Unreadable, ...]
    unresolved: tuple[Unhandled, ...] = ()
    opening: OpeningBalance | None = None
    is_history_complete: bool = True

    @property
    def unresolved_symbols(self) -> frozenset[str]:
        """The symbols whose shares are in doubt."""
        return frozenset(one.activity.symbol for one in self.unresolved if one.activity.symbol is not None)

    @property
    def unexplained(self) -> tuple[Difference, ...]:
        """The differences that nothing explains yet."""
        return tuple(one for one in self.differences if not one.is_explained)


@dataclass(frozen=True, slots=True)
class AccountReading:
    """What the account said of its positions, the ledger as it stood then, and how the two differed.

    `whole` is its cash and equity; None when it did not say.
    """

    answer: PositionsAnswer
    book: Book
    at: datetime
    differences: tuple[Difference, ...]
    whole: WholeAccount | None = None
    opening: OpeningBalance | None = None
