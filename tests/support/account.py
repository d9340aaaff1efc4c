"""A mirrored account from outside: the broker's truth over the simulator's control, and how our ledger differs."""

import re
from collections import defaultdict
from decimal import Decimal
from typing import Any

import httpx2

from tests.support.stack import decoded

CENT = Decimal("0.01")
_CORRECTION = re.compile(r"(?P<root>.+?):c[0-9]+(:.+)?")


class Broker:
    """The simulator's control endpoint, wherever the simulator runs."""

    def __init__(self, base_url: str) -> None:
        self.http = httpx2.AsyncClient(base_url=base_url, timeout=40, trust_env=False)

    async def act(self, name: str, **fields: object) -> Any:
        answer = await self.http.post(f"/control/{name}", json=fields)
        assert answer.status_code == httpx2.codes.OK, answer.text
        return decoded(answer.content)

    async def fill(self, symbol: str, signed_qty: object, price: object, **fields: object) -> list[str]:
        """Let shares change hands, bought when the quantity is positive; return the executions' ids."""
        qty = Decimal(str(signed_qty))
        side = "buy" if qty > 0 else "sell"
        done = await self.act("fill", symbol=symbol, side=side, qty=str(abs(qty)), price=str(price), **fields)
        ids: list[str] = done["execution_ids"]
        return ids

    async def switch(self, **faults: object) -> None:
        answer = await self.http.patch("/control/faults", json=faults)
        assert answer.status_code == httpx2.codes.OK, answer.text

    async def truth(self) -> Any:
        return decoded((await self.http.get("/control/account")).content)


async def all_fills(gateway: httpx2.AsyncClient) -> list[Any]:
    """Return every fill of the ledger, voided ones included."""
    found: list[Any] = []
    after = None
    while True:
        page = await _body(gateway, f"/api/v1/fills?limit=1000{f'&after={after}' if after else ''}")
        found += page["fills"]
        after = page["next"]
        if after is None:
            return found


async def is_mirrored(gateway: httpx2.AsyncClient, broker: Broker) -> bool:
    """Check that the ledger is the account, execution by execution, and position by position with its cost.

    Nothing lost, nothing doubled, nothing that an adjustment had to mend.
    """
    truth = await broker.truth()
    faults = _faulty_executions(truth["executions"], await all_fills(gateway))
    faults += _faulty_positions(
        truth["positions"], (await _body(gateway, "/api/v1/positions?cost=alpaca"))["positions"]
    )
    adjustments = (await _body(gateway, "/api/v1/adjustments"))["adjustments"]
    faults += [f"adjusted: {one}" for one in adjustments]
    assert not faults, f"{len(faults)} faults: " + "; ".join(faults[:8])
    return True


async def account_health(gateway: httpx2.AsyncClient) -> Any:
    return (await _body(gateway, "/health"))["account"]


async def is_in_step(gateway: httpx2.AsyncClient) -> bool:
    account = await account_health(gateway)
    assert account["state"] == "in_step", str(account)
    return True


async def _body(http: httpx2.AsyncClient, path: str) -> Any:
    answer = await http.get(path)
    assert answer.status_code == httpx2.codes.OK, f"{path}: {answer.status_code} {answer.text}"
    return decoded(answer.content)


def _faulty_executions(executions: list[Any], fills: list[Any]) -> list[str]:
    standing = defaultdict(list)
    for fill in fills:
        corrected = _CORRECTION.fullmatch(fill["fill_id"])
        root = corrected["root"] if corrected else fill["fill_id"]
        standing[root] += [fill] if fill["voided_at"] is None else []
    faults = []
    for execution in executions:
        name = execution["execution_id"]
        ours = [_figures(fill) for fill in standing.pop(name, [])]
        theirs = [] if execution["booking"] == "busted" else [_figures(execution)]
        if ours != theirs:
            faults.append(f"{name} ({execution['booking']}, told {execution['announced']} times): {ours} for {theirs}")
    return faults + [f"{name} is unknown to the broker" for name, ours in standing.items() if ours]


def _figures(one: Any) -> tuple[str, str, Decimal, Decimal]:
    return one["symbol"], one["side"], Decimal(str(one["qty"])), Decimal(str(one["price"]))


def _faulty_positions(theirs: dict[str, Any], rows: list[Any]) -> list[str]:
    ours = {row["symbol"]: (Decimal(row["qty"]), Decimal(row["cost_basis"])) for row in rows}
    held = {symbol: (Decimal(one["qty"]), Decimal(one["cost"])) for symbol, one in theirs.items()}
    nothing = (Decimal(0), Decimal(0))
    pairs = {symbol: (ours.get(symbol, nothing), held.get(symbol, nothing)) for symbol in sorted(ours | held)}
    return [
        f"{symbol}: {mine} for {broker}"
        for symbol, (mine, broker) in pairs.items()
        if mine[0] != broker[0] or abs(mine[1] - broker[1]) > CENT
    ]
