"""What the scripts that work on the ledger share: the gateway's address as an argument, its failures in words."""

import argparse
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit


class GatewayError(Exception):
    """The gateway cannot be used. The text is one line for a person."""


def address(text: str) -> str:
    """Return the base of a gateway's addresses from an argument. Raises argparse.ArgumentTypeError."""
    try:
        parts = urlsplit(text)
        is_usable = (
            parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port is None or parts.port > 0)
        )
    except ValueError:
        is_usable = False
    if not is_usable:
        raise argparse.ArgumentTypeError(f"{text!r} is no address such as http://127.0.0.1:8002")
    return text.rstrip("/")


def refusal(status: int, body: Mapping[str, Any]) -> str:
    """Return what a problem body says, with the remedy for a missing token."""
    if status == HTTPStatus.UNAUTHORIZED:
        return "answered 401: set API_TOKEN to the gateway's token"
    return f"answered {status}: {body.get('detail') or body.get('title') or 'no reason given'}"
