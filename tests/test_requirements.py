"""The pinned requirements can be installed by any pip: every library is named with the extras that others ask of it."""

import re
from importlib.metadata import distributions
from pathlib import Path

import pytest

REQUIREMENTS = Path(__file__).parent.parent / "requirements"

_PIN = re.compile(r"^([A-Za-z0-9._-]+)(?:\[([a-z0-9,_-]+)\])?==", re.MULTILINE)
_LINE = re.compile(r"^[A-Za-z0-9._\[\],-]+==[^ ;\\]+", re.MULTILINE)
_ASKED = re.compile(r"^([A-Za-z0-9._-]+)\s*\[([^\]]+)\]")


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(file: str) -> dict[str, set[str]]:
    """Return the extras with which each library is pinned."""
    found = _PIN.findall((REQUIREMENTS / f"{file}.txt").read_text())
    return {_normal(name): set(filter(None, extras.split(","))) for name, extras in found}


@pytest.mark.parametrize("file", ["runtime", "laptop", "test"])
def test_every_extra_that_is_asked_for_is_pinned_by_name(file: str) -> None:
    pinned = pins(file)
    assert len(pinned) > 40
    lacking = []
    for installed in distributions():
        if _normal(installed.name) not in pinned:
            continue
        for requirement in installed.requires or ():
            asked = _ASKED.match(requirement)
            if asked is None or "extra ==" in requirement:
                continue
            name, extras = _normal(asked[1]), {part.strip() for part in asked[2].split(",")}
            if not extras <= pinned.get(name, set()):
                lacking.append(f"{installed.name} asks for {requirement}")
    assert not lacking


def test_the_larger_sets_pin_what_the_smaller_do() -> None:
    def lines(file: str) -> set[str]:
        return set(_LINE.findall((REQUIREMENTS / f"{file}.txt").read_text()))

    assert lines("runtime") <= lines("laptop") <= lines("test")
