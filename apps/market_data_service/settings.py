"""The market data service's settings; the shared blocks are in `libs/service/settings.py`."""

from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from libs.service.settings import (
    AlpacaSettings,
    HttpSettings,
    Port,
    PositiveSeconds,
    PriceSettings,
    RedisSettings,
    split_url,
)


class MarketDataSettings(AlpacaSettings, RedisSettings, HttpSettings, PriceSettings):
    """Everything `python -m apps.market_data_service.main` reads from the environment."""

    market_data_port: Port = 8004
    execution_gateway_url: str = Field("http://127.0.0.1:8002", description="an http:// or https:// address")
    position_sync_seconds: PositiveSeconds = 300.0
    reconnect_max_attempts: Annotated[int, Field(ge=0, description="a whole number; 0 never gives up")] = 0
    allow_wildcard: bool = Field(default=False, description="true or false")

    @field_validator("execution_gateway_url")
    @classmethod
    def _check_gateway_url(cls, value: str) -> str:
        split_url(value, ("http", "https"))
        return value

    @model_validator(mode="after")
    def _check_there_is_a_source(self) -> Self:
        if not self.has_credentials and self.is_alpaca:
            raise ValueError(
                "ALPACA_API_KEY and ALPACA_SECRET_KEY are not set, and ALPACA_STREAM_URL names no other source; "
                "set the keys from Alpaca's dashboard, or try `make run` without keys: it brings a simulator"
            )
        return self

    @property
    def credentials(self) -> tuple[str, str]:
        """Key and secret; placeholders for a source that is not Alpaca and asks for none."""
        if self.alpaca_api_key is None or self.alpaca_secret_key is None:
            return "no-key", "no-secret"
        return self.alpaca_api_key.get_secret_value(), self.alpaca_secret_key.get_secret_value()
