"""The account's cash over HTTP: what somebody classifies or confirms, what health says, and what parity knows."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from pydantic import SecretStr

from apps.alpaca_simulator import trading
from apps.alpaca_simulator.account import Account
from apps.alpaca_simulator.activities import Wanted
from apps.alpaca_simulator.rest_access import RefusedError
from apps.alpaca_simulator.simulator import Simulator
from apps.execution_gateway.account_view import AccountReading
from apps.execution_gateway.settings import GatewaySettings
from tests.apps.execution_gateway.test_account_mirror import HELD, in_step, mirror_settings
from tests.support.clock import NoonClock
from tests.support.gateway import RunningGateway, decode, serving, settings_in
from tests.support.simulator import running_simulator
from tests.support.waiting import eventually

D = Decimal
PNL = "/api/v1/positions/pnl/realtime"
PARITY = "/api/v1/positions/parity"
OPENING = "/api/v1/account/opening-balance"
PROBLEM = "application/problem+json"
BASE = 107_000
"""What the account of HELD began with: 100,000 are left once 100 at 150 are bought and 20 at 400 sold."""

Bodies = list[Any]


@dataclass
class Rounds:
    """What each round of a gateway has left: what the cash lacks, and whether health would name it."""

    gateway: RunningGateway
    seen: list[tuple[bool, bool]] = field(default_factory=list)

    def __post_init__(self) -> None:
        mirror, parity = self.gateway.gateway.mirror, self.gateway.gateway.parity
        assert mirror is not None

        async def note(reading: AccountReading) -> None:
            await parity.take_round(reading)
            last = parity.last()
            account = None if last is None else last.account
            self.seen.append((account is not None and "cash" in account.unexplained, "cash" in parity.persisting))

        mirror.on_reading = note

    async def pass_by(self, count: int) -> None:
        since = len(self.seen)
        await eventually(lambda: len(self.seen) >= since + count, within_s=60)


@asynccontextmanager
async def mirrored(settings: GatewaySettings, simulator: Simulator) -> AsyncIterator[RunningGateway]:
    async with serving(settings, simulator.config.now) as gateway:
        await eventually(lambda: in_step(gateway), within_s=30)
        yield gateway


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with running_simulator(rate=0, positions=HELD, now=NoonClock()) as running:
        yield running


@pytest.fixture
def settings(tmp_path: Path, redis_url: str, simulator: Simulator, database: str) -> GatewaySettings:
    return mirror_settings(tmp_path, redis_url, simulator, database_url=SecretStr(database))


def forget_deposits(simulator: Simulator) -> None:
    """Let the account have the cash that it began with, and no activity that names it, as a paper account does."""
    simulator.account.activities.clear()


async def told(gateway: RunningGateway) -> dict[str, str]:
    return {one["code"]: one["detail"] for one in (await gateway.get("/health"))["reasons"]}


async def post(gateway: RunningGateway, path: str, body: bytes) -> tuple[int, str, Any]:
    answer = await gateway.client.post(path, content=body)
    return answer.status_code, answer.headers["content-type"], decode(answer.content)


async def whole(gateway: RunningGateway) -> Any:
    account = (await gateway.get(PARITY))["account"]
    assert account is not None
    return account


async def closes(gateway: RunningGateway) -> Any:
    """Return the account's parity once the cash is compared and settled."""
    account = await whole(gateway)
    assert account["opening_balance"] is not None
    assert (account["cash"]["unexplained"], "timing" in account["cash"]["parts"]) == (0, False), account["cash"]
    return account


async def unclassified(gateway: RunningGateway) -> Bodies:
    found: Bodies = (await gateway.get(PNL))["unclassified"]
    return found


