"""Eight of the longest imports at once: the gateway takes one after the other, and little more memory than before."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx2
import msgspec
import pytest
import pytest_asyncio

from apps.execution_gateway.body_limits import MAX_IMPORT_BYTES
from tests.support.stack import GATEWAY, Stack, fill_body, running_stack

pytestmark = [pytest.mark.faults, pytest.mark.asyncio(loop_scope="module")]

IMPORT = "/api/v1/fills/import"
AT_ONCE = 8
MOST_MORE_KB = 150_000
PATIENCE_S = 180.0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    async with running_stack(tmp_path_factory.mktemp("stack"), GATEWAY) as running:
        yield running


def memory_kb(stack: Stack, name: str) -> int:
    """Return what the gateway's process uses now (VmRSS) or has used at most (VmHWM)."""
    status = Path(f"/proc/{stack.gateway.process.pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(f"{name}:"))


def padded(body: bytes) -> bytes:
    return body + b" " * (MAX_IMPORT_BYTES - len(body))


def many_fills() -> bytes:
    fills = [fill_body("AAPL", 1, 150, fill_id=f"f-{number}") for number in range(10_000)]
    return padded(msgspec.json.encode({"fills": fills}))


def many_fields() -> bytes:
    return padded(b"{" + b",".join(b'"k%d":1' % number for number in range(90_000)) + b"}")


def many_lists() -> bytes:
    element = b"[" * 8_000 + b"]" * 8_000
    return padded(b'{"fills":[' + b",".join([element] * 1_000) + b"]}")


@pytest.mark.parametrize("body", [many_fills, many_fields, many_lists])
async def test_eight_imports_at_once_take_little_memory_and_nobody_else_waits_for_them(
    stack: Stack, body: Callable[[], bytes]
) -> None:
    content = body()
    before_kb = memory_kb(stack, "VmRSS")
    async with httpx2.AsyncClient(base_url=stack.gateway.base_url, timeout=PATIENCE_S, trust_env=False) as http:
        posting = [asyncio.create_task(http.post(IMPORT, content=content)) for _ in range(AT_ONCE)]
        answered = 0
        while not all(task.done() for task in posting):
            assert (await stack.gateway.http.get("/health/live")).status_code == httpx2.codes.OK
            answered += 1
        statuses = sorted([task.result().status_code for task in posting])
    assert answered >= AT_ONCE
    assert set(statuses) <= {200, 422, 503}, statuses
    assert statuses[0] in {200, 422}, "one has its turn"
    assert memory_kb(stack, "VmHWM") - before_kb <= MOST_MORE_KB
