"""A running gateway for the tests of this folder."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.gateway import RunningGateway, serving, settings_in


@pytest.fixture
async def running_gateway(tmp_path: Path, redis_url: str) -> AsyncIterator[RunningGateway]:
    """A gateway with an empty ledger, on a real port, with the session's Redis."""
    async with serving(settings_in(tmp_path, redis_url)) as running:
        yield running