class TestClassification:
    """`POST /api/v1/adjustments/{activity}/classify`."""

    async def test_cash_of_an_unknown_kind_is_named_until_somebody_classifies_it(
        self, tmp_path: Path, redis_url: str, database: str
    ) -> None:
        flat = running_simulator(rate=0, positions=(), now=NoonClock())
        async with (
            flat as simulator,
            mirrored(
                mirror_settings(tmp_path, redis_url, simulator, database_url=SecretStr(database)), simulator
            ) as gateway,
        ):
            assert "account_unclassified" not in await told(gateway)
            await simulator.desk.move_cash(D(995), "WARP")
            (one,) = await eventually(lambda: unclassified(gateway), within_s=30)
            activity = simulator.account.activities[-1].activity_id
            assert (one["activity"], one["amount"]) == (activity, 995)
            body = await gateway.get(PNL)
            assert (body["complete"], body["total_income"], body["total_realized"]) == (False, 0, 0)
            reason = (await told(gateway))["account_unclassified"]
            assert all(text in reason for text in ("WARP", activity, "995", "make adjust"))
            account = await eventually(lambda: closes(gateway), within_s=30)
            assert account["total"]["parts"]["unclassified"] == -995

            path = f"/api/v1/adjustments/{activity}/classify"
            for kind, total in (("income", "total_income"), ("realized", "total_realized")):
                for _ in range(2):
                    status, _, answer = await post(gateway, path, f'{{"as":"{kind}"}}'.encode())
                    assert (status, answer["status"], answer["amount"]) == (200, "classified", 995)
                body = await gateway.get(PNL)
                assert (body[total], body["unclassified"]) == (995, [])
                assert body["total_income"] + body["total_realized"] == 995, "booked once"
            assert "account_unclassified" not in await told(gateway)
            status, _, _ = await post(gateway, path, b'{"as":"outside"}')
            body = await gateway.get(PNL)
            assert (status, body["total_income"], body["total_realized"]) == (200, 0, 0)

            async def is_outside() -> Any:
                account = await closes(gateway)
                assert account["total"]["parts"].get("cash_from_outside") == -100_995, account["total"]
                return account

            assert "unclassified" not in (await eventually(is_outside, within_s=30))["total"]["parts"]

    async def test_what_is_wrong_is_named_and_changes_nothing(
        self, simulator: Simulator, settings: GatewaySettings
    ) -> None:
        async with mirrored(settings, simulator) as gateway:
            await simulator.desk.move_cash(D(995), "WARP")
            await simulator.desk.pay_dividend("AAPL", D("0.25"))
            await eventually(lambda: unclassified(gateway), within_s=30)
            warp, dividend = (one.activity_id for one in simulator.account.activities[-2:])
            for activity, body, expected, word in (
                (warp, b'{"as":"gift"}', 422, "income, fee, realized, outside"),
                (warp, b'{"as":1}', 422, "as"),
                (warp, b"{}", 422, "as"),
                (warp, b'{"as":"fee","kind":"x"}', 422, "kind"),
                (warp, b"as=fee", 422, "body"),
                ("nobody", b'{"as":"fee"}', 404, "nobody"),
                (dividend, b'{"as":"fee"}', 404, dividend),
                ("x" * 2000, b'{"as":"fee"}', 404, "xxx"),
            ):
                status, kind, answer = await post(gateway, f"/api/v1/adjustments/{activity}/classify", body)
                assert (status, kind, answer["status"]) == (expected, PROBLEM, expected), body
                assert word in str(answer), answer
            assert [one["activity"] for one in await unclassified(gateway)] == [warp]

    async def test_with_a_ledger_of_ones_own_nothing_is_unclassified(self, tmp_path: Path, redis_url: str) -> None:
        async with serving(settings_in(tmp_path, redis_url)) as gateway:
            status, kind, _ = await post(gateway, "/api/v1/adjustments/u1/classify", b'{"as":"fee"}')
            assert (status, kind) == (404, PROBLEM)


