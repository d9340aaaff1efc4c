"""The modules that wait for nothing and decide everything; `make test` holds them to a higher coverage."""

PURE = (
    "libs/portfolio/*.py",
    "libs/market_data/alpaca_messages.py",
    "libs/market_data/freshness.py",
    "libs/market_data/gaps.py",
    "libs/market_data/halts.py",
    "libs/market_data/latest_quotes.py",
    "libs/market_data/link.py",
    "libs/market_data/prices.py",
    "libs/market_data/quotes.py",
    "libs/market_data/reconnect.py",
    "libs/market_data/session.py",
    "libs/market_data/silence.py",
    "libs/market_data/stream_lag.py",
    "libs/market_data/subscriptions.py",
    "libs/market_data/symbols.py",
    "libs/market_data/wakefulness.py",
    "apps/execution_gateway/delivery.py",
    "apps/execution_gateway/fill_batch.py",
    "apps/execution_gateway/fill_input.py",
    "apps/execution_gateway/price_book.py",
    "apps/alpaca_simulator/fault_switches.py",
    "apps/alpaca_simulator/protocol.py",
    "apps/alpaca_simulator/sent_record.py",
    "scripts/fills_csv.py",
)

if __name__ == "__main__":
    print(",".join(PURE))
