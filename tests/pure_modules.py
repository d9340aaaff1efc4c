"""The modules that wait for nothing and decide everything; `make test` holds them to a higher coverage."""

PURE = (
    "libs/portfolio/*.py",
    "libs/market_data/alpaca_messages.py",
    "libs/market_data/freshness.py",
    "libs/market_data/latest_quotes.py",
    "libs/market_data/link.py",
    "libs/market_data/prices.py",
    "libs/market_data/quotes.py",
    "libs/market_data/reconnect.py",
    "libs/market_data/session.py",
    "libs/market_data/subscriptions.py",
    "libs/market_data/symbols.py",
    "apps/execution_gateway/price_book.py",
    "apps/alpaca_simulator/protocol.py",
)

if __name__ == "__main__":
    print(",".join(PURE))
