import json
from decimal import Decimal

from libs.redis_client.client import RedisClient
from libs.redis_client.event_publisher import POSITION_CHANGED_CHANNEL, EventPublisher


async def test_events_are_json_with_numbers(redis_client: RedisClient) -> None:
    publisher = EventPublisher(redis_client)
    payload = {"symbols": ["AAPL"], "at": "2025-10-19T14:30:15+00:00", "qty": Decimal("0.300000001")}
    assert await publisher.publish(POSITION_CHANGED_CHANNEL, payload) == 0
    subscriber = redis_client.pubsub()
    try:
        await subscriber.subscribe(POSITION_CHANGED_CHANNEL)
        await subscriber.get_message(timeout=1)
        assert await publisher.publish(POSITION_CHANGED_CHANNEL, payload) == 1
        message = await subscriber.get_message(timeout=1)
    finally:
        await subscriber.aclose()
    assert json.loads(message["data"], parse_float=Decimal) == payload
