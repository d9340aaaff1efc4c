"""Where a page of the ledger ended, as text that a caller hands back. Pure.

Lists go from the newest back: a place is a time and, among equal times, a sequence number.
"""

import base64
import binascii
from datetime import UTC, datetime
from typing import TypeAlias

from sqlalchemy import ColumnElement, and_, or_

Place: TypeAlias = tuple[datetime, int]


class MalformedCursorError(ValueError):
    """The text is no cursor of ours. Begin again without one."""


def encode_cursor(at: datetime, seq: int) -> str:
    """Return the cursor of the page after the entry at this place."""
    return base64.urlsafe_b64encode(f"{at.isoformat()} {seq}".encode()).decode().rstrip("=")


def decode_cursor(cursor: str) -> Place:
    """Return the place that the page before ended at. Raises MalformedCursorError."""
    try:
        plain = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
        at, _, seq = plain.partition(" ")
        place = datetime.fromisoformat(at), int(seq)
    except (binascii.Error, ValueError) as error:
        raise MalformedCursorError(f"{cursor[:40]!r} is not a cursor of this list") from error
    # We only ever write UTC; other zones could name instants before the year 1.
    if place[0].tzinfo is not UTC or not 0 <= place[1] < 2**63:
        raise MalformedCursorError(f"{cursor[:40]!r} is not a cursor of this list")
    return place


def older_than(place: Place, at: ColumnElement[datetime], seq: ColumnElement[int]) -> ColumnElement[bool]:
    """Return the condition on a table's columns for what comes after `place`, newest first."""
    return or_(at < place[0], and_(at == place[0], seq < place[1]))
