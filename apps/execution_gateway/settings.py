"""The gateway's own settings beside those it shares."""

from pathlib import Path
from typing import Final

from pydantic import Field, SecretStr, field_validator

from apps.execution_gateway.database import parse_database_url
from libs.service.settings import AlpacaSettings, HttpSettings, Port, PriceSettings, RedisSettings

LEDGER: Final = "ledger"


class GatewaySettings(RedisSettings, AlpacaSettings, HttpSettings, PriceSettings):
    """All that the execution gateway is told from outside. Alpaca's part only says whose money it is."""

    execution_gateway_port: Port = 8002
    database_url: SecretStr = Field(
        SecretStr("sqlite:///./var/markstream.db"),
        description="sqlite:///path/to/file.db or postgresql://user:password@host/database",
    )
    daily_bars_path: Path = Field(Path("data/daily_bars"), description="a Parquet file or a folder of them")
    position_source: str = Field(LEDGER, description="ledger")

    @field_validator("database_url")
    @classmethod
    def _check_database_url(cls, value: SecretStr) -> SecretStr:
        parse_database_url(value.get_secret_value())
        return value

    @field_validator("position_source")
    @classmethod
    def _check_position_source(cls, value: str) -> str:
        match value:
            case "ledger":
                return value
            case "alpaca":
                raise ValueError("the mirror of the Alpaca account is not available yet")
            case _:
                raise ValueError("unknown source of positions")
