"""Fixtures that any test may ask for: a real Redis server and free ports."""

from collections.abc import AsyncIterator, Iterator

import pytest
import redis
from hypothesis import settings

from libs.redis_client.client import RedisClient
from libs.redis_client.embedded import EmbeddedRedis
from tests.support.ports import service_port

# No example has a deadline: a busy machine is no defect. `make test-deep` loads the second profile.
settings.register_profile("fast", deadline=None, max_examples=40)
settings.register_profile("deep", deadline=None, max_examples=2_000)
settings.load_profile("fast")


@pytest.fixture(scope="session")
def redis_server() -> Iterator[EmbeddedRedis]:
    """One real server for this test process. Tests that kill or freeze a server start one of their own."""
    with EmbeddedRedis() as server:
        yield server


@pytest.fixture
def redis_url(redis_server: EmbeddedRedis) -> str:
    """The address of that server, emptied."""
    with redis.Redis(port=redis_server.port) as client:
        client.flushall()
    return redis_server.url


@pytest.fixture
async def redis_client(redis_url: str) -> AsyncIterator[RedisClient]:
    client = RedisClient(redis_url)
    yield client
    await client.aclose()


@pytest.fixture
def free_port() -> int:
    """A loopback port on which nobody listens, and which the system gives to nobody meanwhile."""
    return service_port()
