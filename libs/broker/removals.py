"""Tells from the broker's own words why shares left the account: for nothing, or to another account. Pure."""

import re
from enum import StrEnum
from typing import Final

from libs.broker.executions import Activity

_WORTHLESS: Final = re.compile(
    r"worthless|bankrupt|no value|zero value|without value|valueless|extinguish|writ(e|ten|ing)[ -]?off|charge[ -]?off"
)
_OUTSIDE: Final = re.compile(
    r"\bacats?\b|\bdtcc?\b|\bdwac\b|\bdrs\b|transfer|journal|\bgift|\bdeposit\b|withdraw|escheat|"
    r"(to|from) (another|other) (account|broker)"
)
WORTHLESS_REMOVAL: Final = "WRM"
"""The broker's sub-type of the entry."""


class Removal(StrEnum):
    """Why shares left. `UNSAID`: nothing is said at all; `UNKNOWN`: what is said says nothing to us."""

    WORTHLESS = "worthless"
    OUTSIDE = "outside"
    UNSAID = "unsaid"
    UNKNOWN = "unknown"


def removal_of(activity: Activity) -> Removal:
    """Return why an entry's shares left: by its sub-type, then its description, then its kind."""
    kind, _, suffix = activity.kind.partition(".")
    words = (activity.description or "").lower()
    if kind == "ACATS":
        return Removal.OUTSIDE
    if WORTHLESS_REMOVAL in {suffix, activity.sub_kind} or _WORTHLESS.search(words):
        return Removal.WORTHLESS
    if kind == "JNLS" or _OUTSIDE.search(words):
        return Removal.OUTSIDE
    return Removal.UNKNOWN if words or suffix or activity.sub_kind else Removal.UNSAID


def is_worthless(activity: Activity) -> bool:
    """Say whether shares were removed for nothing: the broker says so, or has the kind `REORG` for nothing else."""
    removal = removal_of(activity)
    return removal is Removal.WORTHLESS or (removal is Removal.UNSAID and activity.kind == "REORG")