class TestOpeningBalance:
    """The cash that no activity names: from where it is taken, that it stays, and who confirms it."""

    async def test_it_is_taken_from_the_portfolio_history_and_assumed_until_confirmed(
        self, simulator: Simulator, settings: GatewaySettings
    ) -> None:
        forget_deposits(simulator)
        async with mirrored(settings, simulator) as gateway:
            account = await eventually(lambda: closes(gateway), within_s=30)
            known = {"amount": BASE, "source": "portfolio_history", "confirmed": False}
            assert account["opening_balance"] == known
            assert account["cash"]["parts"] == {"opening_balance": -BASE}
            reason = (await told(gateway))["account_opening_assumed"]
            assert all(text in reason for text in ("107000", "portfolio_history", "opening-balance 107000"))
            await simulator.desk.move_cash(D(5000))

            async def has_deposit() -> Any:
                account = await closes(gateway)
                # Paid: 15,000 out, 8,000 in, 5,000 deposited.
                assert account["cash"]["ours"] == -2000
                return account

            assert (await eventually(has_deposit, within_s=30))["opening_balance"] == known
        # After a restart it is what it was, whatever the history says by then.
        simulator.account._opening = ()
        async with mirrored(settings, simulator) as gateway:
            assert (await eventually(lambda: closes(gateway), within_s=30))["opening_balance"] == known
            for _ in range(2):
                status, _, answer = await post(gateway, OPENING, b'{"amount":"107000.00"}')
                assert (status, answer) == (200, {"status": "confirmed", "amount": BASE})
            assert "account_opening_assumed" not in await told(gateway)

            async def is_confirmed() -> Any:
                account = await closes(gateway)
                assert account["opening_balance"]["confirmed"], account
                return account

            confirmed = {"amount": BASE, "source": "confirmed", "confirmed": True}
            assert (await eventually(is_confirmed, within_s=30))["opening_balance"] == confirmed
        async with mirrored(settings, simulator) as gateway:
            assert (await eventually(lambda: closes(gateway), within_s=30))["opening_balance"] == confirmed
            assert "account_opening_assumed" not in await told(gateway)

    async def test_without_a_history_it_is_what_was_missing_at_the_first_complete_reading(
        self, tmp_path: Path, redis_url: str, database: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def refuse(_self: object, _request: web.Request) -> web.Response:
            raise RefusedError(404, "no such path")

        monkeypatch.setattr(trading.TradingRest, "_portfolio_history", refuse)
        async with running_simulator(rate=0, positions=HELD, now=NoonClock()) as simulator:
            forget_deposits(simulator)
            settings = mirror_settings(tmp_path, redis_url, simulator, database_url=SecretStr(database))
            known = {"amount": BASE, "source": "first_reading", "confirmed": False}
            async with mirrored(settings, simulator) as gateway:
                assert (await eventually(lambda: closes(gateway), within_s=30))["opening_balance"] == known
                assert "account_opening_assumed" in await told(gateway)
                await simulator.desk.move_cash(D(-300))
            async with mirrored(settings, simulator) as gateway:
                account = await eventually(lambda: closes(gateway), within_s=30)
                # Paid: 15,000 out, 8,000 in, 300 withdrawn.
                assert (account["opening_balance"], account["cash"]["ours"]) == (known, -7300)

    async def test_an_account_whose_activities_name_everything_began_with_nothing(
        self, simulator: Simulator, settings: GatewaySettings
    ) -> None:
        async with mirrored(settings, simulator) as gateway:
            account = await eventually(lambda: closes(gateway), within_s=30)
            assert account["opening_balance"] == {"amount": 0, "source": "activities", "confirmed": True}
            assert "account_opening_assumed" not in await told(gateway)

    async def test_what_is_confirmed_wrongly_is_unexplained_and_can_be_corrected(
        self, simulator: Simulator, settings: GatewaySettings
    ) -> None:
        forget_deposits(simulator)
        async with mirrored(settings, simulator) as gateway:
            await eventually(lambda: closes(gateway), within_s=30)
            assert (await post(gateway, OPENING, b'{"amount":100000}'))[0] == 200

            async def is_unexplained() -> bool:
                # Ours is short of what was confirmed too low.
                return bool((await whole(gateway))["cash"]["unexplained"] == 100_000 - BASE)

            await eventually(is_unexplained, within_s=30)
            assert (await post(gateway, OPENING, b'{"amount":107000}'))[0] == 200
            await eventually(lambda: closes(gateway), within_s=30)

    async def test_what_is_wrong_is_named(self, simulator: Simulator, settings: GatewaySettings) -> None:
        async with mirrored(settings, simulator) as gateway:
            before = await eventually(lambda: closes(gateway), within_s=30)
            for body, word in (
                (b'{"amount":"much"}', "amount"),
                (b'{"amount":null}', "amount"),
                (b'{"amount":1e15}', "amount"),
                (b'{"amount":1.00000000001}', "decimal places"),
                (b"{}", "amount"),
                (b'{"amount":1,"currency":"USD"}', "currency"),
                (b"", "body"),
            ):
                status, kind, answer = await post(gateway, OPENING, body)
                assert (status, kind) == (422, PROBLEM), body
                assert word in str(answer), answer
            assert (await whole(gateway))["opening_balance"] == before["opening_balance"]

    async def test_with_a_ledger_of_ones_own_there_is_nothing_to_confirm(self, tmp_path: Path, redis_url: str) -> None:
        async with serving(settings_in(tmp_path, redis_url)) as gateway:
            status, kind, answer = await post(gateway, OPENING, b'{"amount":1}')
            assert (status, kind) == (409, PROBLEM)
            assert "nothing to confirm: set POSITION_SOURCE=alpaca" in answer["detail"]

    async def test_another_accounts_balance_cannot_be_confirmed(
        self, simulator: Simulator, settings: GatewaySettings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with mirrored(settings, simulator) as gateway:
            known = (await eventually(lambda: closes(gateway), within_s=30))["opening_balance"]
        with monkeypatch.context() as patched:
            patched.setattr("apps.alpaca_simulator.position_figures.ACCOUNT_NUMBER", "PAOTHER")
            async with serving(settings, simulator.config.now) as gateway:
                await eventually(lambda: is_another(gateway), within_s=30)
                status, kind, _ = await post(gateway, OPENING, b'{"amount":1}')
                assert (status, kind) == (503, PROBLEM)
        async with mirrored(settings, simulator) as gateway:
            assert (await eventually(lambda: closes(gateway), within_s=30))["opening_balance"] == known

    async def test_two_gateways_on_one_database_know_one_opening_balance(
        self, simulator: Simulator, settings: GatewaySettings
    ) -> None:
        forget_deposits(simulator)
        # The simulator's trading stream has one place: the other gateway mirrors by REST alone, and is never in step.
        other_serving = serving(settings, simulator.config.now, is_alone=False)
        async with mirrored(settings, simulator) as gateway, other_serving as other:
            await eventually(lambda: closes(gateway), within_s=30)
            await Rounds(other).pass_by(1)
            assert (await post(gateway, OPENING, b'{"amount":107000}'))[0] == 200
            await Rounds(other).pass_by(2)
            for one in (other, gateway):
                assert "account_opening_assumed" not in await told(one)
            assert (await whole(other))["opening_balance"]["confirmed"]


async def is_another(gateway: RunningGateway) -> bool:
    return (await gateway.get("/health"))["account"]["state"] == "other_account"


async def test_only_what_two_rounds_leave_unexplained_is_told_by_health(
    simulator: Simulator, settings: GatewaySettings
) -> None:
    async with mirrored(settings, simulator) as gateway:
        await eventually(lambda: closes(gateway), within_s=30)
        rounds = Rounds(gateway)
        await simulator.desk.move_cash(D(50))
        hidden = simulator.account.activities.pop()

        async def reason() -> str:
            return (await told(gateway)).get("account_unexplained", "")

        assert "cash" in await eventually(reason, within_s=60)
        assert (await whole(gateway))["cash"]["unexplained"] == -50
        first = rounds.seen.index((True, False))
        assert rounds.seen[first + 1] == (True, True), "in the second round, not in the first"
        assert not any(named for _, named in rounds.seen[: first + 1])
        simulator.account.activities.append(hidden)
        await eventually(lambda: closes(gateway), within_s=60)

        async def is_silent() -> bool:
            return not await reason()

        await eventually(is_silent, within_s=60)


def without_date(bodies: Bodies) -> Bodies:
    return [
        {name: value for name, value in one.items() if name != "date" or one["activity_type"] != "CSD"}
        for one in bodies
    ]


def without_amount(bodies: Bodies) -> Bodies:
    return [one | {"net_amount": "n/a"} if one["activity_type"] == "CSD" else one for one in bodies]


def always_the_first_page(bodies: Bodies) -> Bodies:
    return (bodies * 100)[:100]


@pytest.mark.parametrize("spoil", [without_date, without_amount, always_the_first_page])
async def test_with_an_incomplete_history_what_is_unexplained_is_unknown(
    tmp_path: Path,
    redis_url: str,
    simulator: Simulator,
    monkeypatch: pytest.MonkeyPatch,
    spoil: Callable[[Bodies], Bodies],
) -> None:
    """Also rounds later, when the activity that could not be read is no longer asked for."""
    settings = mirror_settings(tmp_path, redis_url, simulator)
    honest = trading.page_of_activities

    def page(account: Account, wanted: Wanted, **named: Any) -> Bodies:
        is_deaf = spoil is always_the_first_page
        return spoil(list(honest(account, replace(wanted, token=None) if is_deaf else wanted, **named)))

    with monkeypatch.context() as spoilt:
        spoilt.setattr(trading, "page_of_activities", page)
        async with mirrored(settings, simulator) as gateway:
            await Rounds(gateway).pass_by(3)
            account = await eventually(lambda: whole(gateway), within_s=30)
            assert account["opening_balance"] is None, "what is missing may be what could not be read"
            assert (account["cash"]["unexplained"], account["total"]["unexplained"]) == (None, None)
            reasons = await told(gateway)
            assert ("account_history_incomplete" in reasons, "account_unexplained" in reasons) == (True, False)
    # Once it can be read, a restart asks for everything again.
    async with mirrored(settings, simulator) as gateway:
        account = await eventually(lambda: closes(gateway), within_s=30)
        assert account["opening_balance"]["source"] == "activities"
        assert "account_history_incomplete" not in await told(gateway)
