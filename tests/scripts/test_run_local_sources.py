"""Where `make run` takes its prices from: a recording, or the source that the person's own keys name."""

import signal
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import httpx2
import pytest

from tests.support.simulator import running_simulator
from tests.support.stack import Run, fill_body, run_local
from tests.support.waiting import eventually

pytestmark = pytest.mark.faults

RECORDING = """\
timestamp,symbol,bid_price,bid_size,bid_exchange,ask_price,ask_size,ask_exchange
2025-10-17T13:30:00Z,AAPL,247.99,200,V,248.01,100,V
2025-10-17T13:30:01Z,MSFT,511.49,200,V,511.51,100,V
2025-10-17T13:30:03Z,AAPL,249.99,200,V,250.01,100,V
2025-10-17T13:30:04Z,MSFT,512.49,200,V,512.51,100,V
"""


async def current_prices(run: Run) -> dict[str, Decimal | None]:
    body = await run.pnl()
    return {} if body is None else {row["symbol"]: row["current_price"] for row in body["positions"]}


async def test_a_recording_is_replayed_through_everything_and_a_kill_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "day.csv").write_text(RECORDING)
    async with run_local(tmp_path, "--replay", "day.csv", "--speed", "10") as run:
        await run.says("REPLAY", "AAPL qty=100", "MSFT qty=100")
        recorded = {"AAPL": Decimal(250), "MSFT": Decimal("512.5")}

        async def has_ended() -> bool:
            assert await current_prices(run) == recorded
            return True

        await eventually(has_ended, within_s=10, every_s=0.1)
        body = await run.pnl()
        assert body["mode"] == "replay"
        assert (await run.get("MARKET_DATA_PORT", "/health"))["mode"] == "replay"
        assert {row["avg_entry_price"] for row in body["positions"]} == {Decimal(248), Decimal("511.5")}
        assert not (tmp_path / "var" / "demo" / "ledger.db").exists(), "a recording's account is its own"

        assert len(run.family()) > 4
        run.kill()
        await eventually(lambda: not run.family(), within_s=3)


async def test_own_keys_mean_the_own_ledger_and_no_demo(tmp_path: Path) -> None:
    async with running_simulator(rate=0, key="my-key", secret="my-secret") as venue:
        own = {
            "ALPACA_API_KEY": "my-key",
            "ALPACA_SECRET_KEY": "my-secret",
            "ALPACA_STREAM_URL": venue.stream_url(),
            "ALPACA_DATA_URL": venue.base_url,
            "ALPACA_TRADING_URL": venue.base_url,
        }
        async with run_local(tmp_path, **own) as run:
            await run.says("The ledger is empty", "curl -X POST", "/api/v1/fills", "market data: healthy")
            assert (await run.pnl())["positions"] == []
            assert (tmp_path / "var" / "markstream.db").exists()
            assert not (tmp_path / "var" / "demo").exists()
            assert "my-secret" not in run.output
            assert "demo account" not in run.output

            body = fill_body("AAPL", 10, 150, filled_at=datetime.now(UTC).isoformat())
            url = f"http://127.0.0.1:{run.ports['EXECUTION_GATEWAY_PORT']}/api/v1/fills"
            async with httpx2.AsyncClient(trust_env=False) as http:
                assert (await http.post(url, json=body)).status_code == 201
            await eventually(lambda: any(connection.session.symbols("quotes") for connection in venue.connections))
            venue.emit("AAPL", 151.99, 152.01)

            async def is_valued() -> bool:
                return await current_prices(run) == {"AAPL": Decimal(152)}

            await eventually(is_valued)
            await run.stop(signal.SIGTERM)
            for log in (tmp_path / "var" / "log").iterdir():
                assert "my-secret" not in log.read_text()
