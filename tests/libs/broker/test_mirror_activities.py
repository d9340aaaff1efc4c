"""What the mirror passes on of the account's activities: each once, and again when it has become another."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest

from libs.broker.account_messages import ActivitiesPage
from libs.broker.commands import RecordActivity
from libs.broker.executions import Activity
from libs.broker.mirror import CatchUp, Mirror

D = Decimal
NOW = datetime(2025, 10, 20, 15, tzinfo=UTC)
PENDING = Activity("a1", "DIV", date(2025, 10, 20), "AAPL", net_amount=D(1), status="pending")


def rounds(*told: Activity) -> list[list[Activity]]:
    """Let every catch-up show one activity; return what each passed on."""
    mirror, passed = Mirror(NOW), []
    for number, activity in enumerate(told):
        mirror.want_catch_up()
        assert isinstance(mirror.next_request(NOW + timedelta(minutes=number)), CatchUp)
        commands = mirror.take_page(ActivitiesPage((), (activity,), (), activity.activity_id, 1))
        mirror.caught_up()
        passed.append([one.activity for one in commands if isinstance(one, RecordActivity)])
    return passed


def test_an_activity_is_passed_on_once() -> None:
    assert rounds(PENDING, PENDING, replace(PENDING, description="told otherwise")) == [[PENDING], [], []]


def test_it_is_passed_on_again_whenever_its_status_has_changed() -> None:
    executed, canceled = replace(PENDING, status="executed"), replace(PENDING, status="canceled")
    told = (PENDING, executed, executed, canceled, canceled)
    assert rounds(*told) == [[PENDING], [executed], [], [canceled], []]


@pytest.mark.parametrize("field", ["qty", "net_amount", "per_share_amount", "price"])
def test_it_is_passed_on_again_when_a_number_has_changed(field: str) -> None:
    other = replace(PENDING, **{field: D(7)})
    assert rounds(PENDING, other) == [[PENDING], [other]]
