"""What the documentation promises exists: targets, settings, links, one version."""

import re
import tomllib
from pathlib import Path

import pytest
from pydantic_settings import BaseSettings

from apps.execution_gateway.settings import GatewaySettings
from apps.market_data_service.settings import MarketDataSettings
from libs.service.version import VERSION
from scripts.fetch_daily_bars import FetchSettings
from scripts.local_services import LocalServicesSettings
from scripts.run_local import RunSettings

ROOT = Path(__file__).parent.parent
DOCS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
PROGRAMS: tuple[type[BaseSettings], ...] = (
    GatewaySettings,
    MarketDataSettings,
    RunSettings,
    FetchSettings,
    LocalServicesSettings,
)
SETTINGS = {name.upper(): field for program in PROGRAMS for name, field in program.model_fields.items()}

_TARGET = re.compile(r"^([a-z][a-z-]*):", re.MULTILINE)
# In backticks, or at the start of a line of a code block: prose may say "make sure".
_MAKE = re.compile(r"(?:`|^|&& |[A-Z]=\S+ )make ([a-z][a-z-]*[a-z])", re.MULTILINE)
_EXAMPLE = re.compile(r"^#?([A-Z][A-Z0-9_]+)=(.*)$", re.MULTILINE)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ +(.+)$", re.MULTILINE)
_CODE_BLOCK = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _anchors(document: Path) -> set[str]:
    """Return a document's anchors as GitHub makes them."""
    headings = _HEADING.findall(_CODE_BLOCK.sub("", document.read_text()))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_documents_are_found() -> None:
    assert {"README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/ARCHITECTURE.md"} <= {_name(path) for path in DOCS}


@pytest.mark.parametrize("document", DOCS, ids=_name)
def test_every_target_named_exists(document: Path) -> None:
    targets = set(_TARGET.findall((ROOT / "Makefile").read_text()))
    assert set(_MAKE.findall(document.read_text())) <= targets


@pytest.mark.parametrize("document", DOCS, ids=_name)
def test_relative_links_resolve(document: Path) -> None:
    broken = []
    for link in _LINK.findall(_CODE_BLOCK.sub("", document.read_text())):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = document.parent / path if path else document
        if not target.exists() or (anchor and anchor not in _anchors(target)):
            broken.append(link)
    assert broken == []


def test_the_example_names_every_setting_once_and_no_other() -> None:
    named = [name for name, _ in _EXAMPLE.findall((ROOT / ".env.example").read_text())]
    assert sorted(named) == sorted(SETTINGS)


def test_copying_the_example_changes_nothing() -> None:
    lines = (ROOT / ".env.example").read_text().splitlines()
    assert [line for line in lines if line and not line.startswith("#")] == []


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_the_example_shows_the_defaults(program: type[BaseSettings], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    # One validator of the market data service refuses a start without any source.
    source = {"alpaca_stream_url": "ws://localhost:1/v2/iex"} if program is MarketDataSettings else {}
    written = dict(_EXAMPLE.findall((ROOT / ".env.example").read_text()))
    shown = {name: written[name.upper()] for name in program.model_fields if written[name.upper()]}
    without, spelled_out = program(_env_file=None, **source), program(_env_file=None, **source, **shown)
    differing = {
        name: (getattr(without, name), getattr(spelled_out, name))
        for name in shown
        if _is_no_default_of(program, name, getattr(without, name), getattr(spelled_out, name))
    }
    assert differing == {}


def _is_no_default_of(program: type[BaseSettings], name: str, default: object, shown: object) -> bool:
    # The scripts work the gateway's address out of host and port, to the same effect.
    if name == "execution_gateway_url" and issubclass(program, LocalServicesSettings):
        return False
    return default != shown


def test_there_is_one_version() -> None:
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == VERSION
