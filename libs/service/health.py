"""The words for how a service is, and how single reasons make up the whole."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import msgspec
from fastapi import Response

from libs.service.problems import Problem


class Health(StrEnum):
    """`degraded` works with less; `unhealthy` needs a person."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNHEALTHY = "unhealthy"


_ORDER = (Health.HEALTHY, Health.DEGRADED, Health.UNHEALTHY)


@dataclass(frozen=True, slots=True)
class Reason:
    """Something that is not as it should be. `code` is stable, for machines; `detail` is a sentence for people.

    `health` is the best the service can be while the reason holds.
    """

    code: str
    detail: str
    health: Health = Health.DEGRADED


def overall(reasons: Iterable[Reason]) -> Health:
    """Return the health that all `reasons` together leave."""
    return max((reason.health for reason in reasons), key=_ORDER.index, default=Health.HEALTHY)


def unhealthy(reasons: Iterable[Reason]) -> list[Reason]:
    """Return those reasons that make a service not ready."""
    return [reason for reason in reasons if reason.health is Health.UNHEALTHY]


def clock_reason(offset_s: float) -> Reason:
    """Return what is wrong with a clock to which `offset_s` seconds must be added to have the account's."""
    way = "behind" if offset_s > 0 else "ahead of"
    return Reason(
        "clock_wrong",
        f"this machine's clock is {abs(offset_s):.0f} s {way} the account's: ages are counted by the account's. "
        "Set the clock (NTP)",
    )


def reason_bodies(reasons: Iterable[Reason]) -> list[dict[str, str]]:
    """Return the reasons as `/health` lists them."""
    return [{"code": reason.code, "detail": reason.detail} for reason in reasons]


def ready_response(blocking: Sequence[Reason]) -> Response:
    """Answer `/health/ready`: 200, or 503 as a problem that lists what stands in the way."""
    if not blocking:
        return Response(msgspec.json.encode({"status": "ready"}), media_type="application/json")
    detail = "; ".join(reason.detail for reason in blocking)
    return Problem(503, "Not Ready", detail, reasons=reason_bodies(blocking)).response()
