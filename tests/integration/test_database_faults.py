"""The ledger's file is damaged or gone under a running gateway: an error, never an empty book."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.stack import GATEWAY, PNL, Stack, fill_body, running_stack
from tests.support.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

FILLS = 40


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    # Once an hour: a sample recorded while the file is read, damaged or put back would be half in it.
    async with running_stack(tmp_path_factory.mktemp("stack"), GATEWAY, PNL_HISTORY_SECONDS="3600") as running:
        # More than a page of fills, so that half of the file is not all of them.
        for number in range(FILLS):
            await running.fill("AAPL", 1, 150, fill_id=f"{number:0128}")
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def ledger(stack: Stack) -> AsyncIterator[Path]:
    """The ledger's file, put back at the end of a test."""
    path = stack.folder / "ledger.db"
    intact = path.read_bytes()
    yield path
    path.write_bytes(intact)
    await eventually(lambda: answers(stack, PNL, 200))


def garbage(path: Path) -> None:
    path.write_bytes(b"this is no database, whatever its name says\n" * 500)


def gone(path: Path) -> None:
    path.unlink()


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2 // 4096 * 4096])


async def answers(stack: Stack, path: str, status: int) -> bool:
    answer = await stack.gateway.http.get(path)
    assert answer.status_code == status, f"{path}: {answer.status_code} {answer.text}"
    if status == 503:
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["status"] == 503
        assert "positions" not in answer.json()
        assert "Traceback" not in answer.text
    return True


async def is_unhealthy(stack: Stack) -> bool:
    health = await stack.gateway.health()
    assert health["database"]["usable"] is False
    assert "database_unusable" in {reason["code"] for reason in health["reasons"]}
    return bool(health["status"] == "unhealthy")


@pytest.mark.parametrize("damage", [garbage, gone])
async def test_a_database_that_cannot_be_read_is_no_empty_book(stack: Stack, ledger: Path, damage) -> None:
    await answers(stack, PNL, 200)
    intact = ledger.read_bytes()
    damage(ledger)

    for path in (PNL, "/api/v1/positions", "/api/v1/fills"):
        await eventually(lambda path=path: answers(stack, path, 503), within_s=2)
    posted = await stack.gateway.http.post("/api/v1/fills", json=fill_body("MSFT", 1, 400))
    assert posted.status_code == 503, posted.text
    assert posted.headers["content-type"] == "application/problem+json"
    await eventually(lambda: is_unhealthy(stack), within_s=2)
    assert (await stack.gateway.http.get("/health/ready")).status_code == 503
    assert (await stack.gateway.http.get("/health/live")).status_code == 200
    if damage is gone:
        assert not ledger.exists(), "an empty ledger would be a lie"

    # Put back what a backup holds: no restart is needed.
    ledger.write_bytes(intact)
    await eventually(lambda: answers(stack, PNL, 200), within_s=3)
    assert (await stack.row("AAPL"))["qty"] == FILLS
    assert await stack.row("MSFT") is None


async def test_a_database_cut_in_half_is_no_shorter_book(stack: Stack, ledger: Path) -> None:
    half(ledger)
    for path in (PNL, "/api/v1/positions", "/api/v1/fills?limit=200"):
        answer = await stack.gateway.http.get(path)
        # What was folded before may still be said; less than that never.
        held = answer.json().get("positions", [{}])
        assert answer.status_code == 503 or (held and held[0].get("qty", FILLS) == FILLS), answer.text
        assert len(answer.json().get("fills", range(FILLS))) == FILLS, answer.text
