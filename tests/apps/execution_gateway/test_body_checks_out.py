"""Every figure of the P&L body follows from the body itself, whatever was traded and however it is marked."""

from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from random import Random

import msgspec
import pytest

from libs.market_data.prices import PriceWrite
from libs.redis_client.client import RedisClient
from libs.redis_client.price_cache import PriceCache
from tests.support.body_checker import check_body
from tests.support.gateway import RunningGateway, price, serving, settings_in, utc_now

REALTIME = "/api/v1/positions/pnl/realtime"
SYMBOLS = ("AAPL", "MSFT", "KO", "F", "TSLA", "NVDA")


async def trade_at_random(gateway: RunningGateway, dice: Random) -> None:
    now = utc_now()
    for number in range(30):
        await gateway.fill(
            dice.choice(SYMBOLS),
            Decimal(dice.randint(1, 10**9)).scaleb(dice.choice((-9, -7, -3))),
            Decimal(dice.randint(1, 10**7)).scaleb(dice.choice((-9, -4, -2))),
            side=dice.choice(("buy", "sell")),
            fill_id=f"f{number}",
            fee=str(Decimal(dice.randint(0, 999)).scaleb(-4)),
            filled_at=(now - timedelta(hours=dice.randint(0, 90), seconds=number)).isoformat(),
        )
    for number, fields in enumerate(
        (
            {"kind": "split", "symbol": "AAPL", "ratio_new": 3, "ratio_old": 7},
            {"kind": "dividend", "symbol": "KO", "amount": "1.234"},
            {"kind": "fee", "symbol": "F", "amount": "0.055"},
            {"kind": "symbol_change", "symbol": "TSLA", "new_symbol": "TSLX"},
        )
    ):
        day = (now - timedelta(days=1)).date()
        body = {"adjustment_id": f"a{number}", "reason": "test", "date": day.isoformat(), **fields}
        answer = await gateway.client.post("/api/v1/adjustments", content=msgspec.json.encode(body))
        assert answer.status_code == 201, answer.text


@pytest.mark.parametrize("rule", ["mid", "last", "liquidation"])
@pytest.mark.parametrize("extended", [True, False])
async def test_random_books_check_out(
    tmp_path: Path, redis_url: str, redis_client: RedisClient, rule: str, extended: bool
) -> None:
    dice = Random(f"{rule}{extended}")
    settings = settings_in(tmp_path, redis_url, mark_rule=rule, extended_hours_marks=extended)
    async with serving(settings) as gateway:
        await trade_at_random(gateway, dice)
        priced = [symbol for symbol in (*SYMBOLS, "TSLX") if dice.random() < 0.7]
        writes = []
        for symbol in priced:
            mid = Decimal(dice.randint(10**5, 10**8)).scaleb(-5)
            last = dice.choice((None, mid + Decimal("0.003"), Decimal(dice.randint(10**5, 10**8)).scaleb(-5)))
            one = price(symbol, mid, last=last, last_timestamp=None if last is None else utc_now())
            writes.append(PriceWrite(one, publish=False))
        await PriceCache(redis_client, 300).write(writes)
        body = await gateway.get(REALTIME)
        assert len(body["positions"]) >= 3
        check_body(body)


async def test_the_checker_finds_a_wrong_cent(tmp_path: Path, redis_url: str, redis_client: RedisClient) -> None:
    async with serving(settings_in(tmp_path, redis_url)) as gateway:
        await gateway.fill("AAPL", 100, "150.00")
        await PriceCache(redis_client, 300).write([PriceWrite(price(), publish=False)])
        body = await gateway.get(REALTIME)
        check_body(body)
        for name in ("unrealized_pnl", "market_value", "liquidation_pnl", "cost_basis", "current_price"):
            wrong = {**body, "positions": [{**body["positions"][0]}]}
            if wrong["positions"][0][name] is None:
                continue
            wrong["positions"][0][name] += Decimal("0.01")
            with pytest.raises(AssertionError):
                check_body(wrong)
        with pytest.raises(AssertionError):
            check_body({**body, "total_unrealized": body["total_unrealized"] + Decimal("0.01")})
