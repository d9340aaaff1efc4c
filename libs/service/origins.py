"""Reads the list of web pages' origins that `ALLOWED_ORIGINS` names, and says what is wrong with one. Pure."""

import re
from typing import Final

_ORIGIN: Final = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<host>\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(?::(?P<port>[0-9]{1,5}))?"
)
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_MAX_PORT: Final = 65535
_SHOWN: Final = 60


def parse_origins(text: str) -> tuple[str, ...]:
    """Return the origins in a comma-separated list, each as a browser sends it: lower case, no default port.

    Sample: `https://dashboard.example, http://localhost:3000`. Raises ValueError.
    """
    return tuple(dict.fromkeys(_origin(part.strip()) for part in text.split(",") if part.strip()))


def _origin(text: str) -> str:
    shown = ascii(text[:_SHOWN])
    if text == "*":
        raise ValueError("'*' would let every web page use this service; name the origins of your own pages")
    if text.lower() == "null":
        raise ValueError(
            "'null' is the origin of any local file and sandboxed page; serve your page over http and name that origin"
        )
    if not text.isascii():
        raise ValueError(f"{shown} is not ASCII; write the host as browsers send it (xn--…)")
    found = _ORIGIN.fullmatch(text.lower())
    if found is None:
        without_path = "/".join(text.split("/")[:3])
        is_path = _ORIGIN.fullmatch(without_path.lower()) is not None and without_path != text
        remedy = (
            f"leave out the path: {without_path[:_SHOWN]}"
            if is_path
            else "write it as https://host or http://host:port"
        )
        raise ValueError(f"{shown} is not an origin; {remedy}")
    scheme, host, port = found["scheme"], found["host"], found["port"]
    if port is None:
        return f"{scheme}://{host}"
    if not 1 <= int(port) <= _MAX_PORT:
        raise ValueError(f"{shown} has no valid port; use 1 to {_MAX_PORT}")
    is_default = _DEFAULT_PORTS.get(scheme) == int(port)
    return f"{scheme}://{host}" if is_default else f"{scheme}://{host}:{int(port)}"
