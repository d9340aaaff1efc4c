"""The settings that programs share, and how they are read: environment, then `.env`, all errors in one message.

A program's own settings class inherits the blocks it needs and adds its own fields. A field is named like its
variable in lower case; its description is the remedy shown to a person who got it wrong.
"""

import ipaddress
import sys
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar
from urllib.parse import SplitResult, urlsplit

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from pydantic_settings.exceptions import SettingsError as UnparsableValueError

from libs.market_data.prices import Mode
from libs.redis_client.address import checked_address
from libs.redis_client.client import redis_url as url_of_server
from libs.service.origins import parse_origins

ALPACA_STREAM_BASE: Final = "wss://stream.data.alpaca.markets/v2/"
ALPACA_DATA_BASE: Final = "https://data.alpaca.markets"
ALPACA_PAPER_TRADING_BASE: Final = "https://paper-api.alpaca.markets"
ALPACA_LIVE_TRADING_BASE: Final = "https://api.alpaca.markets"

_TRADING_HOSTS: Final = {"paper-api.alpaca.markets": Mode.PAPER, "api.alpaca.markets": Mode.LIVE}
MIN_TOKEN_LENGTH: Final = 16
_A_NEW_ONE: Final = 'python -c "import secrets; print(secrets.token_urlsafe(24))"'

_SHOWN_LENGTH: Final = 40
_SECRET_WORDS: Final = ("key", "secret", "token", "password", "url")  # a URL may carry a password

Port = Annotated[int, Field(ge=1, le=65535, description="a port number, 1 to 65535")]
PositiveSeconds = Annotated[float, Field(gt=0, allow_inf_nan=False, description="a positive number of seconds")]


class SettingsError(SystemExit):
    """The settings cannot be used; what is wrong has been printed. Uncaught, it ends the process with code 2.

    `problems` has one line for each wrong variable.
    """

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__(2)


class Settings(BaseSettings):
    """What every block has in common. Reads the environment only when constructed, best through `load_settings`."""

    model_config = SettingsConfigDict(
        env_file=".env",
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
        str_strip_whitespace=True,
        validate_default=True,
    )

    @model_validator(mode="before")
    @classmethod
    def _empty_is_unset(cls, values: dict[str, Any]) -> dict[str, Any]:
        # Here, not in the reader: an empty variable of the environment still hides the one in `.env`.
        return {name: value for name, value in values.items() if not (isinstance(value, str) and not value.strip())}


