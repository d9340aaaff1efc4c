"""Both services keep to their own /openapi.json, whatever they are asked: schemathesis, every check, real processes."""

import asyncio
import os
import re
import sys
from pathlib import Path

import pytest

from tests.support.stack import GATEWAY, MARKET_DATA, ROOT, Service, running_stack

pytestmark = pytest.mark.faults

CONFIG = Path(__file__).parent / "api_schema" / "schemathesis.toml"
TOKEN = "a-token-long-enough-to-be-one"
WITHIN_S = 600


@pytest.mark.parametrize("token", [None, TOKEN], ids=["without token", "with token"])
@pytest.mark.parametrize("module", [GATEWAY, MARKET_DATA])
async def test_a_service_keeps_to_its_own_schema(tmp_path: Path, module: str, token: str | None) -> None:
    environment = {} if token is None else {"API_TOKEN": token}
    async with running_stack(tmp_path, module, **environment) as stack:
        code, report = await judge(stack.services[module], tmp_path, token)
        assert code == 0, "\n".join(line[:400] for line in report.splitlines()[-120:])
        # Nothing was left out: all operations were selected, and all of those tested.
        assert re.search(r"Selected: (\d+)/\1\n\s+Tested: \1\n", report), report[-2000:]
        assert (await stack.services[module].http.get("/health/live")).status_code == 200


async def judge(service: Service, folder: Path, token: str | None) -> tuple[int, str]:
    """Return schemathesis's exit code and report on a running service."""
    # It wants to write into its working directory.
    given = [] if token is None else ["--header", f"Authorization: Bearer {token}"]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG)),
        *("run", f"{service.base_url}/openapi.json", "--no-color", *given),
        cwd=folder,
        env={"PATH": os.environ["PATH"], "HOME": str(folder), "PYTHONPATH": str(ROOT)},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(WITHIN_S):
            report, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode or 0, report.decode(errors="replace")
