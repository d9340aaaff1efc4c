"""A running stack whose venue misbehaves. The tests of one file share it; each leaves it healthy for the next."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.patient import Patient
from tests.support.stack import running_stack


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Patient]:
    async with running_stack(tmp_path_factory.mktemp("stack")) as stack:
        patient = Patient(stack)
        await patient.admit()
        yield patient


@pytest_asyncio.fixture(loop_scope="module")
async def patient(shared: Patient) -> AsyncIterator[Patient]:
    """The stack in good health, past failures forgotten, and again in good health afterwards."""
    await shared.start_afresh()
    yield shared
    await shared.recovers()