class RedisSettings(Settings):
    """Where Redis is. `REDIS_URL` wins over host and port."""

    redis_host: str = Field("127.0.0.1", min_length=1, description="a host name or address")
    redis_port: Port = 6379
    redis_url: SecretStr | None = Field(
        None, description="redis://[user:password@]host[:port][/database] or rediss://…; / # ? @ in a password as %xx"
    )

    redis_namespace: str = Field(
        "", pattern=r"^(?:[A-Za-z0-9_-]{1,32})?$", description="1 to 32 letters, digits, _ or -, or unset for none"
    )

    @field_validator("redis_url")
    @classmethod
    def _check_redis_url(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            return SecretStr(checked_address(value.get_secret_value()))
        return value

    @property
    def redis_dsn(self) -> str:
        """The URL to connect to. It may hold a password: never log it."""
        if self.redis_url is not None:
            return self.redis_url.get_secret_value()
        return url_of_server(self.redis_host, self.redis_port)


class AlpacaSettings(Settings):
    """Which Alpaca, or stand-in for it, is asked, with whose keys."""

    alpaca_api_key: SecretStr | None = Field(None, description="the key id from Alpaca's dashboard")
    alpaca_secret_key: SecretStr | None = Field(None, description="the secret that belongs to ALPACA_API_KEY")
    alpaca_paper: bool = Field(default=True, description="true for the paper account, false for the live one")
    alpaca_feed: Literal["iex", "sip", "delayed_sip", "test"] = Field(
        "iex", description="iex, sip, delayed_sip or test"
    )
    alpaca_stream_url: str | None = Field(None, description="the whole ws:// or wss:// address, path included")
    alpaca_data_url: str | None = Field(None, description="an http:// or https:// address without /v2")
    alpaca_trading_url: str | None = Field(None, description="an http:// or https:// address without /v2")
    alpaca_stream_mode: Literal["paper", "live"] | None = Field(
        None, description="paper or live where ALPACA_STREAM_URL is a proxy in front of Alpaca's stream, else unset"
    )
    alpaca_symbol_limit: int | None = Field(None, ge=1, description="a whole number above 0, or unset for no limit")

    @field_validator("alpaca_api_key", "alpaca_secret_key")
    @classmethod
    def _strip_secret(cls, value: SecretStr | None) -> SecretStr | None:
        return _stripped(value)

    @field_validator("alpaca_secret_key")
    @classmethod
    def _check_pair(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if "alpaca_api_key" in info.data and (info.data["alpaca_api_key"] is None) != (value is None):
            raise ValueError("ALPACA_API_KEY and ALPACA_SECRET_KEY must be set together or not at all")
        return value

    @field_validator("alpaca_stream_url")
    @classmethod
    def _check_stream_url(cls, value: str | None) -> str | None:
        if value is not None:
            split_url(value, ("ws", "wss"))
        return value

    @field_validator("alpaca_data_url", "alpaca_trading_url")
    @classmethod
    def _check_rest_url(cls, value: str | None) -> str | None:
        if value is None:
            return None
        base = value.rstrip("/")
        if split_url(base, ("http", "https")).path.endswith("/v2"):
            raise ValueError("leave /v2 out")
        return base

    @property
    def has_credentials(self) -> bool:
        """Whether a key pair was given."""
        return self.alpaca_api_key is not None and self.alpaca_secret_key is not None

    @property
    def stream_url(self) -> str:
        """The data WebSocket's address."""
        return self.alpaca_stream_url or ALPACA_STREAM_BASE + self.alpaca_feed

    @property
    def is_alpaca(self) -> bool:
        """Whether the stream comes from Alpaca itself, not from a stand-in."""
        return f".{_host(self.stream_url)}".endswith(".alpaca.markets")

    @property
    def data_url(self) -> str:
        """The base of the market data REST calls, without `/v2`."""
        return self.alpaca_data_url or self._beside_the_stream() or ALPACA_DATA_BASE

    @property
    def trading_url(self) -> str:
        """The base of the account's REST calls, without `/v2`."""
        if self.alpaca_trading_url is not None:
            return self.alpaca_trading_url
        alpaca_base = ALPACA_PAPER_TRADING_BASE if self.alpaca_paper else ALPACA_LIVE_TRADING_BASE
        return self._beside_the_stream() or alpaca_base

    def _beside_the_stream(self) -> str | None:
        """Return a stand-in's own REST base: made-up and real prices of one symbol must never mix. None for Alpaca."""
        stream = urlsplit(self.stream_url)
        return None if self.is_alpaca else f"{'https' if stream.scheme == 'wss' else 'http'}://{stream.netloc}"

    @property
    def mode(self) -> Mode:
        """Whose money it is, by the stream. What comes from anywhere but Alpaca, or its test feed, is simulated."""
        if self.alpaca_feed == "test" or not self.is_alpaca:
            return Mode.SIMULATED
        return Mode.PAPER if self.alpaca_paper else Mode.LIVE

    @property
    def stream_mode(self) -> Mode:
        """Whose money the streamed prices speak of, unless a simulator says that they are its own."""
        if self.alpaca_stream_mode is not None and self.alpaca_feed != "test":
            return Mode(self.alpaca_stream_mode)
        return self.mode

    @property
    def trading_mode(self) -> Mode:
        """Whose money the account's is, by the host that is asked for it; at any host but Alpaca's it is simulated."""
        return _TRADING_HOSTS.get(_host(self.trading_url), Mode.SIMULATED)


class LogSettings(Settings):
    """How a program logs."""

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="DEBUG, INFO, WARNING or ERROR")
    log_format: Literal["console", "json"] = Field("console", description="console or json")

    @field_validator("log_level", mode="before")
    @classmethod
    def _upper(cls, value: object) -> object:
        return value.strip().upper() if isinstance(value, str) else value


class HttpSettings(LogSettings):
    """Where a service listens, who may ask it, and how it logs."""

    bind_host: str = Field("127.0.0.1", min_length=1, description="an address of this machine, or localhost")
    api_token: SecretStr | None = Field(
        None, description="at least 16 visible ASCII characters without spaces; make one: " + _A_NEW_ONE
    )
    allowed_origins: str = Field("", description="https://host or http://host:port, several separated by commas")

    @field_validator("api_token")
    @classmethod
    def _check_api_token(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        token = _stripped(value)
        if token is not None and not all("!" <= letter <= "~" for letter in token.get_secret_value()):
            raise ValueError("it could not be sent in a header")
        if token is not None and len(token.get_secret_value()) < MIN_TOKEN_LENGTH:
            raise ValueError(f"has {len(token.get_secret_value())} characters, which can be guessed")
        host = info.data.get("bind_host")
        if token is None and host is not None and not is_loopback(host):
            raise ValueError(
                f"must be set when BIND_HOST is {host}: others could read the account; or bind to 127.0.0.1"
            )
        return token

    @field_validator("allowed_origins")
    @classmethod
    def _check_allowed_origins(cls, value: str) -> str:
        return ",".join(parse_origins(value))

    @property
    def origins(self) -> tuple[str, ...]:
        """The origins of web pages that may call the service from a browser."""
        return parse_origins(self.allowed_origins)


class PriceSettings(Settings):
    """How long a price lives, when it is old, and which spreads may mark."""

    price_ttl_seconds: Annotated[float, Field(ge=1, le=604800, description="1 to 604800 seconds")] = 300.0
    stale_after_seconds: PositiveSeconds = 15.0
    max_spread_pct: Annotated[
        Decimal, Field(gt=0, le=200, allow_inf_nan=False, description="a percentage above 0, at most 200")
    ] = Decimal(10)
    mark_rule: Literal["mid", "last", "liquidation"] = Field("mid", description="mid, last or liquidation")
    extended_hours_marks: bool = Field(default=True, description="true or false")


SettingsT = TypeVar("SettingsT", bound=BaseSettings)


def load_settings(cls: type[SettingsT], env_file: Path | str | None = ".env") -> SettingsT:
    """Read and check the settings. Raises SettingsError after printing one message that names all that is wrong."""
    try:
        # The environment wins over the file: pydantic-settings' own order.
        return cls(_env_file=env_file)
    except ValidationError as error:
        problems = [_describe(cls, dict(problem)) for problem in error.errors(include_url=False)]
    except (UnparsableValueError, UnicodeDecodeError, OSError) as error:
        problems = [f"{env_file or 'the environment'}: {error}"]
    _print_problems(problems)
    raise SettingsError(problems) from None


def is_loopback(host: str) -> bool:
    """Say whether only this machine can reach `host`."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _print_problems(problems: list[str]) -> None:
    lines = ["The settings cannot be used:", *(f"  {problem}" for problem in problems)]
    lines.append("Set them in the environment or in .env (see .env.example).")
    print("\n".join(lines), file=sys.stderr)  # noqa: T201  # before logging is set up


def _describe(cls: type[BaseSettings], problem: dict[str, Any]) -> str:
    name = str(problem["loc"][0]) if problem["loc"] else ""
    field = cls.model_fields.get(name)
    own_words = problem.get("ctx", {}).get("error")
    if not name:
        # About several fields at once: the sentence names them itself.
        return str(own_words or problem["msg"])
    expected = f"expected {field.description}" if field is not None and field.description else str(problem["msg"])
    reason = f"{own_words}; {expected}" if isinstance(own_words, ValueError) else expected
    given = problem.get("input")
    is_shown = isinstance(given, str) and not any(word in name for word in _SECRET_WORDS)
    shown = f"={given[:_SHOWN_LENGTH]!r}" if is_shown and isinstance(given, str) else ""
    return f"{name.upper()}{shown}: {reason}"


def split_url(url: str, schemes: tuple[str, ...]) -> SplitResult:
    """Return the parts of a URL that is shown in logs and that paths are appended to. Raises ValueError in one line."""
    if any(letter.isspace() or not letter.isprintable() for letter in url):
        raise ValueError("it holds a space or another character that is not visible")
    # urlsplit's own errors quote what it could not read, which may be part of a password.
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        raise ValueError("it is no URL") from None
    if parts.scheme not in schemes or not host:
        raise ValueError(f"it must begin with {' or '.join(f'{scheme}://' for scheme in schemes)} and name a host")
    try:
        is_port = parts.port is None or parts.port > 0
    except ValueError:
        is_port = False
    if not is_port:
        raise ValueError("its port must be a number from 1 to 65535")
    if "@" in parts.netloc:
        raise ValueError("it must not carry a user or password")
    if "?" in url or "#" in url:
        raise ValueError("it must not carry a query (?) or a fragment (#); leave them out")
    return parts


def _host(url: str) -> str:
    """Return the host of `url` in lower case, without the dot that may end a full name."""
    return (urlsplit(url).hostname or "").removesuffix(".")


def _stripped(value: SecretStr | None) -> SecretStr | None:
    text = value.get_secret_value().strip() if value is not None else ""
    return SecretStr(text) if text else None
