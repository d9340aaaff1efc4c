"""Decides which options of a PostgreSQL address are carried out, which may be left out, and which are refused. Pure.

The names are libpq's (https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS): such addresses
are what hosts of databases hand out. Our driver knows some of them, or other names.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import urlencode

CERTIFICATE_FILES: Final = ("sslrootcert", "sslcert", "sslkey", "sslcrl")
_SSL_MODES: Final = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_CHOICES: Final[Mapping[str, tuple[str, ...]]] = {
    "sslmode": _SSL_MODES,
    "ssl": _SSL_MODES,
    "target_session_attrs": ("any", "primary", "read-write"),
    # Those who demand what the driver cannot do must not be let down in silence.
    "channel_binding": ("disable", "prefer"),
    "gssencmode": ("disable", "prefer"),
}
_LEFT_OUT: Final = (
    # Connecting, and finding out that the peer is dead, are bounded by limits of our own.
    "connect_timeout",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_count",
    "tcp_user_timeout",
    "channel_binding",
    "gssencmode",
)
_PASSED_ON: Final = ("host", "port", "application_name", *CERTIFICATE_FILES)
ACCEPTED: Final = tuple(sorted({*_CHOICES, *_LEFT_OUT, *_PASSED_ON}))
_NAME: Final = re.compile(r"[a-z_]{1,40}")


def read_options(options: Mapping[str, str | Sequence[str]]) -> dict[str, str | Sequence[str]]:
    """Return the options to carry out, `sslmode` under the driver's name `ssl`.

    Raises ValueError that names the option at fault, and never a value: one may hold a password.
    """
    kept: dict[str, str | Sequence[str]] = {}
    for name, value in options.items():
        _check(name, value)
        if name not in _LEFT_OUT:
            kept["ssl" if name == "sslmode" else name] = value
    if {"ssl", "sslmode"} <= options.keys():
        raise ValueError("gives both ssl and sslmode: leave one out")
    return kept


def certificate_dsn(options: Mapping[str, str | Sequence[str]]) -> str | None:
    """Return an address that tells the driver the certificate files and nothing else; None when none is given.

    It takes them in no other way.
    """
    files = {name: str(options[name]) for name in CERTIFICATE_FILES if name in options}
    return f"postgresql://?{urlencode(files)}" if files else None


def _check(name: str, value: str | Sequence[str]) -> None:
    if name not in ACCEPTED:
        # What is no name may be a piece of an unquoted password.
        shown = repr(name) if _NAME.fullmatch(name) else "with another name"
        raise ValueError(f"has an option {shown} that is not known here: accepted are {', '.join(ACCEPTED)}")
    # Of hosts and their ports several may be named: the driver takes the first that answers.
    if not isinstance(value, str) and name not in {"host", "port"}:
        raise ValueError(f"gives {name} more than once")
    choices = _CHOICES.get(name)
    if choices is not None and value not in choices:
        raise ValueError(f"gives {name} a value that cannot be had here: use one of {', '.join(choices)}")
