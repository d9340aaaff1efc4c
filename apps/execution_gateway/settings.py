"""The gateway's own settings beside those it shares."""

from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator

from apps.execution_gateway.database import parse_database_url
from libs.market_data.prices import Mode
from libs.service.settings import AlpacaSettings, HttpSettings, Port, PriceSettings, RedisSettings

LEDGER: Final = "ledger"
ALPACA: Final = "alpaca"


class GatewaySettings(RedisSettings, AlpacaSettings, HttpSettings, PriceSettings):
    """All that the execution gateway is told from outside. Alpaca's part only says whose money it is."""

    execution_gateway_port: Port = 8002
    database_url: SecretStr = Field(
        SecretStr("sqlite:///./var/markstream.db"),
        description="sqlite:///path/to/file.db or postgresql://user:password@host/database",
    )
    daily_bars_path: Path = Field(Path("data/daily_bars"), description="a Parquet file or a folder of them")
    reconcile_seconds: Annotated[float, Field(ge=1, le=3600, description="1 to 3600 seconds")] = 60.0
    pnl_history_seconds: Annotated[float, Field(ge=1, le=3600, description="1 to 3600 seconds")] = 5.0
    pnl_history_days: Annotated[int, Field(ge=0, le=36500, description="whole days, or 0 to keep it for ever")] = 90
    position_source: Literal["ledger", "alpaca"] = Field(LEDGER, description="ledger or alpaca")

    @property
    def account_mode(self) -> Mode:
        """Whose money the positions are: by the account's host where one is mirrored, else by the stream."""
        return self.trading_mode if self.position_source == ALPACA else self.mode

    @field_validator("database_url")
    @classmethod
    def _check_database_url(cls, value: SecretStr) -> SecretStr:
        parse_database_url(value.get_secret_value())
        return value

    @model_validator(mode="after")
    def _check_position_source(self) -> Self:
        if self.position_source == ALPACA and self.is_alpaca and not self.has_credentials:
            raise ValueError("POSITION_SOURCE=alpaca needs ALPACA_API_KEY and ALPACA_SECRET_KEY: the account's own")
        return self
