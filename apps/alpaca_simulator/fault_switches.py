"""The faults as the outside names them: in JSON, in a scenario file, on the command line. Pure."""

from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from enum import Enum
from typing import Any, Final, Literal, get_args, get_origin, get_type_hints

import msgspec

from apps.alpaca_simulator.faults import NO_FAULTS, Faults, HttpStatus, Seconds, Skew
from apps.alpaca_simulator.protocol import ErrorCode
from libs.market_data.symbols import MalformedSymbolError, parse_symbol

SWITCHES: Final[Mapping[str, Any]] = get_type_hints(Faults, include_extras=True)
"""The type of every switch, by its name."""

_DEFAULTS: Final[Mapping[str, Any]] = asdict(NO_FAULTS)
_FORMS: Final[Mapping[Any, str]] = {
    ErrorCode: "=CODE",
    HttpStatus: "=STATUS",
    Seconds: "=SECONDS",
    Skew: "=SECONDS",
    str: "=PATH",
}
_SYMBOL_SETS: Final = frozenset({"dead_symbols", "refused_symbols"})


class WrongSwitchError(ValueError):
    """A switch is unknown or its value of the wrong kind; nothing was changed. The text names it."""

    def __init__(self, name: str, problem: str) -> None:
        self.name = name
        super().__init__(f"{name[:60]}: {problem}")


def merged(faults: Faults, changes: Mapping[str, object]) -> Faults:
    """Return `faults` with the named switches set; None sets one back to its default. Raises WrongSwitchError."""
    values: dict[str, Any] = {name: _value(name, value) for name, value in changes.items()}
    return replace(faults, **values)


def as_default(faults: Faults, names: Mapping[str, object]) -> Faults:
    """Return `faults` with the named switches back at their defaults."""
    return replace(faults, **{name: _DEFAULTS[name] for name in names})


def turned_on(faults: Faults) -> dict[str, object]:
    """Return the switches that differ from their defaults, as JSON carries them."""
    return {
        field.name: _plain(getattr(faults, field.name))
        for field in fields(Faults)
        if getattr(faults, field.name) != _DEFAULTS[field.name]
    }


def read_option(text: str) -> tuple[str, object]:
    """Return the switch and the value that `NAME`, `NAME=VALUE` or `NAME=A,B` stands for. Raises WrongSwitchError.

    The value is fit for `merged`; a bare name is true.
    """
    name, has_value, value = text.partition("=")
    name = name.strip().replace("-", "_")
    if not has_value:
        return name, _value(name, value=True)
    if name in SWITCHES and isinstance(_DEFAULTS[name], frozenset):
        return name, _value(name, [part.strip() for part in value.split(",") if part.strip()])
    return name, _value(name, value.strip(), strict=False)


def option_forms() -> list[str]:
    """Return how `read_option` takes each switch: `mute`, `auth_error=CODE`, `rest_paths=all|quotes|clock`."""
    return [name + _form(kind) for name, kind in SWITCHES.items()]


def _form(kind: Any) -> str:
    """Return what follows the name of a switch of this type."""
    if kind is bool:
        return ""
    choices = get_args(kind)
    if get_origin(kind) is frozenset:
        (of,) = choices
        return "=" + (",".join(of) if issubclass(of, Enum) else "SYMBOL,SYMBOL")
    if get_origin(kind) is Literal:
        return "=" + "|".join(choices)
    return _FORMS.get(choices[0] if type(None) in choices else kind, "=NUMBER")


def _value(name: str, value: object, *, strict: bool = True) -> object:
    if name not in SWITCHES:
        raise WrongSwitchError(name, f"no such switch; known are {', '.join(SWITCHES)}")
    if value is None:
        return _DEFAULTS[name]
    try:
        read: object = msgspec.convert(value, SWITCHES[name], strict=strict)
        return frozenset(map(parse_symbol, _texts(read))) if name in _SYMBOL_SETS else read
    except (msgspec.ValidationError, MalformedSymbolError) as fault:
        raise WrongSwitchError(name, str(fault)) from fault


def _texts(value: object) -> list[str]:
    return list(value) if isinstance(value, frozenset) else []


def _plain(value: object) -> object:
    match value:
        case frozenset():
            return sorted(_plain(one) for one in value)  # type: ignore[type-var]
        case Enum():
            return value.value
        case _:
            return value
