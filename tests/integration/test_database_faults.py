"""The ledger's file is damaged or gone under a running gateway: an error, never an empty book."""

from pathlib import Path

import pytest

from tests.support.stack import GATEWAY, PNL, Stack, fill_body, running_stack
from tests.support.waiting import eventually


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
async def test_a_database_that_cannot_be_read_is_no_empty_book(tmp_path: Path, damage) -> None:
    async with running_stack(tmp_path, GATEWAY) as stack:
        await stack.fill("AAPL", 100, 150)
        await answers(stack, PNL, 200)
        ledger = tmp_path / "ledger.db"
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
        assert (await stack.row("AAPL"))["qty"] == 100
        assert await stack.row("MSFT") is None


async def test_a_database_cut_in_half_is_no_shorter_book(tmp_path: Path) -> None:
    async with running_stack(tmp_path, GATEWAY) as stack:
        for number in range(200):
            await stack.fill("AAPL", 1, 150, fill_id=f"{number:0128}")
        half(tmp_path / "ledger.db")
        for path in (PNL, "/api/v1/positions", "/api/v1/fills?limit=200"):
            answer = await stack.gateway.http.get(path)
            # What was folded before may still be said; less than that never.
            held = answer.json().get("positions", [{}])
            assert answer.status_code == 503 or (held and held[0].get("qty", 200) == 200), answer.text
