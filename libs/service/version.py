"""The version that every service reports."""

from typing import Final

VERSION: Final = "0.1.0"
