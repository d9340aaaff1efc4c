"""Which HTTP answer each of the gateway's own errors becomes; all others are answered in `libs/service/problems.py`."""

from collections.abc import Callable
from typing import Any, Final, TypeVar

from fastapi import FastAPI, Request, Response

from apps.execution_gateway.adjustment_ledger import AdjustmentConflictError, AdjustmentNotFoundError
from apps.execution_gateway.database import BookUnavailableError
from apps.execution_gateway.input_fields import InvalidInputError
from apps.execution_gateway.ledger import (
    FillConflictError,
    FillNotFoundError,
    MirroredAccountError,
)
from apps.execution_gateway.page_cursor import MalformedCursorError
from apps.execution_gateway.parity_report import NoAccountError
from apps.execution_gateway.pnl_feed import TooManyReadersError
from libs.market_data.alpaca_rest import AlpacaRestError
from libs.service.overload import RETRY_AFTER_S, OverloadedError
from libs.service.problems import Problem, standard_problem

RETRY_AFTER: Final = {"Retry-After": str(RETRY_AFTER_S)}

_Error = TypeVar("_Error", bound=Exception)


def install_error_handlers(app: FastAPI) -> None:
    """Make the gateway's errors problem bodies."""
    _install(app, InvalidInputError, invalid_input)
    _install(app, MalformedCursorError, malformed_cursor)
    _install(app, FillConflictError, fill_conflict)
    _install(app, FillNotFoundError, not_found)
    _install(app, AdjustmentConflictError, adjustment_conflict)
    _install(app, AdjustmentNotFoundError, not_found)
    _install(app, BookUnavailableError, book_unavailable)
    _install(app, MirroredAccountError, mirrored_account)
    _install(app, NoAccountError, no_account)
    _install(app, AlpacaRestError, account_unreachable)
    _install(app, TooManyReadersError, too_many_readers)
    _install(app, OverloadedError, overloaded)


def invalid_input(error: InvalidInputError) -> Problem:
    """Return a 422 that lists the fields at fault; `body` is the body as a whole, `other_errors` counts the rest."""
    errors = [{"field": fault.field or "body", "problem": fault.message} for fault in error.faults]
    others = {"other_errors": error.others} if error.others else {}
    return standard_problem(422, str(error), errors=errors, **others)


def malformed_cursor(error: MalformedCursorError) -> Problem:
    """Return a 422: the page asked for cannot be told."""
    detail = f"after: {error}; use the `next` of the page before, or leave it out"
    return standard_problem(422, detail, errors=[{"field": "after", "problem": str(error)}])


def fill_conflict(error: FillConflictError) -> Problem:
    """Return a 409 that names what differs: the first recording stands."""
    return standard_problem(
        409, f"{error}; to correct it, void it and record the right one under a new fill_id", fields=error.fields
    )


def adjustment_conflict(error: AdjustmentConflictError) -> Problem:
    """Return a 409 that names what differs: the first recording stands."""
    detail = f"{error}; to correct it, void it and record the right one under a new adjustment_id"
    return standard_problem(409, detail, fields=error.fields)


def not_found(error: LookupError) -> Problem:
    """Return a 404."""
    return standard_problem(404, str(error))


def book_unavailable(error: BookUnavailableError) -> Problem:
    """Return a 503: what cannot be read is not empty."""
    problem = standard_problem(503, str(error))
    problem.headers.update(RETRY_AFTER)
    return problem


def mirrored_account(error: MirroredAccountError) -> Problem:
    """Return a 409: the broker is the truth."""
    return standard_problem(409, str(error))


def no_account(error: NoAccountError) -> Problem:
    """Return a 409: there is nothing to compare with."""
    return standard_problem(409, str(error))


def account_unreachable(error: AlpacaRestError) -> Problem:
    """Return a 503: the account cannot be asked now."""
    problem = standard_problem(503, f"the Alpaca account cannot be asked: {error}")
    problem.headers.update(RETRY_AFTER)
    return problem


def too_many_readers(_error: TooManyReadersError) -> Problem:
    """Return a 503."""
    problem = standard_problem(503, "as many event streams are open as this service will serve; close some first")
    problem.headers.update(RETRY_AFTER)
    return problem


def overloaded(error: OverloadedError) -> Problem:
    """Return a 503 that blames nobody but this service."""
    problem = standard_problem(503, str(error))
    problem.headers.update(RETRY_AFTER)
    return problem


def _install(app: FastAPI, kind: type[_Error], describe: Callable[[_Error], Problem]) -> None:
    async def answer(_request: Request, error: Any) -> Response:
        return describe(error).response()

    app.add_exception_handler(kind, answer)
