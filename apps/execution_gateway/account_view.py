"""What is known of a mirrored account at one moment, for those who show it. `account_mirror.py` finds it out."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from libs.broker.account_messages import PositionsAnswer
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
class AccountView:
    """What is known of the mirror at one moment. `confirmed_at`: when the account's positions were last taken over.

    `unexplained` are the differences that the last comparison could not explain; `unreadable` what of the account's
    answers could not be read; `unresolved` the activities of which it is not known what they do to the shares.
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
    """What the account said of its positions, the ledger as it stood then, and how the two differed."""

    answer: PositionsAnswer
    book: Book
    at: datetime
    differences: tuple[Difference, ...]
