"""A running stack for the tests of one file: they share it, and each uses symbols of its own."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.stack import Stack, running_stack


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    async with running_stack(tmp_path_factory.mktemp("stack")) as running:
        yield running
