"""Works every figure of a P&L body out again from the body itself. Shares no code with the product, on purpose."""

from decimal import ROUND_HALF_EVEN, Decimal, localcontext

FIGURES = {"unrealized_pnl": "total_unrealized", "day_pnl": "total_day_pnl", "market_value": "total_market_value",
           "fees": "total_fees", "liquidation_pnl": "total_liquidation_pnl"}  # fmt: skip
WITH_CLOSED = {"realized": "realized_pnl", "realized_today": "realized_today", "income": "income",
               "income_today": "income_today"}  # fmt: skip


def check_body(body: dict) -> None:
    with localcontext(prec=100):
        rows = body["positions"]
        for row in rows:
            qty, price, cost = (row[name] for name in ("qty", "current_price", "cost"))
            priced = price is not None
            day_known = priced and None not in (row["previous_close"], row["overnight_value"])
            exit_price = row["ask"] if qty < 0 else row["bid"]
            mid = price if row["bid"] is None else (row["bid"] + row["ask"]) / 2
            marks = {"mid": mid, "last": row["last_trade"], "liquidation": exit_price, "close": price, None: None}
            assert (price, row["closing_date"] is None) == (marks[row["mark_rule"]], row["mark_rule"] != "close"), row
            expected = {
                "cost_basis": cents(cost),
                "avg_entry_price": rounded(cost / qty, 9),
                "market_value": cents(qty * price) if priced else None,
                "unrealized_pnl": cents(qty * price - cost) if priced else None,
                "unrealized_pnl_pct": rounded((qty * price - cost) / abs(cost) * 100, 4) if priced and cost else None,
                "day_pnl": cents(qty * price - row["overnight_value"] + row["day_cash"]) if day_known else None,
                "liquidation_price": exit_price,
                "liquidation_pnl": None if exit_price is None else cents(qty * exit_price - cost),
                "extended_pnl": cents(qty * (row["extended_price"] - price))
                if priced and row["extended_price"]
                else None,
            }
            assert {name: row[name] for name in expected} == expected, row
        for name, total in FIGURES.items():
            assert body[total] == sum(row[name] or 0 for row in rows), total
        for part, name in WITH_CLOSED.items():
            assert body[f"total_{part}"] == sum(row[name] for row in rows) + body["closed"][part], part
        assert body["unpriced"] == [row["symbol"] for row in rows if row["current_price"] is None]
        assert body["complete"] == (not body["unpriced"] and not body["unclassified"])
        for state in body["states"]:
            of_state = [row for row in rows if row["state"] == state["state"]]
            gains = [row["unrealized_pnl"] for row in of_state]
            assert (state["positions"], state["unrealized_pnl"]) == (len(gains), None if None in gains else sum(gains))
        assert body["day_complete"] == all(row["day_pnl"] is not None for row in rows)
        days = [row["day_pnl"] for row in rows] + [body["closed"]["day_pnl"]]
        assert body["account_day_pnl"] == (None if None in days else sum(days))


def cents(amount: Decimal) -> Decimal:
    return rounded(amount, 2)


def rounded(amount: Decimal, places: int) -> Decimal:
    return Decimal(amount).quantize(Decimal(1).scaleb(-places), ROUND_HALF_EVEN)
