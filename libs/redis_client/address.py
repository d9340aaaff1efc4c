"""Decides which Redis addresses and which of their options are carried out, left out or refused. Opens nothing.

The option names are redis-py's (https://redis.readthedocs.io/en/stable/connections.html): hosts of Redis hand them out.
"""

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, parse_qsl, quote, urlencode, urlsplit

_SCHEMES: Final = ("redis", "rediss")
_NAME: Final = re.compile(r"[a-z_]{1,40}")
_DATABASE: Final = re.compile(r"[0-9]{1,9}")
_NUMBER: Final = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")
_CLIENT_NAME: Final = re.compile(r"[!-~]{1,64}")
_TRUE: Final = frozenset({"true", "1", "yes"})
_FALSE: Final = frozenset({"false", "0", "no"})


def _boolean(value: str) -> str | None:
    return None if value.lower() in _TRUE | _FALSE else "true or false"


def _number(value: str) -> str | None:
    return None if _NUMBER.fullmatch(value) else "a number"


def _database(value: str) -> str | None:
    return None if _DATABASE.fullmatch(value) else "a database number, 0 or more"


def _file(value: str) -> str | None:
    return None if os.access(value, os.R_OK) and Path(value).is_file() else "a file that can be read here"


def _folder(value: str) -> str | None:
    return None if Path(value).is_dir() else "a folder that can be read here"


def _client_name(value: str) -> str | None:
    return None if _CLIENT_NAME.fullmatch(value) else "1 to 64 visible characters"


def _one_of(*choices: str) -> Callable[[str], str | None]:
    return lambda value: None if value in choices else " or ".join(choices)


_Check = Callable[[str], str | None]
"""Returns None for a value that can be had, else what is expected."""

_PASSED_ON: Final[Mapping[str, _Check]] = {"db": _database, "client_name": _client_name}
_PASSED_ON_OVER_TLS: Final[Mapping[str, _Check]] = {
    "ssl_cert_reqs": _one_of("none", "optional", "required"),
    "ssl_check_hostname": _boolean,
    "ssl_ca_certs": _file,
    "ssl_ca_path": _folder,
    "ssl_certfile": _file,
    "ssl_keyfile": _file,
}
_LEFT_OUT: Final[Mapping[str, _Check]] = {
    # How long a call may take, and over how many connections, is bounded by limits of our own.
    "socket_timeout": _number,
    "socket_connect_timeout": _number,
    "timeout": _number,
    "health_check_interval": _number,
    "max_connections": _number,
    "retry_on_timeout": _boolean,
    "socket_keepalive": _boolean,
    # What is spoken on the wire is ours to say: the older protocol, which every server knows, and bytes.
    "protocol": _one_of("2", "3"),
    "decode_responses": _one_of("false"),
}
_CHECKS: Final = {**_PASSED_ON, **_PASSED_ON_OVER_TLS, **_LEFT_OUT}
ACCEPTED: Final = tuple(sorted(_CHECKS))


def checked_address(url: str) -> str:
    """Return the address to connect to, with the options that are carried out.

    Raises ValueError in one line that names what is wrong, and never a value: one may hold a password.
    """
    parts = _split(url)
    options = _options(parts)
    database = _database_of(parts, options.pop("db", None))
    if options.get("ssl_cert_reqs") == "none":
        # The library refuses to leave a certificate unchecked while its name is to be checked.
        options["ssl_check_hostname"] = "false"
    query = f"?{urlencode(options, quote_via=quote)}" if options else ""
    return f"{parts.scheme}://{parts.netloc}/{database}{query}"


def _split(url: str) -> SplitResult:
    if any(letter.isspace() or not letter.isprintable() for letter in url):
        raise ValueError("it holds a space or another character that is not visible")
    # urlsplit's own errors quote what it could not read, which may be part of a password.
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        raise ValueError("it cannot be read as a URL") from None
    if parts.scheme not in _SCHEMES or not host or "%" in host:
        raise ValueError("it must begin with redis:// or rediss:// and name a host")
    try:
        is_port = parts.port is None or parts.port > 0
    except ValueError:
        is_port = False
    if not is_port or parts.netloc.endswith(":"):
        raise ValueError("its port must be a number from 1 to 65535")
    if "#" in url:
        raise ValueError("it must not hold a #; in a password write %23")
    return parts


def _options(parts: SplitResult) -> dict[str, str]:
    options: dict[str, str] = {}
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        _check(name, value, parts.scheme)
        if name in options:
            raise ValueError(f"option {name!r} is given more than once")
        options[name] = value
    return {name: value for name, value in options.items() if name not in _LEFT_OUT}


def _check(name: str, value: str, scheme: str) -> None:
    check = _CHECKS.get(name)
    if check is None:
        # What is no name may be a piece of an unquoted password.
        shown = repr(name) if _NAME.fullmatch(name) else "with another name"
        raise ValueError(f"unknown option {shown}; accepted are {', '.join(ACCEPTED)}")
    if name in _PASSED_ON_OVER_TLS and scheme != "rediss":
        raise ValueError(f"option {name!r} needs rediss://, a connection with TLS")
    expected = check(value)
    if expected is not None:
        raise ValueError(f"option {name!r} must be {expected}")


def _database_of(parts: SplitResult, option: str | None) -> int:
    named = parts.path.removeprefix("/")
    if named and not _DATABASE.fullmatch(named):
        raise ValueError("what follows the host must be a database number, 0 or more")
    if named and option is not None and int(named) != int(option):
        raise ValueError("it names two databases, after the host and as option 'db'")
    return int(named or option or 0)
